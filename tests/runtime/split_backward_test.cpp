// A backward in two parts against LibTorch's in one.
#include <ATen/Functions.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "runtime/split_backward.h"

namespace shardpipe::runtime {
namespace {

using Tensors = SplitBackward::Tensors;
using Program = std::function<at::Tensor(const Tensors& inputs, const Tensors& weights)>;

Tensors leaves(size_t count) {
  Tensors made;
  for (size_t i = 0; i < count; ++i) {
    made.push_back(at::arange(1, 10, at::kFloat).view({3, 3}).mul(0.1 * static_cast<double>(i + 1)).requires_grad_());
  }
  return made;
}

void expect_same(const Tensors& actual, const Tensors& expected, size_t first) {
  for (size_t i = 0; i < actual.size(); ++i) {
    const at::Tensor& wanted = expected[first + i];
    ASSERT_EQ(actual[i].defined(), wanted.defined()) << i;
    EXPECT_TRUE(!wanted.defined() || actual[i].equal(wanted)) << i << "\n" << actual[i] << "\n" << wanted;
  }
}

void check(size_t num_inputs, size_t num_weights, const Program& program) {
  const c10::AutoGradMode grad(true);
  const Tensors inputs = leaves(num_inputs);
  const Tensors weights = leaves(num_weights);
  Tensors all = inputs;
  all.insert(all.end(), weights.begin(), weights.end());
  const at::Tensor seed = at::full({3, 3}, 0.7);
  const Tensors expected = torch::autograd::grad({program(inputs, weights)}, all, {seed}, false, false, true);
  SplitBackward split({program(inputs, weights)}, {seed}, inputs, weights);
  expect_same(split.input_gradients(), expected, 0);
  expect_same(split.weight_gradients(), expected, num_inputs);
}

TEST(SplitBackward, OfLayers) {
  check(1, 3, [](const Tensors& x, const Tensors& w) {
    const at::Tensor h = at::linear(x[0], w[0]).tanh();
    return at::linear(h, w[1], w[2][0]) + h;
  });
}

TEST(SplitBackward, WithoutInputsAllWaits) {
  check(0, 2, [](const Tensors&, const Tensors& w) { return at::linear(w[0].tanh(), w[1]); });
}

TEST(SplitBackward, WhatNobodyUsesIsUndefined) {
  check(2, 3, [](const Tensors& x, const Tensors& w) { return at::linear(x[0], w[1]); });
}

TEST(SplitBackward, WeightsBesideTheWayToTheInputs) {
  check(1, 2, [](const Tensors& x, const Tensors& w) { return at::linear(x[0], w[0]) + w[1].exp(); });
}

// After one that is met once: what was found for that one must not be taken for the rest.
TEST(SplitBackward, AWeightThatIsMetTwice) {
  check(1, 2, [](const Tensors& x, const Tensors& w) {
    const at::Tensor h = x[0] * w[0];
    return (h * w[1]).tanh() * w[1];
  });
}

// As in a decoder, whose own attention does not depend on what the encoder sent but reaches it twice.
TEST(SplitBackward, ABranchThatJoinsTwice) {
  check(1, 4, [](const Tensors& x, const Tensors& w) {
    const at::Tensor own = at::linear(w[0].tanh(), w[1]);
    const at::Tensor key = at::linear(x[0], w[2]);
    return own + at::mm(at::linear(own, w[3]), key);
  });
}

}  // namespace
}  // namespace shardpipe::runtime
