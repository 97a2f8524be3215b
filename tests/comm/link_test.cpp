#include "comm/link.h"

#include <gtest/gtest.h>

namespace shardpipe::comm {
namespace {

TEST(Link, IsThatOfThisMachine) {
  const Link link = measure_link();
  EXPECT_GT(link.message_seconds, 1e-7);
  EXPECT_LT(link.message_seconds, 0.1);
  EXPECT_GT(link.bytes_per_second, 1e7);
  EXPECT_LT(link.bytes_per_second, 1e12);
  EXPECT_GT(link.busy_seconds, 1e-7);
  EXPECT_LT(link.busy_seconds, 2 * 0.1) << "two ends";
}

}  // namespace
}  // namespace shardpipe::comm
