// Connections over NCCL's interface, played by this process: who connects with whom and when, what goes over which
// communicator, and what becomes of errors. The library itself: nccl_check.cpp.
#include "comm/nccl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/fake_nccl.h"
#include "comm/group_body.h"
#include "comm/threads.h"

namespace shardpipe::comm::test {
namespace {

using testing::HasSubstr;

/// Runs `body` in one thread a rank, connected; the pairs of all ranks, unless others are given.
std::vector<std::string> run_nccl(
    int ranks,
    const std::function<void(const ThreadRank& rank, const DeviceConnection& connection)>& body,
    std::optional<std::vector<std::pair<int, int>>> pairs = {}) {
  const Store store = Store::serve(listen_on("127.0.0.1", 0), "nccl");
  return run_threads(ranks, false, [&](const ThreadRank& rank) {
    const NcclSeat seat{
        rank.transport.ranks(), rank.transport.rank(), at::kCPU, rank.monitor, pairs.value_or(all_pairs(ranks))};
    const DeviceConnection connection =
        connect_nccl(FakeNccl::api(), store, "key", seat, rank.transport, std::chrono::seconds(20));
    body(rank, connection);
  });
}

TEST(Nccl, Collectives) {
  for (const int ranks : {2, 3, 4}) {
    EXPECT_EQ(
        run_nccl(
            ranks,
            [&](const ThreadRank& rank, const DeviceConnection& connection) {
              const Group group(connection.collectives, rank.transport.ranks(), rank.transport.rank(), rank.monitor);
              EXPECT_EQ(group.transport(), "nccl");
              if (ranks == 3) {
                check_group(group);
              }
              check_mixture(group, 30, ranks);
              connection.flush();
            }),
        no_errors(ranks));
  }
  EXPECT_EQ(FakeNccl::open(), 0);
}

/// Everyone begins with sends to everyone; the receivers ask in another order.
TEST(Nccl, Messages) {
  for (const int ranks : {2, 5}) {
    EXPECT_EQ(
        run_nccl(
            ranks,
            [](const ThreadRank& rank, const DeviceConnection& connection) {
              const Transport all(connection.messages, rank.transport.ranks(), rank.transport.rank());
              const auto message = [](int src, int dst, int tag) {
                return at::full({100 + 50 * tag}, src * 10 + dst * 100 + tag, at::kInt);
              };
              for (int round = 0; round < 10; ++round) {
                for (int peer = 0; peer < all.size(); ++peer) {
                  for (int tag = 0; tag < 3; ++tag) {
                    all.isend(message(all.rank(), peer, tag), peer, tag);
                  }
                }
                for (int peer = all.size() - 1; peer >= 0; --peer) {
                  for (const int tag : {2, 0, 1}) {
                    const at::Tensor expected = message(peer, all.rank(), tag);
                    const at::Tensor out = at::zeros_like(expected);
                    all.irecv(out, peer, tag).wait();
                    expect_same("a message", out, expected);
                  }
                }
              }
              connection.flush();
            }),
        no_errors(ranks));
  }
  EXPECT_EQ(FakeNccl::open(), 0);
  EXPECT_EQ(FakeNccl::max_blocks(), 8);
}

TEST(Nccl, OnlyPairsThatAreAskedFor) {
  const std::vector<std::string> errors = run_nccl(
      3,
      [](const ThreadRank& rank, const DeviceConnection& connection) {
        // Two communicators for each of two pairs, and one for all, each with a seat of every rank in it.
        rank.group.barrier();
        EXPECT_EQ(FakeNccl::open(), 2 * 2 * 2 + 3);
        rank.group.barrier();
        const Transport all(connection.messages, rank.transport.ranks(), rank.transport.rank());
        if (all.rank() == 2) {
          all.isend(at::zeros({1}), 0);
        }
      },
      {{{2, 1}, {0, 1}, {1, 2}, {1, 1}}});
  EXPECT_EQ(errors[0], "");
  EXPECT_EQ(errors[1], "");
  EXPECT_THAT(errors[2], HasSubstr("ranks 2 and 0 are not connected for messages over NCCL"));
}

TEST(Nccl, RanksThatDoNotConnect) {
  FakeNccl::fail("init", static_cast<NcclResult>(5));
  std::vector<std::string> errors = run_nccl(2, [](const ThreadRank&, const DeviceConnection&) {});
  FakeNccl::fail("init", kNcclSuccess);
  EXPECT_EQ(
      errors[0], "error[rank]: rank 0: ranks 0, 1 could not connect over NCCL on cpu: invalid usage: the last words");

  const Store store = Store::serve(listen_on("127.0.0.1", 0), "nccl");
  errors = run_threads(2, false, [&](const ThreadRank& rank) {
    if (rank.transport.rank() == 1) {
      const NcclSeat seat{{0, 1}, 1, at::kCPU, rank.monitor, all_pairs(2)};
      connect_nccl(FakeNccl::api(), store, "key", seat, rank.transport, std::chrono::milliseconds(200));
    }
  });
  EXPECT_EQ(errors[1], "error[rank]: rank 1: rank 0 did not come to connect over NCCL within 0.2 s");
}

TEST(Nccl, ErrorsOfTransfers) {
  const auto run = [](const std::string& call, NcclResult result, bool collective) {
    std::vector<std::string> errors = run_nccl(2, [&](const ThreadRank& rank, const DeviceConnection& connection) {
      rank.group.barrier();
      FakeNccl::fail(call, result);
      if (collective) {
        connection.collectives->all_reduce(at::zeros({4}), ReduceOp::sum);
      } else {
        connection.messages->isend(at::zeros({4}), 1 - rank.transport.rank(), 0);
      }
    });
    FakeNccl::fail(call, kNcclSuccess);
    return errors;
  };
  EXPECT_THAT(run("error", kNcclRemoteError, false)[0], HasSubstr("rank 0: lost connection to rank 1"));
  EXPECT_EQ(
      run("group", static_cast<NcclResult>(5), false)[1],
      "error[rank]: rank 1: NCCL failed in a send: invalid usage: the last words");
  EXPECT_THAT(run("error", kNcclRemoteError, true)[1], HasSubstr("rank 1: lost connection to rank 0"));
  EXPECT_EQ(
      run("error", static_cast<NcclResult>(5), true)[1],
      "error[rank]: rank 1: NCCL failed in a collective: invalid usage: the last words");
}

TEST(Nccl, WithoutTheLibrary) {
  if (has_nccl()) {
    return;  // a LibTorch with CUDA brings it
  }
  const Store store = Store::serve(listen_on("127.0.0.1", 0), "nccl");
  try {
    connect_nccl(store, "key", {{0, 1}, 0, at::kCPU, nullptr, {}}, Transport(), std::chrono::seconds(1));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "NCCL is not there, and ranks were to connect over it");
  }
}

}  // namespace
}  // namespace shardpipe::comm::test
