#include "text/length.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

using Ids = std::vector<int64_t>;

std::vector<Ids> cut(const Truncation& truncation, const std::vector<Ids>& texts, uint64_t added = 0) {
  std::vector<Encoding> encodings;
  for (const Ids& ids : texts) {
    encodings.push_back(Encoding::of(ids, 0, false));
  }
  truncation.apply(encodings, added);
  std::vector<Ids> out;
  for (const Encoding& encoding : encodings) {
    EXPECT_EQ(encoding.type_ids.size(), encoding.size());
    out.push_back(encoding.ids);
  }
  return out;
}

TEST(Truncation, LongestFirst) {
  EXPECT_EQ(cut({4}, {{1, 2, 3}, {4}}), (std::vector<Ids>{{1, 2, 3}, {4}}));
  EXPECT_EQ(cut({4}, {{1, 2, 3}, {4, 5, 6}}), (std::vector<Ids>{{1, 2}, {4, 5}}));
  EXPECT_EQ(cut({5}, {{1, 2, 3}, {4, 5, 6}}), (std::vector<Ids>{{1, 2}, {4, 5, 6}}));
  EXPECT_EQ(cut({5}, {{1}, {4, 5, 6, 7, 8}}, 1), (std::vector<Ids>{{1}, {4, 5, 6}}));
  EXPECT_EQ(cut({5}, {{4, 5, 6, 7, 8}, {1}}, 1), (std::vector<Ids>{{4, 5, 6}, {1}}));
  EXPECT_EQ(cut({0}, {{1, 2}, {3}}), (std::vector<Ids>{{}, {}}));
}

TEST(Truncation, OneText) {
  EXPECT_EQ(cut({2, 0, true}, {{1, 2, 3}}), (std::vector<Ids>{{2, 3}}));
  EXPECT_EQ(cut({3, 0, false, TruncationStrategy::only_second}, {{1, 2}, {3, 4}}), (std::vector<Ids>{{1, 2}, {3}}));
  EXPECT_EQ(cut({3, 0, false, TruncationStrategy::only_first}, {{1, 2}, {3, 4}}), (std::vector<Ids>{{1}, {3, 4}}));
  expect_error(ErrorCode::input, "truncation.strategy is OnlyFirst, but that text has 1 tokens and 1 must go", [] {
    cut({2, 0, false, TruncationStrategy::only_first}, {{1}, {3, 4}});
  });
}

TEST(Padding, FillsUp) {
  std::vector<Encoding> batch{Encoding::of({1}, 0, false), Encoding::of({2, 3, 4}, 0, false)};
  Padding padding;
  padding.multiple_of = 2;
  padding.id = 9;
  padding.type_id = 3;
  std::vector<Encoding> right = batch;
  padding.apply(right);
  EXPECT_EQ(right[0].ids, (Ids{1, 9, 9, 9}));
  EXPECT_EQ(right[0].type_ids, (Ids{0, 3, 3, 3}));
  EXPECT_EQ(right[0].attention_mask, (Ids{1, 0, 0, 0}));
  EXPECT_EQ(right[0].special_tokens_mask, (Ids{0, 1, 1, 1}));
  EXPECT_EQ(right[1].ids, (Ids{2, 3, 4, 9}));
  padding.left = true;
  padding.multiple_of = 0;
  padding.length = 2;
  padding.apply(batch);
  EXPECT_EQ(batch[0].ids, (Ids{9, 1}));
  EXPECT_EQ(batch[1].ids, (Ids{2, 3, 4}));
}

}  // namespace
}  // namespace shardpipe::text
