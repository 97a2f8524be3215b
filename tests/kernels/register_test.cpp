#include "kernels/register.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/InferenceMode.h>

#include <thread>

#include "each_simd_level.h"
#include "kernels/ops.h"

namespace shardpipe::kernels {
namespace {

using test::bitwise_equal;

c10::OperatorHandle find(const std::string& name) {
  register_operators();
  return c10::Dispatcher::singleton().findSchemaOrThrow(("shardpipe::" + name).c_str(), "");
}

torch::jit::Stack call(const std::string& name, torch::jit::Stack stack) {
  find(name).callBoxed(stack);
  return stack;
}

c10::IValue no_biases() {
  return c10::List<std::optional<at::Tensor>>();
}

/// Arguments of every operator; `options` chooses CPU or meta.
std::map<std::string, torch::jit::Stack> arguments(at::TensorOptions options) {
  const auto t = [&](std::vector<int64_t> sizes) { return at::ones(sizes, options); };
  const at::Tensor slots = at::zeros({2}, options.dtype(at::kLong));
  const at::Tensor positions =
      options.device() == at::kMeta ? at::empty({2}, options.dtype(at::kLong)) : at::arange(2, at::kLong);
  const at::Tensor bias_rows = at::zeros({5}, options.dtype(at::kLong));
  const torch::jit::Stack attention{
      t({2, 4, 8}), t({2, 2, 8}), t({2, 2, 8}), t({1, 2, 5, 8}), t({1, 2, 5, 8}), slots, positions, 0.5, 3,
      t({4}),       t({3, 4}),    bias_rows};
  const torch::jit::Stack cross{
      t({2, 4, 8}),
      t({2, 2, 8}),
      t({2, 2, 8}),
      t({1, 2, 5, 8}),
      t({1, 2, 5, 8}),
      slots,
      slots,
      positions,
      at::full({1}, 2, options.dtype(at::kLong)),
      0.5};
  const torch::jit::Stack rotary{t({2, 3, 10}), t({2, 4}), t({2, 4})};
  return {
      {"linear", {t({2, 3, 8}), t({5, 8}), t({5}), 8, "aten"}},
      {"linear_group", {t({3, 8}), c10::List<at::Tensor>({t({5, 8}), t({2, 8})}), no_biases(), 8, "aten"}},
      {"linear_gated", {t({3, 8}), t({5, 8}), t({5, 8}), c10::IValue(), c10::IValue(), "silu", 8, "aten"}},
      {"rms_norm", {t({3, 8}), t({8}), 1e-5}},
      {"add_rms_norm", {t({3, 8}), t({3, 8}), t({8}), 1e-5}},
      {"rotary", rotary},
      {"rotary_reference", rotary},
      {"cached_attention", attention},
      {"cached_attention_reference", attention},
      {"cross_attention", cross},
      {"cross_attention_reference", cross},
      {"sequence_attention", {t({2, 4, 8}), t({2, 2, 8}), t({2, 2, 8}), slots, 0.5, t({3, 4}), bias_rows}}};
}

void collect(const c10::IValue& value, std::vector<at::Tensor>& tensors) {
  if (value.isTensor()) {
    tensors.push_back(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) {
      tensors.push_back(tensor);
    }
  }
}

TEST(Register, IsIdempotentAndThreadSafe) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] { register_operators(); });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  register_operators();
  EXPECT_TRUE(find("linear").schema().name() == "shardpipe::linear");
}

TEST(Register, MetaGivesTheShapesOfTheCpu) {
  const auto on_cpu = arguments(at::TensorOptions(at::kCPU).dtype(at::kFloat));
  const auto on_meta = arguments(at::TensorOptions(at::kMeta).dtype(at::kFloat));
  for (const auto& [name, stack] : on_cpu) {
    SCOPED_TRACE(name);
    std::vector<at::Tensor> cpu;
    std::vector<at::Tensor> meta;
    for (const auto& value : call(name, stack)) {
      collect(value, cpu);
    }
    for (const auto& value : call(name, on_meta.at(name))) {
      collect(value, meta);
    }
    ASSERT_EQ(cpu.size(), meta.size());
    for (size_t i = 0; i < cpu.size(); ++i) {
      EXPECT_TRUE(meta[i].is_meta());
      EXPECT_EQ(meta[i].sizes(), cpu[i].sizes());
      EXPECT_EQ(meta[i].strides(), cpu[i].strides());
      EXPECT_EQ(meta[i].scalar_type(), cpu[i].scalar_type());
    }
  }
}

// rms_norm with a weight of a wider dtype: the result is promoted on both devices.
TEST(Register, MetaPromotesLikeTheCpu) {
  for (const auto device : {at::kCPU, at::kMeta}) {
    const auto options = at::TensorOptions(device);
    const auto stack = call(
        "rms_norm", {at::ones({2, 8}, options.dtype(at::kBFloat16)), at::ones({8}, options.dtype(at::kFloat)), 1e-5});
    EXPECT_EQ(stack[0].toTensor().scalar_type(), at::kFloat);
  }
}

TEST(Register, EveryTensorInputThatRequiresGradIsRefused) {
  const auto on_cpu = arguments(at::TensorOptions(at::kCPU).dtype(at::kFloat));
  for (const auto& entry : on_cpu) {
    const std::string& name = entry.first;
    const torch::jit::Stack& stack = entry.second;
    if (name == "rotary_reference") {
      continue;
    }
    const auto& schema = find(name).schema();
    for (size_t i = 0; i < stack.size(); ++i) {
      torch::jit::Stack changed = stack;
      if (stack[i].isTensor() && stack[i].toTensor().is_floating_point()) {
        changed[i] = stack[i].toTensor().clone().requires_grad_();
      } else if (stack[i].isTensorList()) {
        auto tensors = stack[i].toTensorVector();
        tensors.back() = tensors.back().clone().requires_grad_();
        changed[i] = c10::List<at::Tensor>(tensors);
      } else {
        continue;
      }
      expect_usage_error(
          [&] { call(name, changed); },
          {"shardpipe::" + name, "'" + schema.arguments()[i].name() + "'", "has no gradient", "no_grad"});
      {
        const at::NoGradGuard no_grad;
        call(name, changed);
      }
      const c10::InferenceMode inference;
      call(name, changed);
    }
  }
  // An optional tensor in a list.
  c10::List<std::optional<at::Tensor>> biases;
  biases.push_back(std::nullopt);
  biases.push_back(at::ones({2}).requires_grad_());
  torch::jit::Stack stack = on_cpu.at("linear_group");
  stack[2] = biases;
  expect_usage_error([&] { call("linear_group", stack); }, {"'biases'"});
}

TEST(Register, BoxedCallsEqualTheFunctions) {
  const at::Tensor x = randn({3, 40});
  const at::Tensor w = randn({9, 40});
  const auto stack = call("linear", {x, w, c10::IValue(), 8, "aten"});
  EXPECT_TRUE(bitwise_equal(stack[0].toTensor(), linear(x, w, {}, 8, "aten")));
}

// Shape checks hold on meta too, so a trace refuses what a run would.
TEST(Register, MetaChecksShapes) {
  const auto options = at::TensorOptions(at::kMeta);
  expect_usage_error(
      [&] {
        call("linear", {at::ones({2, 8}, options), at::ones({4, 9}, options), c10::IValue(), 8, "aten"});
      },
      {"linear:", "[4, 9]"});
}

}  // namespace
}  // namespace shardpipe::kernels
