#include "tensor/placement.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/errors.h"
#include "tensor/collectives.h"
#include "tensor/cross_entropy.h"

namespace shardpipe::tensor {
namespace {

at::Tensor take_all_and_join(const at::Tensor& whole, const Shard& shard) {
  std::vector<at::Tensor> pieces;
  for (int part = 0; part < shard.parts(); ++part) {
    pieces.push_back(take(whole, shard, part));
  }
  return join(pieces, shard);
}

TEST(Placement, HeadsOfTwoToOne) {
  const Shard shard{0, {576}, {2, 1}};
  const at::Tensor whole = at::arange(576 * 2).view({576, 2});
  EXPECT_EQ(take(whole, shard, 0).size(0), 384);
  EXPECT_TRUE(at::equal(take(whole, shard, 1), whole.narrow(0, 384, 192)));
  EXPECT_EQ(take(whole, shard, 1).data_ptr(), whole.select(0, 384).data_ptr());  // a view
  EXPECT_TRUE(at::equal(take_all_and_join(whole, shard), whole));
}

TEST(Placement, FusedBlocks) {
  const Shard shard{1, {6, 3, 3}, {2, 1}};
  const at::Tensor whole = at::arange(12).unsqueeze(0);
  EXPECT_TRUE(at::equal(take(whole, shard, 0).squeeze(0), at::tensor({0, 1, 2, 3, 6, 7, 9, 10})));
  EXPECT_TRUE(at::equal(take_all_and_join(whole, shard), whole));
}

TEST(Placement, PeriodsOfAnyNumber) {
  const Shard shard{0, {4}, {1, 2, 1}};
  for (const int64_t periods : {0, 1, 5}) {
    const at::Tensor whole = at::arange(4 * periods);
    EXPECT_TRUE(at::equal(take_all_and_join(whole, shard), whole));
    EXPECT_EQ(shard.local(4 * periods, 1), 2 * periods);
    EXPECT_EQ(shard.whole(2 * periods, 1), 4 * periods);
  }
}

TEST(Placement, Spread) {
  EXPECT_EQ(spread(9, 2), (std::vector<int64_t>{5, 4}));
  EXPECT_EQ(spread(2, 3), (std::vector<int64_t>{1, 1, 0}));
  // 9 query heads, 3 key heads
  EXPECT_EQ(spread_groups(9, 3, 4), (std::vector<int64_t>{2, 1, 3, 3}));
  EXPECT_EQ(spread_groups(9, 3, 6), (std::vector<int64_t>{2, 1, 2, 1, 2, 1}));
  EXPECT_TRUE(spread_groups(9, 3, 3).empty());   // as many parts as key heads
  EXPECT_TRUE(spread_groups(9, 3, 10).empty());  // more than query heads
  EXPECT_TRUE(spread_groups(8, 2, 7).size() == 7);
  EXPECT_EQ(group_of_part({2, 1, 3, 3}, 3, 1), 0);
  EXPECT_EQ(group_of_part({2, 1, 3, 3}, 3, 3), 2);
}

TEST(Placement, Errors) {
  test::expect_error(ErrorCode::internal, "a dimension of 7 elements has no whole number of periods of 4", [] {
    take(at::arange(7), {0, {4}, {1, 1}}, 0);
  });
  test::expect_error(ErrorCode::internal, "1 pieces of a tensor that has 2 parts", [] {
    join({at::arange(2)}, {0, {4}, {1, 1}});
  });
  test::expect_error(ErrorCode::internal, "a collective operator over the axis \"tp\" is called outside of it", [] {
    cross_entropy_part(at::rand({2, 4}), at::zeros({2}, at::kLong), 8, {1, 1}, 1, -100, "tp");
  });
}

}  // namespace
}  // namespace shardpipe::tensor
