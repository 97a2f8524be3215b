#include "shardpipe/worker_pool.h"

#include <ATen/ATen.h>
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "api/pool_channel.h"
#include "base/error.h"
#include "comm/child_process.h"
#include "comm/failure.h"
#include "generate/request.h"
#include "shardpipe/artefact.h"
#include "shardpipe/world.h"

namespace shardpipe {
namespace {

using Seconds = std::chrono::duration<double>;
constexpr Seconds kEnd(10);  // for processes that are told to end, or whose job has failed

// The program, by the rules of WorkerPoolOptions::program.
std::string program_path(const std::string& given) {
  if (!given.empty()) {
    return comm::find_program(given);
  }
  if (const char* variable = std::getenv("SHARDPIPE_PROGRAM"); variable != nullptr && *variable != '\0') {
    return comm::find_program(variable);
  }
  Dl_info library{};
  if (::dladdr(reinterpret_cast<const void*>(&is_artefact), &library) != 0 && library.dli_fname != nullptr) {
    const std::filesystem::path folder = std::filesystem::absolute(library.dli_fname).parent_path();
    for (const char* beside : {"../bin/shardpipe", "../../bin/shardpipe", "shardpipe"}) {
      std::error_code error;
      if (std::filesystem::is_regular_file(folder / beside, error)) {
        return (folder / beside).lexically_normal().string();
      }
    }
  }
  return comm::find_program("shardpipe");
}

Error parse_error(const std::string& line) {
  for (const ErrorCode code :
       {ErrorCode::internal, ErrorCode::io, ErrorCode::usage, ErrorCode::input, ErrorCode::rank}) {
    const std::string prefix = fmt::format("error[{}]: ", to_string(code));
    if (line.starts_with(prefix)) {
      const size_t hint = line.find("; hint: ");
      return {
          code, line.substr(prefix.size(), hint - prefix.size()),
          hint == std::string::npos ? "" : line.substr(hint + 8)};
    }
  }
  return {ErrorCode::rank, line};
}

/// The processes of a pool and the thread that starts and watches them: the kernel ends them with it.
class Workers {
 public:
  Workers(const std::string& program, int ranks, double timeout_s, const std::string& transport)
      : ranks_(static_cast<size_t>(ranks)) {
    address_ = "shardpipe-pool-" + comm::unique_author();
    listening_ = PoolChannel::listen(address_);
    thread_ = std::thread([=, this] { watch(program, timeout_s, transport); });
    std::unique_lock lock(mutex_);
    const bool met = changed_.wait_for(lock, Seconds(timeout_s), [&] {
      return ended_ ||
             std::all_of(ranks_.begin(), ranks_.end(), [](const PoolChannel& rank) { return rank.connected(); });
    });
    if (!met || ended_) {
      const Error error =
          met ? failure()
              : Error(
                    ErrorCode::rank,
                    fmt::format("the processes of the worker pool did not start within {} s", timeout_s));
      lock.unlock();
      end();
      throw error;
    }
  }
  ~Workers() { end(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  PoolChannel& rank(size_t number) { return ranks_[number]; }
  size_t size() const { return ranks_.size(); }
  /// What ended them; waits until it is known.
  Error wait_for_failure() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kEnd, [&] { return ended_; });
    return failure();
  }

 private:
  Error failure() const {
    return error_line_.empty() ? Error(ErrorCode::rank, "the processes of the worker pool have ended")
                               : parse_error(error_line_);
  }

  void end() {
    for (PoolChannel& rank : ranks_) {
      if (rank.connected()) {
        rank.send({{"command", "stop"}});
      }
    }
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kEnd, [&] { return ended_; }) && process_ > 0) {
      ::kill(process_, SIGKILL);
    }
    lock.unlock();
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  // Starts the launcher of the ranks, takes their calls, and reads what they print until all have ended.
  void watch(const std::string& program, double timeout_s, const std::string& transport) {
    PoolChannel output;
    try {
      sigset_t none;
      sigemptyset(&none);
      const pid_t process = comm::start_process(
          program,
          {program, "worker", "--pool", address_, "--ranks", std::to_string(ranks_.size()), "--timeout",
           std::to_string(timeout_s), "--transport", transport},
          comm::environment_with({}), none);
      {
        const std::scoped_lock lock(mutex_);
        process_ = process;
      }
      const comm::Descriptor life(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
      if (life.get() < 0) {
        ::kill(process, SIGKILL);
        throw_rank("cannot watch the processes of the worker pool: {}", std::strerror(errno));
      }
      for (bool running = true; running;) {
        pollfd waits[] = {{life.get(), POLLIN, 0}, {listening_.get(), POLLIN, 0}, {output.descriptor(), POLLIN, 0}};
        ::poll(waits, 3, -1);
        if (waits[1].revents != 0) {
          greet(output);
        }
        if (waits[2].revents != 0 && !take_output(output)) {
          output.close();
        }
        running = waits[0].revents == 0;
      }
      ::waitpid(process, nullptr, 0);
      while (output.connected() && take_output(output)) {
      }
      print_rest();
    } catch (const Error& error) {
      const std::scoped_lock lock(mutex_);
      error_line_ = error.what();
    }
    const std::scoped_lock lock(mutex_);
    process_ = 0;
    ended_ = true;
    changed_.notify_all();
  }

  void greet(PoolChannel& output) {
    std::optional<PoolChannel> caller = PoolChannel::accept(listening_);
    const std::optional<PoolMessage> greeting = caller ? caller->receive() : std::nullopt;
    if (!greeting) {
      return;
    }
    const int rank = greeting->head.at("rank");
    if (rank < 0) {
      output = std::move(*caller);
    } else if (rank < static_cast<int>(ranks_.size())) {
      const std::scoped_lock lock(mutex_);
      ranks_[static_cast<size_t>(rank)] = std::move(*caller);
      changed_.notify_all();
    }
  }

  // False at the end. Errors are kept for the caller, everything else is for who reads standard error.
  bool take_output(const PoolChannel& output) {
    char piece[4096];
    const ssize_t count = ::read(output.descriptor(), piece, sizeof(piece));
    if (count <= 0) {
      return false;
    }
    text_.append(piece, static_cast<size_t>(count));
    for (size_t end = text_.find('\n'); end != std::string::npos; end = text_.find('\n')) {
      const std::string line = text_.substr(0, end);
      text_.erase(0, end + 1);
      if (line.starts_with("error[")) {
        const std::scoped_lock lock(mutex_);
        error_line_ = error_line_.empty() ? line : error_line_;
      } else {
        comm::print_error_line(line);
      }
    }
    return true;
  }

  void print_rest() {
    if (!text_.empty()) {
      comm::print_error_line(text_);
    }
  }

  std::string address_;
  comm::Descriptor listening_;
  std::vector<PoolChannel> ranks_;
  std::string text_;  // of the thread
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  pid_t process_ = 0;
  bool ended_ = false;
  std::string error_line_;
  std::thread thread_;
};

}  // namespace

struct WorkerPool::Impl {
  Impl(const std::filesystem::path& path, WorkerPoolOptions given)
      : options(std::move(given)), model(std::filesystem::absolute(path).lexically_normal()) {
    std::error_code error;
    if (!std::filesystem::exists(model, error)) {
      throw_usage("no model at {}: there is no such file or folder", path.string());
    }
    if (options.plan.split) {
      throw Error(
          ErrorCode::usage, "a worker pool cannot call a split function of this process",
          "give its cuts with LayoutOptions::cuts");
    }
    if (!(options.timeout_s > 0)) {
      throw_usage("WorkerPoolOptions::timeout_s is {} s, must be above 0", options.timeout_s);
    }
    PlanOptions plan = options.plan;
    if (is_artefact(model)) {
      ArtefactInfo compiled = read_artefact(model);
      plan.device = std::move(compiled.device);
      plan.layout = std::move(compiled.layout);
    }
    check_transport(options.transport, plan.device);
    check_device(plan.device);
    ranks = plan.layout.pp * plan.layout.dp * plan.layout.tp;
    start();
  }

  void start() {
    workers.reset();
    prepared.reset();
    broken.reset();
    workers = std::make_unique<Workers>(program_path(options.program), ranks, options.timeout_s, options.transport);
    const Json head = {
        {"model", model.string()},
        {"dtype", options.dtype},
        {"weights", options.weights.string()},
        {"tokenizer", options.tokenizer.empty() ? model.string() : options.tokenizer},
        {"plan", to_json(options.plan)}};
    for (size_t rank = 0; rank < workers->size(); ++rank) {
      workers->rank(rank).send(head);
    }
    if (!receive().head.contains("ready")) {
      throw_internal("the worker pool's first process does not say that it is ready");
    }
  }

  /// The next message of rank 0. Throws what ended the processes.
  PoolMessage receive() {
    std::optional<PoolMessage> message = workers->rank(0).receive();
    if (message) {
      return std::move(*message);
    }
    broken = workers->wait_for_failure();
    workers.reset();
    throw *broken;
  }

  PoolMessage call(const Json& head, const NamedTensors& tensors = {}, const TokenCallback& on_token = {}) {
    if (broken) {
      throw Error(
          ErrorCode::rank, "the processes of the worker pool have ended: " + broken->message(),
          "WorkerPool::restart() starts new ones");
    }
    workers->rank(0).send(head, tensors);
    const PoolMessage first = receive();
    if (first.head.contains("refused")) {
      throw parse_error(fmt::format(
          "error[{}]: {}{}", first.head.at("code").get<std::string>(), first.head.at("refused").get<std::string>(),
          first.head.at("hint").get<std::string>().empty() ? ""
                                                           : "; hint: " + first.head.at("hint").get<std::string>()));
    }
    for (size_t rank = 1; rank < workers->size(); ++rank) {
      workers->rank(rank).send(head);
    }
    std::exception_ptr thrown;
    for (;;) {
      PoolMessage message = receive();
      if (!message.head.contains("token")) {
        if (thrown) {
          std::rethrow_exception(thrown);
        }
        return message;
      }
      const Json& token = message.head.at("token");
      try {
        if (!thrown) {
          on_token(token.at(0), token.at(1), static_cast<FinishReason>(token.at(2).get<int>()));
        }
      } catch (...) {
        thrown = std::current_exception();
      }
    }
  }

  void prepare(ModelProgram program, bool gradients, const NamedTensors& example) {
    if (prepared != std::pair(program, gradients)) {
      call({{"command", "prepare"}, {"program", static_cast<int>(program)}, {"gradients", gradients}}, example);
      prepared = std::pair(program, gradients);
    }
  }

  WorkerPoolOptions options;
  std::filesystem::path model;
  int ranks = 1;
  std::mutex mutex;
  std::unique_ptr<Workers> workers;
  std::optional<std::pair<ModelProgram, bool>> prepared;  // the program of the ranks
  std::optional<Error> broken;                            // what ended the processes
};

WorkerPool::WorkerPool(const std::filesystem::path& model, const WorkerPoolOptions& options)
    : impl_(std::make_unique<Impl>(model, options)) {}
WorkerPool::~WorkerPool() = default;
WorkerPool::WorkerPool(WorkerPool&&) noexcept = default;

RunResult WorkerPool::run(const NamedTensors& inputs, const RunOptions& options) {
  const std::scoped_lock lock(impl_->mutex);
  const bool masked =
      std::any_of(inputs.begin(), inputs.end(), [](const auto& i) { return i.first == "attention_mask"; });
  impl_->prepare(masked ? ModelProgram::forward_with_mask : ModelProgram::forward, !options.loss.empty(), inputs);
  PoolMessage message = impl_->call({{"command", "run"}, {"options", to_json(options)}}, inputs);
  RunResult result;
  const auto outputs = message.head.at("outputs").get<std::ptrdiff_t>();
  result.outputs.assign(message.tensors.begin(), message.tensors.begin() + outputs);
  result.gradients.assign(message.tensors.begin() + outputs, message.tensors.end());
  result.chunks = message.head.at("chunks");
  const Json& stats = message.head.at("stats");
  result.stats = {stats.at(0), stats.at(1), stats.at(2), stats.at(3)};
  return result;
}

GenerateResult WorkerPool::generate(
    const std::vector<std::vector<int64_t>>& prompts, const GenerateOptions& options, const TokenCallback& on_token) {
  const std::scoped_lock lock(impl_->mutex);
  impl_->prepare(ModelProgram::generation, false, {});
  const std::string request = generation::serialize({prompts, {}, options, 1, {}});
  const PoolMessage message =
      impl_->call({{"command", "generate"}, {"request", request}, {"live", static_cast<bool>(on_token)}}, {}, on_token);
  GenerateResult result;
  const Json& head = message.head;
  for (const Json& output : head.at("outputs")) {
    const at::Tensor& logprobs = message.tensors.at(result.outputs.size()).second;
    const auto* values = logprobs.const_data_ptr<double>();
    result.outputs.push_back(
        {output.at(0).get<std::vector<int64_t>>(),
         {values, values + logprobs.numel()},
         static_cast<FinishReason>(output.at(1).get<int>())});
  }
  for (const Json& step : head.at("steps")) {
    result.steps.push_back({step.at(0), step.at(1), step.at(2), step.at(3)});
  }
  result.lanes = head.at("lanes");
  result.prefill_s = head.at("prefill_s");
  result.decode_s = head.at("decode_s");
  return result;
}

NamedTensors WorkerPool::state() {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->call({{"command", "state"}}).tensors;
}

void WorkerPool::set_state(const NamedTensors& state) {
  const std::scoped_lock lock(impl_->mutex);
  if (!impl_->prepared) {
    impl_->prepare(ModelProgram::forward, false, {});
  }
  impl_->call({{"command", "set_state"}}, state);
}

void WorkerPool::reset_state() {
  const std::scoped_lock lock(impl_->mutex);
  impl_->call({{"command", "reset_state"}});
}

void WorkerPool::restart() {
  const std::scoped_lock lock(impl_->mutex);
  impl_->start();
}

std::vector<pid_t> WorkerPool::process_ids() const {
  const std::scoped_lock lock(impl_->mutex);
  std::vector<pid_t> ids;
  for (size_t rank = 0; impl_->workers && rank < impl_->workers->size(); ++rank) {
    ids.push_back(impl_->workers->rank(rank).peer());
  }
  return ids;
}

}  // namespace shardpipe
