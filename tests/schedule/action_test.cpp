#include "schedule/action.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "schedule/builders.h"
#include "support/errors.h"

namespace shardpipe::schedule {
namespace {

using test::error_of;
using ::testing::HasSubstr;

TEST(Action, PrintsAndParses) {
  for (const char* text :
       {"0F0", "1RECV_F3", "12SEND_F7", "0B0", "1SEND_B4", "0RECV_B4", "0I3", "2W1", "0REDUCE_GRAD", "3SEND_T0",
        "0RECV_T11"}) {
    EXPECT_EQ(to_string(parse_action(text)), text);
  }
}

TEST(Action, RefusesOtherText) {
  for (const char* text :
       {"", "F0", "0F", "0X0", "0F0x", "-1F0", "0F-1", "99999999999F0", "0f0", "0REDUCE_GRAD1", "0F", "0I", "+1F0"}) {
    const Error error = error_of([&] { parse_action(text); });
    EXPECT_EQ(error.code(), ErrorCode::input) << text;
    EXPECT_THAT(error.message(), HasSubstr("is not an action"));
  }
}

TEST(Csv, RoundTripsAndIgnoresIdleCells) {
  const Schedule schedule = lower(fill_drain(3, 4), chain_edges(3));
  EXPECT_EQ(parse_csv(to_csv(schedule), "test"), schedule);
  EXPECT_EQ(parse_csv("0F0, ,0F1\n,1F0,1F1\r\n", "test"), fill_drain(2, 2));
}

TEST(Csv, NamesFileAndLine) {
  const Error bad = error_of([] { parse_csv("0F0\n1Q0\n", "my.csv"); });
  EXPECT_THAT(bad.message(), HasSubstr("my.csv, line 2"));
  const Error twice = error_of([] { parse_csv("0F0\n0F1\n", "my.csv"); });
  EXPECT_THAT(twice.message(), HasSubstr("stage 0 is on rank 0 and on rank 1"));
  // A number of seven digits must not cost megabytes.
  const Error gap = error_of([] { parse_csv("0F0\n9999999F0\n", "my.csv"); });
  EXPECT_THAT(gap.message(), HasSubstr("stage 1 has no action in my.csv, which has actions of stage 9999999"));
}

// What torch.distributed.pipelining writes beside the actions: empty cells, FSDP's, two actions at once, \r\n.
TEST(Csv, ReadsTorchsOtherCells) {
  EXPECT_EQ(
      to_csv(parse_csv("0UNSHARD,0F0,,0F1,(0F2;0B0)OVERLAP_F_B,0RESHARD,0B1,0B2,0REDUCE_GRAD\r\n", "test")),
      "0F0,0F1,0F2,0B0,0B1,0B2,0REDUCE_GRAD\n");
}

TEST(Csv, RefusesWhatIsAlmostACell) {
  for (const char* cell : {"UNSHARD", "0UNSHARD0", "(0F0;0B0)", "(0F0;0B0)OVERLAP", "(0F0;)B0OVERLAP_F_B", "0F0;0B0"}) {
    const Error error = error_of([&] { parse_csv(cell, "my.csv"); });
    EXPECT_EQ(error.code(), ErrorCode::input) << cell;
    EXPECT_THAT(error.what(), HasSubstr("my.csv, line 1")) << cell;
  }
}

TEST(Csv, EmptyLinesAtTheEndAreNoRanks) {
  EXPECT_EQ(parse_csv("0F0\n1F0\n\n\n", "test").num_ranks(), 2);
  EXPECT_EQ(parse_csv("0F0\n\n1F0", "test").num_ranks(), 3);  // rank 1 idles
  for (const char* text : {"", "\n\n", ",,\n"}) {
    EXPECT_THAT(error_of([&] { parse_csv(text, "my.csv"); }).message(), HasSubstr("my.csv has no action"));
  }
}

}  // namespace
}  // namespace shardpipe::schedule
