#include "plan/units.h"

#include <gtest/gtest.h>

namespace shardpipe::plan {
namespace {

TEST(Units, HaveThreeDigits) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(999), "999");
  EXPECT_EQ(short_number(1000), "1.00 k");
  EXPECT_EQ(short_number(134515008), "135 M");
  EXPECT_EQ(short_number(405853388800), "406 G");
  EXPECT_EQ(bytes_text(48), "48 B");
  EXPECT_EQ(bytes_text(294912), "295 kB");
  EXPECT_EQ(percent_text(0.666), "67 %");
}

TEST(Units, OfTime) {
  EXPECT_EQ(seconds_text(0), "0.00 s");
  EXPECT_EQ(seconds_text(954e-9), "954 ns");
  EXPECT_EQ(seconds_text(1.5e-6), "1.50 us");
  EXPECT_EQ(seconds_text(0.02345), "23.4 ms");
  EXPECT_EQ(seconds_text(1), "1.00 s");
  EXPECT_EQ(seconds_text(599), "599 s");
  EXPECT_EQ(seconds_text(900), "15.0 min");
  EXPECT_EQ(seconds_text(9000), "2.50 h");
}

}  // namespace
}  // namespace shardpipe::plan
