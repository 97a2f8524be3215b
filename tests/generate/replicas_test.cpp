#include "generate/replicas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace shardpipe::generation {
namespace {

using ::testing::Pair;

TEST(Replicas, TakePromptsInOrder) {
  EXPECT_THAT(prompts_of(5, 2, 0), Pair(0, 3));
  EXPECT_THAT(prompts_of(5, 2, 1), Pair(3, 2));
  EXPECT_THAT(prompts_of(2, 3, 1), Pair(1, 1));
  EXPECT_THAT(prompts_of(2, 3, 2), Pair(2, 0));
  EXPECT_THAT(prompts_of(7, 1, 0), Pair(0, 7));
}

}  // namespace
}  // namespace shardpipe::generation
