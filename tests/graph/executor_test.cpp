#include "graph/executor.h"

#include <gtest/gtest.h>

#include <limits>

#include "graph/interpret.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "support/errors.h"

namespace shardpipe::graph {
namespace {

using test::expect_error;

// Operators that see what the executor does with tensors.
struct Spies {
  std::vector<c10::weak_intrusive_ptr<at::TensorImpl>> made;
  std::vector<int> alive;    // at each call of graph_test::alive
  std::vector<size_t> uses;  // of the first argument, at each call of graph_test::alive
  std::vector<bool> grad;    // GradMode, likewise
};
Spies spies;  // NOLINT

class ExecutorTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    static torch::Library library(torch::Library::DEF, "graph_test", std::nullopt, __FILE__, __LINE__);
    static const bool defined = [] {
      library.def("make(Tensor x) -> Tensor", [](const at::Tensor& x) {
        at::Tensor made = x + 1;
        spies.made.emplace_back(made.getIntrusivePtr());
        return made;
      });
      library.def("alive(Tensor x) -> Tensor", [](const at::Tensor& x) {
        spies.alive.push_back(static_cast<int>(
            std::count_if(spies.made.begin(), spies.made.end(), [](const auto& weak) { return !weak.expired(); })));
        spies.uses.push_back(x.use_count());
        spies.grad.push_back(c10::GradMode::is_enabled());
        return x.clone();
      });
      library.def("rows(Tensor x) -> Tensor[]", [](const at::Tensor& x) { return x.unbind(0); });
      library.def(
          "two(Tensor x, int a, float b, bool c, str d) -> (Tensor, int, float, bool, str)",
          [](const at::Tensor& x, int64_t a, double b, bool c, std::string d) {
            return std::make_tuple(x + 1, a + 1, b / 2, !c, d + "!");
          });
      library.def("fail(Tensor x, int kind) -> Tensor", [](const at::Tensor& x, int64_t kind) {
        if (kind == 1) {
          throw_usage("too few rows");
        }
        if (kind == 2) {
          throw std::runtime_error("first line\nsecond line");
        }
        if (kind == 3) {
          throw 3;
        }
        return x + 1;
      });
      library.def(
          "floats(Tensor x, float[] factors, str[] names, Scalar?[] scalars) -> Tensor",
          [](const at::Tensor& x, const c10::List<double>& factors, const c10::List<std::string>& names,
             const c10::List<std::optional<at::Scalar>>& scalars) {
            at::Tensor y = x;
            for (const double factor : factors.vec()) {
              y = y * factor;
            }
            return y + static_cast<int64_t>(names.size() * 10 + scalars.size());
          });
      return true;
    }();
    static_cast<void>(defined);
  }
  void SetUp() override {
    spies = {};
    at::manual_seed(0);
  }
};

Graph graph_of(const std::string& text) {
  Graph graph = parse("shardpipe-graph 1\n" + text, "test");
  verify(graph, "test");
  return graph;
}

void expect_same_bits(const at::Tensor& a, const at::Tensor& b) {
  ASSERT_EQ(a.sizes(), b.sizes());
  ASSERT_EQ(a.scalar_type(), b.scalar_type());
  const at::Tensor x = a.detach().contiguous();
  const at::Tensor y = b.detach().contiguous();
  EXPECT_EQ(std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()), 0);
}

// Views, lists in and out, an in-place operator, a state, sizes as values, a value read twice by one node, none in a
// list.
Graph block() {
  return graph_of(R"(dimension n
input %0 "x": float32[n, 8]
parameter %1 "w": float32[24, 8]
parameter %2 "norm": float32[8]
buffer %3 "pick": int64[3]
state %4 "cache" per_sequence: float32[8, 8]
#0 %5: float32[n, 8] = aten::layer_norm(%0, ints[8], %2, none, 1e-05, false) in "norm"
#1 %6: float32[n, 24] = aten::linear(%5, %1, none) in "qkv"
#2 %7: float32[n, 8] %8: float32[n, 8] %9: float32[n, 8] = aten::split.Tensor(%6, 8, -1) in "qkv"
#3 %10: int = aten::sym_size.int(%0, 0) in ""
#4 %11: float32 = aten::narrow(%4, 0, 0, %10) in "cache"
#5 %12: float32[n, 8] = aten::copy_(%11, %8, false) in "cache"
#6 %13: float32[8, 8] = aten::t(%4) in "scores"
#7 %14: float32[n, 8] = aten::matmul(%7, %13) in "scores"
#8 %15: float32[n, 8] = aten::softmax.int(%14, -1, none) in "scores"
#9 %16: float32[n, 8] = aten::mul.Tensor(%15, %9) in "scores"
#10 %17: float32[n, 8] = aten::mul.Tensor(%16, %16) in "scores"
#11 %18: float32[n, 8] = aten::add_.Tensor(%17, %9, 1) in "scores"
#12 %19: int = scalar::mul(%10, 2) in ""
#13 %20: float32[2*n, 8] = aten::cat([%18, %9], 0) in "out"
#14 %21: float32 = aten::view(%20, [%19, 2, 4]) in "out"
#15 %22: float32 = aten::stack([%21, %21], 1) in "out"
#16 %23: float32 = aten::flatten.using_ints(%22, -2, -1) in "out"
#17 %24: float32 = aten::index.Tensor(%23, [none, none, %3]) in "out"
output "y" %24
output "sums" %18
)");
}

std::map<std::string, at::Tensor> block_tensors(int64_t n) {
  return {
      {"x", at::randn({n, 8})},     {"w", at::randn({24, 8})},
      {"norm", at::randn({8})},     {"pick", at::tensor({0, 7, 3}, at::kLong)},
      {"cache", at::zeros({8, 8})},
  };
}

// The operators of block(), called one by one.
std::pair<at::Tensor, at::Tensor> call_block(const std::map<std::string, at::Tensor>& t) {
  const int64_t n = t.at("x").size(0);
  const at::Tensor h = at::linear(at::layer_norm(t.at("x"), {8}, t.at("norm"), {}, 1e-5, false), t.at("w"));
  const std::vector<at::Tensor> qkv = at::split(h, 8, -1);
  t.at("cache").narrow(0, 0, n).copy_(qkv[1]);
  at::Tensor a = at::softmax(at::matmul(qkv[0], t.at("cache").t()), -1) * qkv[2];
  a = (a * a).add_(qkv[2]);
  at::Tensor y = at::cat({a, qkv[2]}, 0).view({2 * n, 2, 4});
  y = at::stack({y, y}, 1).flatten(-2, -1);
  return {y.index({at::indexing::Slice(), at::indexing::Slice(), t.at("pick")}), a};
}

void set_all(Executor& executor, const Graph& graph, const std::map<std::string, at::Tensor>& tensors) {
  for (const auto& [name, tensor] : tensors) {
    executor.set(graph.find(name), tensor);
  }
}

std::map<std::string, at::Tensor> cloned(const std::map<std::string, at::Tensor>& tensors) {
  std::map<std::string, at::Tensor> copies;
  for (const auto& [name, tensor] : tensors) {
    copies[name] = tensor.clone();
  }
  return copies;
}

TEST_F(ExecutorTest, EqualsTheOperatorsCalledDirectly) {
  const Graph graph = block();
  Executor executor(graph);
  for (const int64_t n : {1, 3, 8, 5, 0}) {
    SCOPED_TRACE(n);
    const auto tensors = block_tensors(n);
    const auto reference = cloned(tensors);
    set_all(executor, graph, tensors);
    executor.run();
    const auto [y, sums] = call_block(reference);
    expect_same_bits(executor.get(graph.outputs[0].value).toTensor(), y);
    expect_same_bits(executor.get(graph.outputs[1].value).toTensor(), sums);
    expect_same_bits(tensors.at("cache"), reference.at("cache"));
  }
}

TEST_F(ExecutorTest, MovesAndCopiesKeepWorking) {
  const Graph graph = block();
  const auto tensors = block_tensors(4);
  Executor first(graph);
  set_all(first, graph, tensors);
  Executor copy = first;
  first.run();
  Executor moved = std::move(first);
  moved.run();
  copy.run();
  expect_same_bits(moved.get(24).toTensor(), copy.get(24).toTensor());
}

TEST_F(ExecutorTest, GradientsEqualPlainAutograd) {
  const Graph graph = graph_of(R"(input %0 "x": float32[5, 8]
parameter %1 "w": float32[24, 8]
parameter %2 "norm": float32[8]
#0 %5: float32[5, 8] = aten::layer_norm(%0, ints[8], %2, none, 1e-05, false) in ""
#1 %6: float32[5, 24] = aten::linear(%5, %1, none) in ""
#2 %7: tensor %8: tensor %9: tensor = aten::split.Tensor(%6, 8, -1) in ""
#3 %10: tensor = aten::mul.Tensor(%7, %8) in ""
#4 %11: tensor = aten::relu_(%10) in ""
#5 %12: tensor = aten::sigmoid(%9) no_grad in ""
#6 %13: tensor = aten::cat([%11, %12, %7], 1) in ""
#8 %15: tensor = aten::t(%1) in ""
#7 %14: tensor = aten::linear(%13, %15, none) in ""
output "y" %14
)");
  const auto run = [&](auto forward) {
    at::manual_seed(3);
    const at::Tensor x = at::randn({5, 8}).requires_grad_();
    const at::Tensor w = at::randn({24, 8}).requires_grad_();
    const at::Tensor norm = at::randn({8}).requires_grad_();
    const at::Tensor y = forward(x, w, norm);
    y.backward(at::ones_like(y));
    return std::vector<at::Tensor>{y, x.grad(), w.grad(), norm.grad()};
  };
  const auto direct = run([](const at::Tensor& x, const at::Tensor& w, const at::Tensor& norm) {
    const auto parts = at::split(at::linear(at::layer_norm(x, {8}, norm, {}, 1e-5, false), w), 8, -1);
    const at::Tensor a = (parts[0] * parts[1]).relu_();
    at::Tensor b;
    {
      const at::NoGradGuard no_grad;
      b = parts[2].sigmoid();
    }
    return at::linear(at::cat({a, b, parts[0]}, 1), w.t());
  });
  const auto executed = run([&](const at::Tensor& x, const at::Tensor& w, const at::Tensor& norm) {
    Executor executor(graph);
    executor.set(0, x);
    executor.set(1, w);
    executor.set(2, norm);
    executor.run();
    return executor.get(14).toTensor();
  });
  for (size_t i = 0; i < direct.size(); ++i) {
    SCOPED_TRACE(i);
    expect_same_bits(executed[i], direct[i]);
  }
}

TEST_F(ExecutorTest, NoGradRegionsEndWithTheirNodes) {
  const Graph graph = graph_of(R"(input %0 "x": float32[2]
#0 %1: tensor = graph_test::alive(%0) no_grad in ""
#1 %2: tensor = graph_test::alive(%1) in ""
#2 %3: tensor = graph_test::alive(%2) no_grad in ""
output "y" %3
)");
  Executor executor(graph);
  executor.set(0, at::ones({2}));
  executor.run();
  EXPECT_TRUE(c10::GradMode::is_enabled());
  const at::NoGradGuard no_grad;
  executor.run();
  EXPECT_FALSE(c10::GradMode::is_enabled());
  EXPECT_EQ(spies.grad, (std::vector<bool>{false, true, false, false, false, false}));
}

TEST_F(ExecutorTest, IntermediatesAreReleasedAfterTheirLastUse) {
  const Graph graph = graph_of(R"(input %0 "x": float32[2]
#0 %1: tensor = graph_test::make(%0) in ""
#1 %2: tensor = graph_test::make(%1) in ""
#2 %3: tensor = graph_test::alive(%2) in ""
#3 %4: tensor = graph_test::make(%2) in ""
#4 %5: tensor = aten::cat([%2, %4], 0) in ""
#5 %6: tensor = graph_test::alive(%5) in ""
#6 %7: tensor = graph_test::make(%6) in ""
#7 %8: tensor = graph_test::alive(%7) in ""
output "y" %8
)");
  Executor executor(graph);
  executor.set(0, at::ones({2}));
  executor.run();
  // %1 is gone when %3 is made; %2 and %4 are gone after cat; %7 is nobody else's while its last reader runs.
  EXPECT_EQ(spies.alive, (std::vector<int>{1, 0, 1}));
  EXPECT_EQ(spies.uses.at(0), 2u);  // the slot's (its last reader comes later) and the call's
  EXPECT_EQ(spies.uses.at(2), 1u);  // moved out of its slot
  spies.made.clear();
  for (const ValueId id : {1, 2, 3, 4, 5, 6, 7}) {
    EXPECT_TRUE(executor.get(id).isNone()) << id;
  }
}

TEST_F(ExecutorTest, AValueReadTwiceByOneNodeIsMovedByTheSecondReader) {
  const Graph graph = graph_of(R"(input %0 "x": float32[2]
#0 %1: tensor = graph_test::make(%0) in ""
#1 %2: tensor = aten::addcmul(%1, %1, %1, 1) in ""
#2 %3: tensor = graph_test::make(%2) in ""
#3 %4: tensor = aten::cat([%3, %3, %3], 0) in ""
#4 %5: tensor = graph_test::alive(%4) in ""
output "y" %5
)");
  Executor executor(graph);
  executor.set(0, at::ones({2}));
  executor.run();
  EXPECT_EQ(spies.alive, std::vector<int>{0});
  expect_same_bits(executor.get(5).toTensor(), at::full({6}, 7.0f));  // 2 + 2 * 2, plus 1
}

TEST_F(ExecutorTest, ResultsThatNobodyReadsAreDropped) {
  const Graph graph = graph_of(R"(input %0 "x": float32[3]
#0 %1: tensor = graph_test::make(%0) in ""
#1 %2: tensor %3: tensor = aten::max.dim(%0, 0, false) in ""
#2 %4: tensor = graph_test::alive(%2) in ""
#3 %5: tensor %6: tensor %7: tensor = graph_test::rows(%0) in ""
output "y" %4
output "row" %6
)");
  Executor executor(graph);
  executor.set(0, at::arange(3, at::kFloat));
  executor.run();
  EXPECT_EQ(spies.alive, std::vector<int>{0});
  EXPECT_TRUE(executor.get(3).isNone());
  EXPECT_TRUE(executor.get(5).isNone());
  EXPECT_TRUE(executor.get(7).isNone());
  EXPECT_EQ(executor.get(6).toTensor().item<float>(), 1);
}

TEST_F(ExecutorTest, OutputsAndKeptValuesOutliveTheRunUntilReleased) {
  const Graph graph = graph_of(R"(input %0 "x": float32[2]
#0 %1: tensor = graph_test::make(%0) in ""
#1 %2: tensor = graph_test::make(%1) in ""
#2 %3: tensor = aten::relu(%2) in ""
output "y" %3
output "same" %3
output "x" %0
)");
  const std::vector<ValueId> keep = {1, 1, 0};
  Executor executor(graph, keep);
  executor.set(0, at::ones({2}));
  executor.run();
  EXPECT_EQ(executor.get(1).toTensor().sum().item<float>(), 4);
  EXPECT_TRUE(executor.get(2).isNone());
  EXPECT_EQ(executor.get(3).toTensor().sum().item<float>(), 6);
  executor.release_results();
  EXPECT_TRUE(executor.get(1).isNone());
  EXPECT_TRUE(executor.get(3).isNone());
  EXPECT_FALSE(executor.get(0).isNone());  // given, not computed
  EXPECT_TRUE(spies.made.at(0).expired());
  executor.run();
  EXPECT_EQ(executor.get(3).toTensor().sum().item<float>(), 6);
}

TEST_F(ExecutorTest, ListsOfParametersFollowSet) {
  const Graph graph = graph_of(R"(parameter %0 "a": float32[2]
buffer %1 "b": float32[2]
input %2 "x": float32[2]
#0 %3: tensor = aten::cat([%0, %1, %0], 0) in ""
#1 %4: tensor = aten::cat([%0, %2], 0) in ""
output "fixed" %3
output "mixed" %4
)");
  Executor executor(graph);
  executor.set(0, at::full({2}, 1.0f));
  executor.set(1, at::full({2}, 2.0f));
  executor.set(2, at::full({2}, 3.0f));
  const auto run = [&] {
    executor.run();
    return std::pair(executor.get(3).toTensor().sum().item<float>(), executor.get(4).toTensor().sum().item<float>());
  };
  EXPECT_EQ(run(), std::pair(8.0f, 8.0f));
  executor.set(2, at::full({2}, 5.0f));
  EXPECT_EQ(run(), std::pair(8.0f, 12.0f));
  executor.set(0, at::full({2}, 10.0f));
  EXPECT_EQ(run(), std::pair(44.0f, 30.0f));
  executor.set(1, at::full({2}, 0.0f));
  EXPECT_EQ(run(), std::pair(40.0f, 30.0f));
}

TEST_F(ExecutorTest, ListsOfEveryKind) {
  const Graph graph = graph_of(R"(input %0 "x": float32[2]
input %1 "factor": float
input %2 "name": string
#0 %3: tensor = graph_test::floats(%0, [%1, 2.0], [%2, "b"], [none, 1, %1]) in ""
#1 %4: tensor = graph_test::floats(%3, floats[], [], []) in ""
output "y" %4
)");
  Executor executor(graph);
  executor.set(0, at::ones({2}));
  executor.set(1, 3.0);
  executor.set(2, "a");
  executor.run();
  EXPECT_EQ(executor.get(4).toTensor().sum().item<float>(), 2 * (6 + 23));
}

TEST_F(ExecutorTest, NumbersAreValuesToo) {
  const Graph graph = graph_of(R"(input %0 "x": float32[2]
input %1 "a": int
input %2 "b": float
input %3 "c": bool_value
input %4 "d": string
#0 %5: tensor %6: int %7: float %8: bool_value %9: string = graph_test::two(%0, %1, %2, %3, %4) in ""
#1 %10: tensor %11: int %12: float %13: bool_value %14: string = graph_test::two(%5, %6, %7, %8, %9) in ""
output "y" %10
output "a" %11
output "b" %12
output "c" %13
output "d" %14
)");
  Executor executor(graph);
  executor.set(0, at::zeros({2}));
  executor.set(1, int64_t{5});
  executor.set(2, 8.0);
  executor.set(3, true);
  executor.set(4, "hey");
  executor.run();
  EXPECT_EQ(executor.get(10).toTensor().sum().item<float>(), 4);
  EXPECT_EQ(executor.get(11).toInt(), 7);
  EXPECT_EQ(executor.get(12).toDouble(), 2.0);
  EXPECT_EQ(executor.get(13).toBool(), true);
  EXPECT_EQ(executor.get(14).toStringRef(), "hey!!");
}

int64_t compute(ScalarOperator op, int64_t a, int64_t b) {
  Graph graph = graph_of(
      "input %0 \"a\": int\ninput %1 \"b\": int\n#0 %2: int = scalar::add(%0, %1) in \"m\"\noutput \"y\" %2\n");
  graph.nodes[0].scalar = op;
  Executor executor(graph);
  executor.set(0, a);
  executor.set(1, b);
  executor.run();
  return executor.get(2).toInt();
}

TEST_F(ExecutorTest, ScalarOperatorsHavePythonSemantics) {
  struct Case {
    int64_t a, b, quotient, remainder;  // Python's a // b and a % b
  };
  for (const Case& c : std::vector<Case>{
           {7, 2, 3, 1},
           {-7, 2, -4, 1},
           {7, -2, -4, -1},
           {-7, -2, 3, -1},
           {6, 3, 2, 0},
           {-6, 3, -2, 0},
           {6, -3, -2, 0},
           {0, -5, 0, 0},
           {1, 5, 0, 1},
           {-1, 5, -1, 4},
           {5, -1, -5, 0}}) {
    EXPECT_EQ(compute(ScalarOperator::floordiv, c.a, c.b), c.quotient) << c.a << " // " << c.b;
    EXPECT_EQ(compute(ScalarOperator::mod, c.a, c.b), c.remainder) << c.a << " % " << c.b;
    EXPECT_EQ(compute(ScalarOperator::add, c.a, c.b), c.a + c.b);
    EXPECT_EQ(compute(ScalarOperator::sub, c.a, c.b), c.a - c.b);
    EXPECT_EQ(compute(ScalarOperator::mul, c.a, c.b), c.a * c.b);
  }
}

TEST_F(ExecutorTest, ScalarOperatorsRefuseWhatHasNoAnswer) {
  const int64_t smallest = std::numeric_limits<int64_t>::min();
  const int64_t largest = std::numeric_limits<int64_t>::max();
  expect_error(ErrorCode::internal, "division of 5 by zero, operator scalar::floordiv (#0) in \"m\"", [] {
    compute(ScalarOperator::floordiv, 5, 0);
  });
  expect_error(ErrorCode::internal, "division of 5 by zero", [] { compute(ScalarOperator::mod, 5, 0); });
  expect_error(ErrorCode::internal, "add of 9223372036854775807 and 1 exceeds 64 bits", [&] {
    compute(ScalarOperator::add, largest, 1);
  });
  expect_error(ErrorCode::internal, "sub of -9223372036854775808 and 1 exceeds", [&] {
    compute(ScalarOperator::sub, smallest, 1);
  });
  expect_error(ErrorCode::internal, "mul of -9223372036854775808 and -1 exceeds", [&] {
    compute(ScalarOperator::mul, smallest, -1);
  });
  expect_error(ErrorCode::internal, "floordiv of -9223372036854775808 and -1 exceeds", [&] {
    compute(ScalarOperator::floordiv, smallest, -1);
  });
  expect_error(ErrorCode::internal, "a node without an operator", [] { compute(ScalarOperator::none, 1, 1); });
}

TEST_F(ExecutorTest, ErrorsNameNodeModuleAndKeepTheirCode) {
  const Graph graph = graph_of(R"(input %0 "x": float32[2]
input %1 "kind": int
#0 %2: tensor = graph_test::make(%0) in "a"
#41 %3: tensor = graph_test::fail(%2, %1) in "model.layers.3.mlp"
#2 %4: tensor = aten::add.Tensor(%3, %2, 1) in "a"
output "y" %4
)");
  const std::vector<ValueId> keep = {2};
  Executor executor(graph, keep);
  executor.set(0, at::ones({2}));
  const auto run = [&](int64_t kind) {
    executor.set(1, kind);
    executor.run();
  };
  const std::string where = ", operator graph_test::fail (#41) in \"model.layers.3.mlp\"";
  expect_error(ErrorCode::usage, "error[usage]: too few rows" + where, [&] { run(1); });
  EXPECT_TRUE(executor.get(2).isNone());  // nothing is held after an error
  EXPECT_TRUE(spies.made.at(0).expired());
  expect_error(ErrorCode::internal, "error[internal]: first line" + where, [&] { run(2); });
  expect_error(ErrorCode::internal, "error[internal]: unknown exception" + where, [&] { run(3); });
  run(0);
  EXPECT_EQ(executor.get(4).toTensor().sum().item<float>(), 2 * 5);
}

TEST_F(ExecutorTest, OperatorErrorsOfLibTorchAreOneLine) {
  const Graph graph =
      graph_of("input %0 \"x\": tensor\n#5 %1: tensor = aten::mm(%0, %0) in \"model.head\"\noutput \"y\" %1\n");
  Executor executor(graph);
  executor.set(0, at::ones({2, 3}));
  expect_error(
      ErrorCode::internal, "cannot be multiplied (2x3 and 2x3), operator aten::mm (#5) in \"model.head\"",
      [&] { executor.run(); });
}

TEST_F(ExecutorTest, ListsOfAnotherLengthAreRefused) {
  const Graph graph = graph_of(
      "input %0 \"x\": tensor\n#5 %1: tensor %2: tensor = aten::unbind.int(%0, 0) in \"m\"\noutput \"y\" %1\n");
  Executor executor(graph);
  executor.set(0, at::ones({3, 3}));
  expect_error(
      ErrorCode::internal, "it returns 3 tensors, the graph has 2, operator aten::unbind.int (#5) in \"m\"",
      [&] { executor.run(); });
  executor.set(0, at::ones({2, 3}));
  executor.run();
  EXPECT_EQ(executor.get(1).toTensor().numel(), 3);
}

TEST_F(ExecutorTest, UnsetValuesAreNamed) {
  const Graph graph = block();
  auto tensors = block_tensors(2);
  for (const auto& [missing, unused] : tensors) {
    Executor executor(graph);
    for (const auto& [name, tensor] : tensors) {
      if (name != missing) {
        executor.set(graph.find(name), tensor);
      }
    }
    expect_error(ErrorCode::internal, "\"" + missing + "\" has no value", [&] { executor.run(); });
    executor.set(graph.find(missing), tensors.at(missing));
    executor.run();
    executor.set(graph.find(missing), {});
    expect_error(ErrorCode::internal, "\"" + missing + "\" has no value", [&] { executor.run(); });
  }
  Executor executor(graph);
  expect_error(
      ErrorCode::internal, "value %6 is computed by a node and cannot be set", [&] { executor.set(6, at::ones({1})); });
}

TEST_F(ExecutorTest, AListForAnArgumentThatTakesNoneIsRefused) {
  Graph graph = graph_of("input %0 \"x\": tensor\n#0 %1: tensor = aten::relu(%0) in \"\"\noutput \"y\" %1\n");
  graph.nodes[0].arguments[0] = Argument::list({Argument::value(0)});
  expect_error(
      ErrorCode::internal, "a list is given for an argument of type Tensor", [&] { Executor executor(graph); });
}

}  // namespace
}  // namespace shardpipe::graph
