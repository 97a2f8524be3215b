#include "comm/link.h"

#include <gtest/gtest.h>

namespace shardpipe::comm {
namespace {

class Ranks : public testing::TestWithParam<int> {};

// Two of them, each with a core or not.
TEST_P(Ranks, HaveALink) {
  const Link link = measure_link(GetParam());
  EXPECT_GT(link.message_seconds, 1e-7);
  EXPECT_LT(link.message_seconds, 0.1);
  EXPECT_GT(link.bytes_per_second, 1e7);
  EXPECT_LT(link.bytes_per_second, 1e12);
  EXPECT_GT(link.busy_seconds, 1e-7);
  EXPECT_LT(link.busy_seconds, 2 * 0.1) << "two ends";
}

INSTANTIATE_TEST_SUITE_P(Link, Ranks, testing::Values(2, 1000));

}  // namespace
}  // namespace shardpipe::comm
