// Initial weights of modules that are built without memory.
#include "frontend/trace/deferred.h"
#include "support/peak_memory.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/nn/init.h>
#include <torch/nn/modules.h>

#include <fstream>

#include "frontend/trace/init_log.h"
#include "frontend/trace/module_replay.h"
#include "support/errors.h"

namespace shardpipe::trace {
namespace {

using test::expect_error;
using test::expect_same_bits;
using test::Tensors;
namespace nn = torch::nn;

constexpr uint64_t kSeed = 20260117;

at::Generator generator_for(const std::string& name) {
  return at::make_generator<at::CPUGeneratorImpl>(generator_seed(kSeed, name));
}

// All that constructors do: views, copies, no_grad, other dtypes, orthogonal matrices, tables, tied and shared tensors.
struct ZooImpl : nn::Module {
  ZooImpl() {
    linear = register_module("linear", nn::Linear(8, 4));
    embedding = register_module("embedding", nn::Embedding(nn::EmbeddingOptions(6, 8).padding_idx(2)));
    lstm = register_module("lstm", nn::LSTM(8, 4));
    norm = register_module("norm", nn::BatchNorm1d(4));
    tied = register_parameter("tied", embedding->weight);
    orthogonal = register_parameter("orthogonal", torch::empty({5, 3}));
    nn::init::orthogonal_(orthogonal, 2.0);
    xavier = register_parameter("xavier", torch::empty({3, 4, 2}));
    nn::init::xavier_normal_(xavier);
    {
      const torch::NoGradGuard no_grad;
      scaled = register_parameter("scaled", torch::randn({4, 4}) * 0.02);
      rows = register_parameter("rows", torch::empty({4, 6}));
      rows.select(0, 1).normal_(1.0, 0.1);
      rows.slice(0, 2, 4).copy_(torch::full({2, 6}, 3.0));
      // What torch's trunc_normal_ does.
      truncated = register_parameter("truncated", torch::empty({30}));
      truncated.uniform_(-0.9, 0.9).erfinv_().mul_(0.02).add_(0.0).clamp_(-0.03, 0.03);
      copy = register_parameter("copy", linear->weight.clone());
      twice = register_parameter("twice", torch::empty({4, 8}));
      nn::init::kaiming_normal_(twice);
      twice.normal_(0, 0.5);
      doubled = register_parameter("doubled", torch::empty({4, 8}));
      doubled.normal_();
      doubled.copy_(doubled.view({4, 8}) + doubled);
      doubled.copy_(doubled.view({4, 8}));
    }
    half = register_module("half", nn::Linear(4, 4));
    half->to(torch::kBFloat16);
    register_buffer("positions", torch::arange(12).view({3, 4}));
    const at::Tensor frequencies = 1.0 / torch::pow(10000.0, torch::arange(0, 8, 2, torch::kFloat) / 8);
    const at::Tensor angles = torch::outer(torch::arange(5, torch::kFloat), frequencies);
    register_buffer("table", torch::cat({angles.sin(), angles.cos()}, 1));
    register_buffer("permutation", torch::randperm(20));
    const at::Tensor flat = torch::rand({12});
    register_parameter("first", flat.data().slice(0, 0, 5));
    register_parameter("second", flat.data().slice(0, 5, 12));
    register_parameter("never_filled", torch::empty({1000}));
  }
  nn::Linear linear = nullptr;
  nn::Embedding embedding = nullptr;
  nn::LSTM lstm = nullptr;
  nn::BatchNorm1d norm = nullptr;
  nn::Linear half = nullptr;
  at::Tensor tied, orthogonal, xavier, scaled, rows, truncated, copy, twice, doubled;
};

DeferredModule make_zoo() {
  return DeferredModule([] { return std::make_shared<ZooImpl>(); });
}

// FNV-1a and splitmix64 as other programs compute them: a change would change everyone's initial weights.
TEST(Deferred, SeedsOfNames) {
  EXPECT_EQ(generator_seed(0, "weight"), 0x0dcb1fdcb8faa6c0u);
  EXPECT_EQ(generator_seed(42, "layers.3.up.weight"), 0x6e33d8525b4b250du);
  EXPECT_EQ(generator_seed(~uint64_t{0}, ""), 0x30ef66c3e79dda4eu);
}

TEST(Deferred, TheModuleIsOnMeta) {
  const DeferredModule deferred = make_zoo();
  for (const auto& [name, tensor] : test::tensors_of(*deferred.module())) {
    EXPECT_TRUE(tensor.is_meta()) << name;
  }
  EXPECT_TRUE(at::empty({2}).is_cpu());  // nothing is redirected any more
}

TEST(Deferred, ReplaysTheInitialisersOfTheModule) {
  const DeferredModule deferred = make_zoo();
  const auto expect = [&](const std::string& name, const std::function<at::Tensor(at::Generator)>& make) {
    const at::NoGradGuard no_grad;
    expect_same_bits(deferred.materialise(name, kSeed), make(generator_for(name)), name);
  };
  const double bound = 1 / std::sqrt(8.0);
  const auto uniform = [&](const std::vector<int64_t>& shape, double limit) {
    return [=](at::Generator g) { return at::empty(shape).uniform_(-limit, limit, g); };
  };
  expect("linear.weight", uniform({4, 8}, bound));
  expect("linear.bias", uniform({4}, bound));
  expect("lstm.weight_hh_l0", uniform({16, 4}, 0.5));
  expect("tied", [](auto g) {  // the embedding's: the first of its names
    at::Tensor weight = at::empty({6, 8}).normal_(0, 1, g);
    weight[2].fill_(0);
    return weight;
  });
  expect("norm.weight", [](auto) { return at::ones({4}); });
  expect("norm.running_var", [](auto) { return at::ones({4}); });
  expect("norm.num_batches_tracked", [](auto) { return at::zeros({}, at::kLong); });
  expect("xavier", [](auto g) { return at::empty({3, 4, 2}).normal_(0, std::sqrt(2.0 / (8 + 6)), g); });
  expect("rows", [](auto g) {
    at::Tensor rows = at::zeros({4, 6});
    rows[1].normal_(1.0, 0.1, g);
    rows.slice(0, 2, 4).fill_(3);
    return rows;
  });
  expect("truncated", [](auto g) {
    return at::empty({30}).uniform_(-0.9, 0.9, g).erfinv_().mul_(0.02).add_(0.0).clamp_(-0.03, 0.03);
  });
  expect("twice", [](auto g) { return at::empty({4, 8}).normal_(0, 0.5, g); });
  expect("doubled", [](auto g) { return at::empty({4, 8}).normal_(0, 1, g) * 2; });
  expect("half.weight", [](auto g) { return at::empty({4, 4}).uniform_(-0.5, 0.5, g).to(at::kBFloat16); });
}

TEST(Deferred, RelationsBetweenTensorsHold) {
  const DeferredModule deferred = make_zoo();
  const auto get = [&](const std::string& name) { return deferred.materialise(name, kSeed); };
  expect_same_bits(get("tied"), get("embedding.weight"), "tied");
  expect_same_bits(get("copy"), get("linear.weight"), "copied from another parameter");
  const at::Tensor q = get("orthogonal");
  EXPECT_TRUE(at::allclose(at::matmul(q.t(), q), 4 * at::eye(3), 1e-5, 1e-5));
  expect_same_bits(get("positions"), at::arange(12).view({3, 4}), "positions");
  const at::Tensor angles =
      at::outer(at::arange(5, at::kFloat), 1.0 / at::pow(10000.0, at::arange(0, 8, 2, at::kFloat) / 8));
  expect_same_bits(get("table"), at::cat({angles.sin(), angles.cos()}, 1), "table");
  expect_same_bits(std::get<0>(get("permutation").sort()), at::arange(20), "permutation");
  expect_same_bits(get("never_filled"), at::zeros({1000}), "never_filled");
  // Cut from one random tensor: their numbers are its.
  {
    const DefaultGeneratorGuard generator(generator_seed(kSeed, "first"));
    expect_same_bits(at::cat({get("first"), get("second")}), at::rand({12}), "first and second");
  }
  EXPECT_EQ(get("first").storage().nbytes(), 5 * sizeof(float));
  {
    const DefaultGeneratorGuard generator(generator_seed(kSeed, "scaled"));
    expect_same_bits(get("scaled"), at::randn({4, 4}) * 0.02, "scaled");
  }
  EXPECT_FALSE(get("linear.weight").equal(deferred.materialise("linear.weight", kSeed + 1)));
}

// In any order, in a module built again, beside other random numbers: the same bits.
TEST(Deferred, WeightsDependOnSeedAndNameOnly) {
  const DeferredModule deferred = make_zoo();
  std::map<std::string, at::Tensor> together;
  for (const auto& [name, tensor] : test::tensors_of(*deferred.module())) {
    together[name] = deferred.materialise(name, kSeed);
    EXPECT_EQ(together[name].sizes(), tensor.sizes()) << name;
    EXPECT_EQ(together[name].scalar_type(), tensor.scalar_type()) << name;
    EXPECT_FALSE(together[name].requires_grad()) << name;
  }
  for (auto item = together.rbegin(); item != together.rend(); ++item) {
    const DeferredModule alone = make_zoo();
    at::rand({3});
    expect_same_bits(alone.materialise(item->first, kSeed), item->second, item->first);
  }
}

TEST(Deferred, TheGlobalGeneratorIsLeftAlone) {
  const DeferredModule deferred = make_zoo();
  test::seed_generator(3);
  const at::Tensor expected = at::rand({4});
  test::seed_generator(3);
  deferred.materialise("permutation", kSeed);
  deferred.materialise("scaled", kSeed);
  expect_same_bits(at::rand({4}), expected, "global");
}

TEST(Deferred, TensorsFromOutsideKeepTheirContent) {
  const at::Tensor outside = at::arange(6, at::kFloat);
  const DeferredModule deferred([&] {
    auto module = std::make_shared<nn::Module>();
    module->register_buffer("as_it_is", outside);
    module->register_buffer("doubled", outside * 2);
    const at::Tensor copy = outside.clone();
    copy.add_(1);
    module->register_parameter("copy", copy);
    return module;
  });
  expect_same_bits(deferred.materialise("as_it_is", 0), at::arange(6, at::kFloat), "as it is");
  expect_same_bits(deferred.materialise("doubled", 0), at::arange(6, at::kFloat) * 2, "doubled");
  expect_same_bits(deferred.materialise("copy", 0), at::arange(6, at::kFloat) + 1, "copy");
}

TEST(Deferred, Refusals) {
  const auto build = [](const std::function<void(nn::Module&)>& f) {
    return DeferredModule([&] {
      auto module = std::make_shared<nn::Module>();
      f(*module);
      return module;
    });
  };
  expect_error(
      ErrorCode::usage,
      "operator aten::item of the module's factory reads the values of a tensor, which have none while a module is "
      "built without memory",
      [&] { build([](auto&) { torch::linspace(0, 1, 3)[1].template item<float>(); }); });
  expect_error(ErrorCode::usage, "operator aten::equal of the module's factory reads the values", [&] {
    build([](auto&) { torch::zeros({2}).equal(torch::ones({2})); });
  });
  expect_error(
      ErrorCode::usage,
      "operator aten::mm of the module's factory failed while a module is built without memory: ", [&] {
        build([](auto&) { torch::mm(torch::zeros({2, 3}), torch::zeros({2, 3})); });
      });
  const at::Tensor stranger = at::empty({3}, at::kMeta);
  expect_error(
      ErrorCode::usage,
      "operator aten::neg of the module's factory uses a tensor of shape [3] on meta that was made outside of it; "
      "hint: "
      "make it in the factory, or give an initialiser",
      [&] { build([&](auto&) { stranger.neg(); }); });
  expect_error(ErrorCode::usage, "the factory failed while a module was built without memory: no luck", [&] {
    build([](auto&) { throw std::runtime_error("no luck"); });
  });
  expect_error(ErrorCode::usage, "the factory returned no module", [] { DeferredModule([] { return nullptr; }); });
  const DeferredModule deferred = build([&](nn::Module& module) { module.register_buffer("strange", stranger); });
  expect_error(
      ErrorCode::usage, "the module has no parameter or buffer \"weight\"", [&] { deferred.materialise("weight", 0); });
  expect_error(ErrorCode::usage, "\"strange\" is on meta and was not made in the module's factory; hint: ", [&] {
    deferred.materialise("strange", 0);
  });
}

struct BigBlockImpl : nn::Module {
  BigBlockImpl() {
    norm = register_module("norm", nn::LayerNorm(nn::LayerNormOptions({8192})));
    up = register_module("up", nn::Linear(8192, 32768));
    down = register_module("down", nn::Linear(32768, 8192));
  }
  at::Tensor forward(const at::Tensor& x) { return x + down->forward(torch::gelu(up->forward(norm->forward(x)))); }
  nn::LayerNorm norm = nullptr;
  nn::Linear up = nullptr;
  nn::Linear down = nullptr;
};
TORCH_MODULE(BigBlock);

// 48 blocks of 2.1 GB.
TEST(Deferred, AHundredGigabytesNeedNoMemory) {
  const int64_t before = test::peak_kilobytes();
  const DeferredModule deferred([] {
    nn::Sequential blocks;
    for (int i = 0; i < 48; ++i) {
      blocks->push_back(BigBlock());
    }
    return blocks.ptr();
  });
  double bytes = 0;
  for (const at::Tensor& parameter : deferred.module()->parameters()) {
    bytes += static_cast<double>(parameter.nbytes());
  }
  EXPECT_GT(bytes, 100e9);
  const auto traced = trace_module(
      deferred, test::unary<nn::SequentialImpl>({graph::Size::symbol("batch"), graph::Size::symbol("seq"), 8192}), 1);
  EXPECT_EQ(traced.graph.modules.at("47"), "BigBlock");
  EXPECT_EQ(traced.tensors("31.up.bias").sizes(), std::vector<int64_t>{32768});
  EXPECT_LT(test::peak_kilobytes() - before, 400'000);
}

}  // namespace
}  // namespace shardpipe::trace
