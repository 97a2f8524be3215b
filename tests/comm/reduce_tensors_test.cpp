// Reductions by ATen's operators, which tensors on other devices get, against the loops that all transports share.
#include "comm/reduce_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/group_body.h"

namespace shardpipe::comm::test {
namespace {

constexpr ReduceOp kOps[] = {ReduceOp::sum, ReduceOp::product, ReduceOp::min, ReduceOp::max};

at::Tensor input(int rank, int64_t numel, at::ScalarType type) {
  if (type == at::kUInt16 || type == at::kUInt32 || type == at::kUInt64) {
    const at::ScalarType same_size = type == at::kUInt16 ? at::kShort : type == at::kUInt32 ? at::kInt : at::kLong;
    return input_of(rank, numel, same_size, 9).view(type);
  }
  at::Tensor values = input_of(rank, numel, type, 9);
  if (at::isFloatingType(type)) {
    values[8] = rank % 2 == 0 ? 0.0 : -0.0;
    values[9] = rank % 2 == 0 ? -0.0 : 0.0;
  }
  return values;
}

TEST(ReduceTensors, OperatorsAsLoops) {
  for (const at::ScalarType type :
       {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kFloat8_e4m3fn, at::kFloat8_e4m3fnuz, at::kFloat8_e5m2,
        at::kFloat8_e5m2fnuz, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kBool, at::kUInt16,
        at::kUInt32, at::kUInt64, at::kComplexFloat, at::kComplexDouble}) {
    for (const ReduceOp op : kOps) {
      if (at::isComplexType(type) && (op == ReduceOp::min || op == ReduceOp::max)) {
        continue;
      }
      for (const int ranks : {2, 5}) {
        std::vector<at::Tensor> parts;
        for (int rank = 0; rank < ranks; ++rank) {
          parts.push_back(input(rank, 999, type).view({3, 333}));
        }
        const at::Tensor expected = at::empty_like(parts[0]);
        reduce_tensors(expected, parts, op);  // on the CPU: the loops
        reduce_by_operators(parts[1], parts, op);
        expect_same(fmt::format("{} of {} ranks", to_string(op), ranks), parts[1], expected);
      }
    }
  }
  const at::Tensor none = at::empty({0});
  reduce_by_operators(none, {none, none}, ReduceOp::sum);
}

TEST(ReduceTensors, WhatHasNoOrder) {
  const at::Tensor out = at::zeros({4}, at::kComplexFloat);
  for (const auto reduction : {reduce_tensors, reduce_by_operators}) {
    try {
      reduction(out, {out, out}, ReduceOp::max);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::internal);
      EXPECT_EQ(error.message(), "tensors of ComplexFloat cannot be reduced by max");
    }
  }
}

}  // namespace
}  // namespace shardpipe::comm::test
