// C++ modules through the public API, in processes of their own (module_player.cpp): outputs, statistics and gradients
// are those of plain LibTorch on the same microbatches.
#include <gtest/gtest.h>

#include "shardpipe/world.h"

namespace shardpipe {
namespace {

struct Layout {
  int ranks, chunks;
  const char* split;
};

void expect_plain(const std::string& name) {
  constexpr Layout kLayouts[] = {{1, 1, "even"},     {1, 5, "even"},     {2, 3, "even"},
                                 {3, 1, "balanced"}, {3, 5, "balanced"}, {4, 3, "balanced"}};
  for (const auto& [ranks, chunks, split] : kLayouts) {
    SCOPED_TRACE(name + ", pp " + std::to_string(ranks) + ", chunks " + std::to_string(chunks));
    LaunchOptions options;
    options.nproc = ranks;
    options.arguments = {SHARDPIPE_MODULE_PLAYER, name, std::to_string(chunks), split};
    EXPECT_EQ(launch(options), 0);
  }
}

TEST(ModuleRanks, TiedWeights) {
  expect_plain("tied");
}

TEST(ModuleRanks, BatchNormInTrainMode) {
  expect_plain("norms");
}

TEST(ModuleRanks, OpaqueLeaves) {
  expect_plain("router");
}

}  // namespace
}  // namespace shardpipe
