#include "kernels/simd_level.h"

#include <cstdlib>

#include "each_simd_level.h"

namespace shardpipe::kernels {
namespace {

TEST(SimdLevel, PortableComesFirstAndTheHighestLast) {
  const auto levels = available_simd_levels();
  EXPECT_EQ(levels.front(), SimdLevel::portable);
  EXPECT_EQ(levels.back(), highest_simd_level());
}

TEST(SimdLevel, ForcingAnUnavailableLevelIsAnError) {
  if (highest_simd_level() < SimdLevel::avx512_bf16) {
    expect_usage_error([] { force_simd_level(SimdLevel::avx512_bf16); }, {"avx512_bf16", "not available"});
  } else {
    force_simd_level(SimdLevel::avx512_bf16);
    EXPECT_EQ(simd_level(), SimdLevel::avx512_bf16);
  }
}

// The environment is read once, so this asks in a process of its own.
TEST(SimdLevelDeathTest, EnvironmentChoosesTheLevel) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  setenv("SHARDPIPE_SIMD", "portable", 1);
  EXPECT_EXIT(std::exit(simd_level() == SimdLevel::portable ? 0 : 1), testing::ExitedWithCode(0), "");
  setenv("SHARDPIPE_SIMD", "mmx", 1);
  const auto ask = [] {
    try {
      simd_level();
    } catch (const Error& error) {
      fmt::print(stderr, "{}\n", error.what());
      std::exit(error.code() == ErrorCode::usage ? 2 : 1);
    }
    std::exit(0);
  };
  EXPECT_EXIT(ask(), testing::ExitedWithCode(2), "SHARDPIPE_SIMD is 'mmx'.*portable, avx2");
  unsetenv("SHARDPIPE_SIMD");
}

}  // namespace
}  // namespace shardpipe::kernels
