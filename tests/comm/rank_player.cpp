// One rank of a test job, or its launcher:
//   rank_player launch N [--master H:P] [--nnodes M --node-rank R] SCENARIO ARGUMENTS...   starts N of itself as ranks
//   rank_player SCENARIO ARGUMENTS...           is one rank; SHARDPIPE_TEST_{TIMEOUT_MS,TRANSPORT} set the world's
//   options
#include "comm/rank_player.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "comm/group_body.h"
#include "comm/launcher.h"

namespace shardpipe::comm::player {
namespace {

using std::chrono::milliseconds;

/// Every byte follows from sender, receiver, tag and place, so that a mix-up of any of them shows.
at::Tensor pattern(int64_t numel, at::ScalarType dtype, int from, int to, int tag) {
  at::Tensor tensor = at::empty({numel}, dtype);
  auto* bytes = static_cast<uint8_t*>(tensor.mutable_data_ptr());
  for (size_t i = 0; i < tensor.nbytes(); ++i) {
    // bool holds 0 and 1 only.
    const size_t value = i * 131 + from * 7 + to * 29 + tag * 61 + (i >> 8);
    bytes[i] = static_cast<uint8_t>(dtype == at::kBool ? value & 1 : value);
  }
  return tensor;
}

void expect_pattern(const at::Tensor& got, int from, int to, int tag) {
  const at::Tensor expected = pattern(got.numel(), got.scalar_type(), from, to, tag);
  if (got.nbytes() > 0 && std::memcmp(got.const_data_ptr(), expected.const_data_ptr(), got.nbytes()) != 0) {
    throw_internal("message from {} to {}, tag {}, {} bytes: wrong content", from, to, tag, got.nbytes());
  }
}

void ready(const World& world) {
  std::printf("ready %d %d\n", world.rank(), ::getpid());
  std::fflush(stdout);
}

const std::vector<at::ScalarType> kTypes = {at::kFloat,         at::kBFloat16,    at::kHalf, at::kDouble,
                                            at::kLong,          at::kInt,         at::kByte, at::kBool,
                                            at::kFloat8_e4m3fn, at::kComplexFloat};

/// All pairs, sizes around the limits of packets and buffers, all dtypes; receives posted before or after the sends.
void messages(World& world, const Arguments&) {
  Transport all = world.transport();
  const std::vector<int64_t> sizes = {0, 1, 2, 3, 7, 64, 576, 1000, 1447, 36'864, 65'537, 1'048'576 + 3};
  for (int round = 0; round < 4; ++round) {
    const bool receive_first = round % 2 == 0;
    std::vector<MessageHandle> sends;
    std::vector<MessageHandle> receives;
    std::vector<at::Tensor> received;
    std::vector<std::pair<int, int>> origins;
    const auto post_receives = [&] {
      for (int peer = 0; peer < all.size(); ++peer) {
        for (size_t i = 0; i < sizes.size(); ++i) {
          received.push_back(at::empty({sizes[i]}, kTypes[(i + round) % kTypes.size()]));
          origins.emplace_back(peer, static_cast<int>(i));
          receives.push_back(all.irecv(received.back(), peer, static_cast<int>(i)));
        }
      }
    };
    const auto post_sends = [&] {
      for (int peer = 0; peer < all.size(); ++peer) {
        for (size_t i = sizes.size(); i-- > 0;) {  // other order than the receives
          const int tag = static_cast<int>(i);
          sends.push_back(
              all.isend(pattern(sizes[i], kTypes[(i + round) % kTypes.size()], all.rank(), peer, tag), peer, tag));
        }
      }
    };
    if (receive_first) {
      post_receives();
      post_sends();
    } else {
      post_sends();
      post_receives();
    }
    for (size_t i = receives.size(); i-- > 0;) {
      receives[i].wait();
      expect_pattern(received[i], origins[i].first, all.rank(), origins[i].second);
    }
    if (round < 2) {  // the other rounds leave the sends to the communication thread
      for (MessageHandle& send : sends) {
        send.wait();
      }
    }
  }
  int64_t expected = 0;
  for (int round = 0; round < 4; ++round) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      expected += sizes[i] * static_cast<int64_t>(c10::elementSize(kTypes[(i + round) % kTypes.size()]));
    }
  }
  for (const PeerStatistics& peer : all.statistics()) {
    if (peer.bytes_sent != expected || peer.bytes_received != expected ||
        peer.messages_sent != static_cast<int64_t>(4 * sizes.size())) {
      throw_internal(
          "statistics count {} bytes sent, {} received, expected {}", peer.bytes_sent, peer.bytes_received, expected);
    }
  }
  world.barrier();
}

/// Same tag: messages keep their order. Many sends parked before any receive; a send may be waited for in any order.
void orders(World& world, const Arguments&) {
  Transport all = world.transport();
  constexpr int kCount = 200;
  const int next = (all.rank() + 1) % all.size();
  const int previous = (all.rank() + all.size() - 1) % all.size();
  std::vector<MessageHandle> sends;
  for (int i = 0; i < kCount; ++i) {
    sends.push_back(all.isend(pattern(i * 37 % 5000, at::kByte, all.rank(), next, i), next, 5));
  }
  world.barrier();
  for (int i = 0; i < kCount; ++i) {
    at::Tensor got = at::empty({i * 37 % 5000}, at::kByte);
    all.irecv(got, previous, 5).wait();
    expect_pattern(got, previous, all.rank(), i);
  }
  for (int i = kCount; i-- > 0;) {
    sends[i].wait();
  }
  // Two ranks that wait for a late send, while an early one to the same rank is parked: neither may hold up the other.
  MessageHandle parked = all.isend(pattern(300'000, at::kByte, 1, 2, 3), next, 6);
  MessageHandle urgent = all.isend(pattern(300'000, at::kByte, 1, 2, 4), next, 7);
  at::Tensor got = at::empty({300'000}, at::kByte);
  all.irecv(got, previous, 7).wait();
  expect_pattern(got, 1, 2, 4);
  urgent.wait();
  all.irecv(got, previous, 6).wait();
  expect_pattern(got, 1, 2, 3);
  parked.wait();
  // Polling.
  at::Tensor polled = at::empty({8}, at::kLong);
  MessageHandle receive = all.irecv(polled, previous, 8);
  if (receive.done()) {
    throw_internal("a message was there before it was sent");
  }
  world.barrier();
  MessageHandle send = all.isend(pattern(8, at::kLong, all.rank(), next, 8), next, 8);
  while (!receive.done() || !send.done()) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  receive.wait();
  send.wait();
  expect_pattern(polled, previous, all.rank(), 8);
  world.barrier();
}

void broadcasts(World& world, const Arguments& arguments) {
  const size_t size = std::stoull(arguments.at(0));
  for (int root = 0; root < world.size(); ++root) {
    for (const size_t bytes : {size_t{0}, size_t{5}, size}) {
      std::string expected(bytes, '\0');
      for (size_t i = 0; i < bytes; ++i) {
        expected[i] = static_cast<char>(i * 31 + (i >> 11) + root);
      }
      std::string got = world.rank() == root ? expected : "old";
      world.broadcast(got, root);
      if (got != expected) {
        throw_internal(
            "broadcast of {} bytes from {}: rank {} got {} other bytes", bytes, root, world.rank(), got.size());
      }
      const std::vector<std::string> all = world.gather(std::to_string(world.rank()) + expected);
      if (all.size() != (world.rank() == 0 ? static_cast<size_t>(world.size()) : 0)) {
        throw_internal("gather returned {} parts", all.size());
      }
      for (size_t rank = 0; rank < all.size(); ++rank) {
        if (all[rank] != std::to_string(rank) + expected) {
          throw_internal("gather: wrong part of rank {}", rank);
        }
      }
    }
  }
}

/// Groups along each axis reach exactly the ranks that the mesh names.
void groups(World& world, const Arguments& arguments) {
  const mesh::Mesh mesh(std::stoi(arguments.at(0)), std::stoi(arguments.at(1)), std::stoi(arguments.at(2)));
  world.create_groups(mesh);
  for (const mesh::Axis axis : mesh::kAxes) {
    const Transport& group = world.transport(axis);
    if (group.ranks() != mesh.group(world.rank(), axis)) {
      throw_internal("group {} has other ranks than the mesh", to_string(axis));
    }
    std::vector<MessageHandle> sends;
    for (int peer = 0; peer < group.size(); ++peer) {
      sends.push_back(group.isend(pattern(5000, at::kByte, world.rank(), group.ranks()[peer], 1), peer, 1));
    }
    for (int peer = 0; peer < group.size(); ++peer) {
      at::Tensor got = at::empty({5000}, at::kByte);
      group.irecv(got, peer, 1).wait();
      expect_pattern(got, group.ranks()[peer], world.rank(), 1);
    }
  }
  std::printf("local %d of %d\n", world.local_rank(), world.local_world_size());
}

/// Collectives of all ranks, of the axes of a mesh, and of lists of ranks in any order.
void collectives(World& world, const Arguments& arguments) {
  at::set_num_threads(1);
  test::check_group(world.group());
  test::check_mixture(world.group(), 100, 7);
  const int size = world.size();
  if (size % 2 == 0) {
    world.create_groups(mesh::Mesh(size / 2, 1, 2));
    for (const mesh::Axis axis : {mesh::Axis::tp, mesh::Axis::pp, mesh::Axis::dp}) {
      test::check_mixture(world.group(axis), 20, 11);
    }
  }
  std::vector<int> backwards(size);
  std::iota(backwards.rbegin(), backwards.rend(), 0);
  const Group group = world.group(backwards);
  if (group.rank() != size - 1 - world.rank() || group.ranks() != backwards) {
    throw_internal("group of ranks in reverse order: rank {} is {}", world.rank(), group.rank());
  }
  test::check_mixture(group, 20, 13);
  if (size > 1 && world.rank() < 2) {
    test::check_mixture(world.group({0, 1}), 20, 17);
  }
  test::check_mixture(world.group({world.rank()}), 5, 19);
  std::printf("transport %s\n", world.group().transport().c_str());
  for (const std::vector<int>& wrong : {std::vector<int>{}, {world.rank(), world.rank()}, {world.rank(), size}}) {
    try {
      world.group(wrong);
      throw_internal("a wrong list of ranks was taken for a group");
    } catch (const Error& error) {
      if (error.message().find("is no group of rank") == std::string::npos) {
        throw;
      }
    }
  }
  if (!arguments.empty() && world.group().transport() != arguments[0]) {
    throw_internal("the transport is {}, expected {}", world.group().transport(), arguments[0]);
  }
}

WorldOptions world_options() {
  WorldOptions options;
  if (const char* timeout = std::getenv("SHARDPIPE_TEST_TIMEOUT_MS")) {
    options.timeout = milliseconds(std::atoi(timeout));
  }
  if (const char* limit = std::getenv("SHARDPIPE_TEST_HEARTBEAT_MS")) {
    options.heartbeat_limit = milliseconds(std::atoi(limit));
  }
  if (const char* transport = std::getenv("SHARDPIPE_TEST_TRANSPORT")) {
    options.transport = transport_choice(transport);
  }
  return options;
}

/// Works for ever: messages around the ring in both directions, of a size that fills the sockets.
void ring(World& world, const Arguments& arguments) {
  const int64_t numel = arguments.empty() ? 40'000 : std::stoll(arguments[0]);
  Transport all = world.transport();
  const int next = (all.rank() + 1) % all.size();
  const int previous = (all.rank() + all.size() - 1) % all.size();
  world.barrier();
  ready(world);
  at::Tensor a = at::zeros({numel});
  at::Tensor b = at::zeros({numel});
  while (true) {
    world.monitor().begin_action("RING", {.from = previous});
    MessageHandle forward = all.irecv(a, previous, 0);
    MessageHandle backward = all.irecv(b, next, 1);
    all.isend(at::ones({numel}), next, 0);
    all.isend(at::ones({numel}), previous, 1);
    forward.wait();
    backward.wait();
    world.monitor().end_action();
  }
}

/// Works for ever: sums of all sizes, and messages between them.
void reduce_for_ever(World& world, const Arguments&) {
  at::set_num_threads(1);
  const Transport& all = world.transport();
  const int next = (all.rank() + 1) % all.size();
  const int previous = (all.rank() + all.size() - 1) % all.size();
  world.barrier();
  ready(world);
  for (int64_t round = 0;; ++round) {
    const at::Tensor tensor = at::ones({round % 7 == 3 ? 1'500'000 : 576 + round % 1000});
    world.group().all_reduce(tensor);
    if (tensor[-1].item<float>() != static_cast<float>(all.size())) {
      throw_internal("a sum is {}", tensor[-1].item<float>());
    }
    world.monitor().begin_action("NEXT", {.from = previous});
    at::Tensor got = at::empty_like(tensor);
    MessageHandle receive = all.irecv(got, previous, 0);
    all.isend(tensor, next, 0);
    receive.wait();
    world.monitor().end_action();
  }
}

/// Talks, and in the middle something happens to a rank: FAULT RANK.
void suffer(World& world, const Arguments& arguments) {
  at::set_num_threads(1);
  const std::string& fault = arguments.at(0);
  const bool victim = world.rank() == std::stoi(arguments.at(1));
  constexpr int kCall = 22;  // in a round of large messages
  std::function<void(int)> happens = test::delays(world.rank());
  world.barrier();
  ready(world);
  test::talk(world.group(), world.transport(), world.monitor(), fault == "delayed" ? 20 : 1'000'000, [&](int call) {
    happens(call);
    if (!victim || call != kCall) {
      return;
    }
    if (fault == "killed") {
      ::raise(SIGKILL);
    } else if (fault == "stopped") {
      ::raise(SIGSTOP);
    } else if (fault == "gone") {
      ::_exit(0);
    } else if (fault == "dropped") {  // what a firewall does to a connection that it forgets
      sockaddr_storage peer{};
      for (int fd = 3; fd < 1024; ++fd) {
        socklen_t length = sizeof(peer);
        if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0) {
          ::shutdown(fd, SHUT_RDWR);
        }
      }
    }
  });
}

/// Rank 0 comes late to everything; the others must sleep meanwhile.
void late(World& world, const Arguments& arguments) {
  const int seconds = std::stoi(arguments.at(0));
  world.barrier();
  const auto busy = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
  };
  const double before = busy();
  const at::Tensor tensor = at::ones({1000});
  const auto wait = [&] {
    if (world.rank() == 0) {
      std::this_thread::sleep_for(std::chrono::seconds(seconds));
    }
  };
  wait();
  world.group().all_reduce(tensor);
  wait();
  at::Tensor got = at::empty({300'000});
  if (world.rank() == 0) {
    for (int peer = 1; peer < world.size(); ++peer) {
      world.transport().isend(at::ones({300'000}), peer);
    }
  } else {
    world.transport().irecv(got, 0).wait();
  }
  world.barrier();
  if (busy() - before > 0.25 * seconds) {
    throw_internal("rank {} was busy for {} s while it waited", world.rank(), busy() - before);
  }
}

/// A world after the other in the same processes, each used a little: nothing may be left of any.
void worlds(World& world, const Arguments& arguments) {
  const auto mappings = [] {
    std::ifstream file("/proc/self/maps");
    int count = 0;
    for (std::string line; std::getline(file, line);) {
      count += line.find("memfd:shardpipe") != std::string::npos ? 1 : 0;
    }
    return count;
  };
  const auto threads = [] {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return std::distance(begin(tasks), end(tasks));
  };
  const auto files = [] {
    const std::filesystem::directory_iterator list("/proc/self/fd");
    return std::distance(begin(list), end(list));
  };
  const auto environment = environment_from_variables().value();
  const auto use = [&](World& another) {
    const at::Tensor tensor = at::ones({100'000});
    another.group().all_reduce(tensor);
    MessageHandle send = another.transport().isend(tensor, (another.rank() + 1) % another.size());
    another.transport().irecv(tensor, (another.rank() + another.size() - 1) % another.size()).wait();
    send.wait();
  };
  use(world);
  const int mappings_before = mappings();
  const auto threads_before = threads();
  const auto files_before = files();
  for (int round = 0; round < std::stoi(arguments.at(0)); ++round) {
    World another = World::connect(environment, world_options());
    use(another);
    another.finish();
  }
  if (mappings() != mappings_before || threads() > threads_before || files() > files_before) {
    throw_internal(
        "left behind: {} mappings, {} threads, {} files", mappings() - mappings_before, threads() - threads_before,
        files() - files_before);
  }
}

/// All wait for rank 0, and some rank does what its arguments say: ACTION RANK [NUMBER]
/// [all_reduce].
void misbehave(World& world, const Arguments& arguments) {
  const std::string& what = arguments.at(0);
  const int who = std::stoi(arguments.at(1));
  const int number = arguments.size() > 2 ? std::stoi(arguments[2]) : 0;
  world.barrier();
  ready(world);
  if (world.rank() == who) {
    if (what == "throw") {
      throw Error(ErrorCode::input, fmt::format("tensor 'a\xff' is broken, rank {}", who), "mend it");
    }
    if (what == "raise") {
      ::raise(number);
    }
    if (what == "exit") {
      ::_exit(number);
    }
    if (what == "compute") {  // neither waits nor begins actions
      world.monitor().begin_action("0F3", {.stage = 0, .microbatch = 3});
      while (true) {
        std::this_thread::sleep_for(milliseconds(10));
      }
    }
    if (what == "loop") {
      while (true) {
        world.monitor().check();
      }
    }
  }
  if (what == "throw-while-others-compute" && world.rank() != who) {
    while (true) {
      std::this_thread::sleep_for(milliseconds(10));
    }
  }
  if (what == "throw-while-others-compute") {
    throw_internal("rank {} fails while the others compute", who);
  }
  if (arguments.back() == "all_reduce") {
    world.group().all_reduce(at::ones({64}));
  }
  at::Tensor got = at::empty({64});
  const int from = who == world.rank() ? (who + 1) % world.size() : who;
  world.monitor().begin_action("1RECV_F0", {.stage = 1, .microbatch = 0, .from = from});
  world.transport().irecv(got, from, 0).wait();
}

void stays(World& world, const Arguments& arguments) {
  ready(world);
  std::this_thread::sleep_for(milliseconds(std::stoi(arguments.at(0)) * (world.rank() + 1)));
}

/// A program that is left behind, as by a careless script.
void leave_child(World& world, const Arguments&) {
  if (::fork() == 0) {
    ::setsid();
    ::execlp("sleep", "sleep", "1000", nullptr);
    ::_exit(1);
  }
  ready(world);
}

void throw_when_told(World& world, const Arguments&) {
  world.barrier();
  if (world.rank() == 1) {
    throw Error(ErrorCode::io, "disk full");
  }
  std::string bytes(world.rank() == 0 ? 300'000'000 : 0, 'x');
  world.broadcast(bytes, 0);
  world.barrier();
}

void variables(World&, const Arguments&) {
  for (const char* name :
       {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PLAYER"}) {
    const char* value = std::getenv(name);
    std::printf("%s=%s\n", name, value == nullptr ? "" : value);
  }
}

void nothing(World&, const Arguments&) {}

const std::map<std::string, std::function<void(World&, const Arguments&)>> kScenarios = {
    {"messages", messages},
    {"orders", orders},
    {"broadcasts", broadcasts},
    {"groups", groups},
    {"collectives", collectives},
    {"ring", ring},
    {"reduce", reduce_for_ever},
    {"suffer", suffer},
    {"late", late},
    {"worlds", worlds},
    {"misbehave", misbehave},
    {"stays", stays},
    {"leave-child", leave_child},
    {"throw-during-broadcast", throw_when_told},
    {"variables", variables},
    {"nothing", nothing},
    {"c10d", [](World& world, const Arguments&) { use_c10d(world); }},
    {"bench", [](World& world, const Arguments&) { bench_messages(world); }},
};

int run_rank(const std::string& scenario, const Arguments& arguments) {
  std::optional<Environment> environment;
  try {
    if (scenario == "fail-before-meeting") {
      environment = environment_from_variables();
      throw_usage("rank {} does not like its options", environment ? environment->rank : -1);
    }
    environment = environment_from_variables();
    const auto start = std::chrono::steady_clock::now();
    World world = World::connect(environment.value_or(Environment{}), world_options());
    set_log_rank(world.rank());
    if (scenario == "connect-time") {
      world.create_groups(mesh::Mesh(world.size(), 1, 1));
      std::printf(
          "connect %d %.1f\n", world.rank(),
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    } else {
      kScenarios.at(scenario)(world, arguments);
    }
    world.finish();
    std::printf("done %d\n", world.rank());
    return 0;
  } catch (...) {
    std::fflush(stdout);
    const int status = World::fail(current_error(), environment);
    std::_Exit(status);
  }
}

int run_launcher(Arguments arguments) {
  LaunchOptions options;
  options.nproc = std::stoi(arguments.at(0));
  arguments.erase(arguments.begin());
  while (arguments.size() > 1 && arguments[0].rfind("--", 0) == 0) {
    if (arguments[0] == "--master") {
      options.master = arguments[1];
    } else if (arguments[0] == "--nnodes") {
      options.nnodes = std::stoi(arguments[1]);
    } else if (arguments[0] == "--node-rank") {
      options.node_rank = std::stoi(arguments[1]);
    } else if (arguments[0] == "--timeout-ms") {
      options.timeout = milliseconds(std::stoi(arguments[1]));
    } else {
      throw_usage("unknown option {}", arguments[0]);
    }
    arguments.erase(arguments.begin(), arguments.begin() + 2);
  }
  if (arguments.size() > 1 && arguments[0] == "program") {
    options.program.assign(arguments.begin() + 1, arguments.end());
  } else {
    options.program.assign(1, "/proc/self/exe");
    options.program.insert(options.program.end(), arguments.begin(), arguments.end());
  }
  options.environment = {{"PLAYER", "set by the launcher"}};
  return launch(options);
}

}  // namespace
}  // namespace shardpipe::comm::player

int main(int argc, char** argv) {
  using namespace shardpipe::comm;
  player::Arguments arguments(argv + 1, argv + argc);
  const std::string scenario = arguments.at(0);
  arguments.erase(arguments.begin());
  try {
    return scenario == "launch" ? player::run_launcher(arguments) : player::run_rank(scenario, arguments);
  } catch (...) {
    return World::fail(shardpipe::current_error());
  }
}
