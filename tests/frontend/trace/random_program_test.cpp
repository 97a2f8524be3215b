// Random programs of ATen calls: traced, replayed at random sizes, equal bit by bit. SHARDPIPE_FUZZ_SCALE multiplies
// their number; SHARDPIPE_TRACE_SEED runs one.
#include <gtest/gtest.h>

#include <iostream>

#include "frontend/trace/module_scope.h"
#include "frontend/trace/replay.h"
#include "graph/fuzz.h"

namespace shardpipe::trace {
namespace {

using at::indexing::Slice;
using graph::Size;
using test::draw;
using test::Model;
using test::Tensors;
using test::Weights;

constexpr int64_t kWidth = 8;

// What a step may use. All tensors of the pool are float [batch, seq, 8].
struct Context {
  const Weights& weights;
  const Tensors& states;
  at::Tensor ids;  // int64 [batch, seq], from 0 to 4
  Tensors pool;
  int64_t batch;
  int64_t seq;
};

struct Operation {
  const char* name;
  at::Tensor (*apply)(const Context& c, const at::Tensor& a, const at::Tensor& b, int64_t k);  // k from 0 to 7
};

const std::vector<Operation>& operations() {
  static const std::vector<Operation> all = {
      {"add", [](auto&, auto& a, auto& b, int64_t k) { return a.add(b, k); }},
      {"mul", [](auto&, auto& a, auto& b, int64_t) { return a * b; }},
      {"rsub", [](auto&, auto& a, auto&, int64_t k) { return 0.5 * static_cast<double>(k) - a; }},
      {"silu", [](auto&, auto& a, auto&, int64_t) { return at::silu(a); }},
      {"softmax", [](auto&, auto& a, auto&, int64_t k) { return at::softmax(a, k % 2 == 0 ? -1 : 2); }},
      {"layer_norm", [](auto& c, auto& a, auto&, int64_t) { return at::layer_norm(a, {kWidth}, c.weights.at("norm"), {}); }},
      {"linear", [](auto& c, auto& a, auto&, int64_t) { return at::linear(a, c.weights.at("square"), c.weights.at("norm")); }},
      {"gated",
       [](auto& c, auto& a, auto&, int64_t) {
         const auto parts = at::linear(a, c.weights.at("double")).chunk(2, -1);
         return at::silu(parts[0]) * parts[1];
       }},
      {"embedding", [](auto& c, auto& a, auto&, int64_t) { return at::embedding(c.weights.at("square"), c.ids) + a; }},
      {"scores", [](auto&, auto& a, auto& b, int64_t) { return at::matmul(at::softmax(at::matmul(a, b.transpose(1, 2)), -1), b); }},
      {"causal",
       [](auto& c, auto& a, auto& b, int64_t) {
         const auto mask = at::ones({c.seq, c.seq}, at::kBool).triu(1);
         return at::matmul(at::softmax(at::matmul(a, b.transpose(1, 2)).masked_fill(mask, -1e9), -1), b);
       }},
      {"sdpa",
       [](auto& c, auto& a, auto& b, int64_t k) {
         const auto heads = [&](const at::Tensor& x) { return x.view({c.batch, c.seq, 2, 4}).transpose(1, 2); };
         return at::scaled_dot_product_attention(heads(a.contiguous()), heads(b.contiguous()), heads(b.contiguous()), {}, 0, k % 2 == 0)
             .transpose(1, 2)
             .flatten(2);
       }},
      {"flat", [](auto& c, auto& a, auto&, int64_t) { return a.reshape({c.batch * c.seq, -1}).sin().view({c.batch, c.seq, kWidth}); }},
      {"flatter", [](auto& c, auto& a, auto&, int64_t) { return a.reshape({-1}).cumsum(0).view({c.batch, c.seq, kWidth}); }},
      {"heads", [](auto& c, auto& a, auto&, int64_t) { return a.reshape({c.batch * c.seq * 2, 4}).relu().reshape({c.batch, c.seq, -1}); }},
      {"split",
       [](auto&, auto& a, auto&, int64_t k) {
         const auto parts = a.split_with_sizes({k % 7 + 1, 7 - k % 7}, -1);
         return at::cat({parts[1], parts[0]}, -1);
       }},
      {"chunk", [](auto&, auto& a, auto& b, int64_t) { return at::cat({b.chunk(4, 2)[3], a.narrow(2, 0, 6)}, 2); }},
      {"unbind",
       [](auto&, auto& a, auto&, int64_t k) {
         auto rows = a.unbind(2);
         std::swap(rows[0], rows[static_cast<size_t>(k)]);
         return at::stack(rows, 2);
       }},
      {"positions", [](auto& c, auto& a, auto&, int64_t k) { return a + at::arange(k, k + c.seq, at::kFloat).unsqueeze(1); }},
      {"full", [](auto& c, auto& a, auto&, int64_t k) { return a + at::full({c.batch, 1, 1}, k) * at::zeros({c.seq, kWidth}).fill_(k); }},
      {"scale", [](auto& c, auto& a, auto&, int64_t k) { return a * (c.seq + k) + c.batch * c.seq; }},
      {"shift",
       [](auto& c, auto& a, auto& b, int64_t) {
         return at::cat({b.narrow(1, 0, 1), a.narrow(1, 0, c.seq - 1)}, 1);
       }},
      {"twice", [](auto& c, auto& a, auto& b, int64_t) { return at::cat({a, b}, 1).narrow(1, c.seq, c.seq) + at::cat({b, a}, 1).slice(1, 0, c.seq); }},
      {"flip", [](auto& c, auto& a, auto&, int64_t) { return a.index_select(1, at::arange(c.seq - 1, -1, -1)); }},
      {"index", [](auto& c, auto& a, auto&, int64_t k) { return a.index({Slice(), at::arange(c.seq), Slice()}).roll(k, 1); }},
      {"last", [](auto&, auto& a, auto& b, int64_t) { return a + b.select(1, -1).unsqueeze(1); }},
      {"gather", [](auto&, auto& a, auto& b, int64_t) { return a.gather(2, b.argsort(int64_t{2}, false)); }},
      {"topk", [](auto&, auto& a, auto&, int64_t k) { return a - std::get<0>(a.topk(k + 1, -1)).mean(-1, true); }},
      {"where", [](auto&, auto& a, auto& b, int64_t) { return at::where(a > b, a, b * 2) + (a.le(0)).to(at::kFloat); }},
      {"mean", [](auto&, auto& a, auto&, int64_t k) { return a - a.mean({k % 2 == 0 ? 1 : 2}, true); }},
      {"variance", [](auto&, auto& a, auto&, int64_t) { return a * at::rsqrt(a.pow(2).mean(-1, true) + 1e-6); }},
      {"permute", [](auto& c, auto& a, auto&, int64_t) { return a.permute({2, 0, 1}).contiguous().view({kWidth, -1}).t().view({c.batch, c.seq, -1}); }},
      {"expand", [](auto& c, auto& a, auto&, int64_t) { return a + c.weights.at("norm").view({1, 1, -1}).expand({c.batch, c.seq, -1}); }},
      {"repeat", [](auto& c, auto& a, auto&, int64_t k) { return a + a.narrow(2, k, 1).repeat({1, 1, kWidth}) * c.weights.at("norm").repeat({c.batch, c.seq, 1}); }},
      {"einsum", [](auto& c, auto& a, auto&, int64_t) { return at::einsum("bsh,oh->bso", {a, c.weights.at("square")}); }},
      {"bfloat16", [](auto&, auto& a, auto& b, int64_t) { return (a.to(at::kBFloat16) + b.to(at::kBFloat16)).to(at::kFloat); }},
      {"double", [](auto&, auto& a, auto& b, int64_t) { return a.to(b.device(), at::kDouble).tanh().to(b.options()); }},
      {"in_place", [](auto&, auto& a, auto& b, int64_t k) { return a.clone().add_(b).mul_(0.5).clamp_(-k, k); }},
      {"view_write",
       [](auto&, auto& a, auto& b, int64_t k) {
         at::Tensor y = a + 0;
         y.select(2, k).copy_(b.select(2, 7 - k));
         y.narrow(1, 0, 1).zero_();
         y.masked_fill_(y > 3, 1);
         return y;
       }},
      {"out", [](auto&, auto& a, auto& b, int64_t) {
         at::Tensor out = at::empty_like(a);
         at::mul_out(out, a, b);
         return out;
       }},
      {"no_grad",
       [](auto&, auto& a, auto& b, int64_t) {
         const at::NoGradGuard no_grad;
         return a.sigmoid() + b;
       }},
      {"state",
       [](auto& c, auto& a, auto&, int64_t k) {
         c.states[0].narrow(1, k % 3, c.seq).copy_(a);
         return c.states[0].narrow(1, 0, c.seq) * 0.5;
       }},
      {"count",
       [](auto& c, auto& a, auto&, int64_t k) {
         c.states[1].add_(c.seq + k);
         return a + c.states[1];
       }},
      {"tables", [](auto& c, auto& a, auto&, int64_t) {
         const auto grid = at::meshgrid({at::arange(c.seq, at::kFloat), at::linspace(0, 1, kWidth)}, "ij");
         return a * at::cos(grid[0] * grid[1]);
       }},
  };
  return all;
}

struct Step {
  const Operation* operation;
  size_t a;
  size_t b;
  int64_t k;
};

std::vector<Step> random_steps(std::mt19937& random) {
  std::vector<Step> steps;
  const size_t count = 1 + draw(random, 10);
  for (size_t i = 0; i < count; ++i) {
    steps.push_back(
        {&operations()[draw(random, operations().size())], draw(random, i + 1), draw(random, i + 1),
         static_cast<int64_t>(draw(random, 8))});
  }
  return steps;
}

Model model_of(const std::vector<Step>& steps) {
  const Size batch = Size::symbol("batch");
  const Size seq = Size::symbol("seq");
  return {
      {{"x", at::kFloat, {batch, seq, kWidth}}, {"ids", at::kLong, {batch, seq}}},
      {{"cache", at::kFloat, {batch, seq + 2, kWidth}}, {"count", at::kFloat, {1}}},
      {{"norm", at::randn({kWidth})},
       {"square", at::randn({kWidth, kWidth})},
       {"double", at::randn({2 * kWidth, kWidth})}},
      [steps](const Weights& weights, const Tensors& in, const Tensors& states) -> NamedOutputs {
        Context c{weights, states, in[1], {in[0]}, in[0].size(0), in[0].size(1)};
        for (const Step& step : steps) {
          const ModuleScope scope(step.operation->name, "Step");
          c.pool.push_back(step.operation->apply(c, c.pool[step.a], c.pool[step.b], step.k));
        }
        return {{"last", c.pool.back()}, {"middle", c.pool[c.pool.size() / 2]}};
      }};
}

TEST(RandomPrograms, ReplayBitwise) {
  const char* one = std::getenv("SHARDPIPE_TRACE_SEED");
  const int first = one != nullptr ? std::atoi(one) : 0;
  const int count = one != nullptr ? 1 : test::fuzz_count(200);
  for (int seed = first; seed < first + count && !testing::Test::HasFailure(); ++seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    const std::vector<Step> steps = random_steps(random);
    std::string text;
    for (const Step& step : steps) {
      text += fmt::format(" {}({}, {}, {})", step.operation->name, step.a, step.b, step.k);
    }
    SCOPED_TRACE(fmt::format(
        "reproduce: SHARDPIPE_TRACE_SEED={} frontend_trace_tests --gtest_filter=RandomPrograms.*:{}", seed, text));
    at::manual_seed(static_cast<uint64_t>(seed));
    const Model model = model_of(steps);
    try {
      const auto size = [&] { return static_cast<int64_t>(1 + draw(random, 12)); };
      test::expect_replays(model, {{{"batch", 1}, {"seq", 1}}, {{"batch", size()}, {"seq", size()}}});
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

// Each operation alone, so that a failure names it.
TEST(RandomPrograms, EachOperationReplays) {
  for (const Operation& operation : operations()) {
    SCOPED_TRACE(operation.name);
    at::manual_seed(7);
    const Model model = model_of({{&operation, 0, 0, 3}, {&operation, 1, 0, 4}});
    try {
      test::expect_replays(model, {{{"batch", 1}, {"seq", 1}}, {{"batch", 3}, {"seq", 6}}});
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }
}

}  // namespace
}  // namespace shardpipe::trace
