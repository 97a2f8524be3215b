#include "graph/executor.h"

#include <gtest/gtest.h>

#include <limits>

#include "graph/expect_error.h"
#include "graph/interpret.h"
#include "graph/text.h"
#include "graph/verify.h"

namespace shardpipe::graph {
namespace {

using test::expect_error;

// Operators that see what the executor does with tensors.
struct Spies {
  std::vector<c10::weak_intrusive_ptr<at::TensorImpl>> made;
  std::vector<int> alive;       // at each call of graph_test::alive
  std::vector<size_t> uses;     // of the first argument, at each call of graph_test::alive
  std::vector<bool> grad;       // GradMode, likewise
  std::vector<const at::TensorImpl*> seen;
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
        spies.alive.push_back(static_cast<int>(std::count_if(
            spies.made.begin(), spies.made.end(), [](const auto& weak) { return !weak.expired(); })));
        spies.uses.push_back(x.use_count());
        spies.grad.push_back(c10::GradMode::is_enabled());
        spies.seen.push_back(x.unsafeGetTensorImpl());
        return x.clone();
      });
      library.def("rows(Tensor x) -> Tensor[]", [](const at::Tensor& x) { return x.unbind(0); });
      library.def("two(Tensor x, int a, float b, bool c, str d) -> (Tensor, int, float, bool, str)",
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
      library.def("floats(Tensor x, float[] factors, str[] names, Scalar?[] scalars) -> Tensor",
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

constexpr const char* kBlock = R"(dimension n
input %0 "x": float32[n, 8]
parameter %1 "w": float32[24, 8]
parameter %2 "norm": float32[8]
buffer %3 "scale": float32[8]
state %4 "cache" per_sequence: float32[8, 8]
#0 %5: float32[n, 8] = aten::layer_norm(%0, ints[8], %2, none, 1e-05, false) in "norm"
#1 %6: float32[n, 24] = aten::linear(%5, %1, none) in "qkv"
#2 %7: float32[n, 8] %8: float32[n, 8] %9: float32[n, 8] = aten::split.Tensor(%6, 8, -1) in "split"
#3 %10: float32[n, n] = aten::matmul(%7, %11) in "scores"
)";

// A graph with views, lists, in-place operators, a state, sizes as values and a value read twice by one node.
Graph block() {
  return graph_of(R"(dimension n
input %0 "x": float32[n, 8]
parameter %1 "w": float32[24, 8]
parameter %2 "norm": float32[8]
buffer %3 "scale": float32[8]
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
#10 %17: float32[n, 8] = aten::mul_.Tensor(%16, %16) in "scores"
#11 %18: int = scalar::mul(%10, 2) in ""
#12 %19: float32[2*n, 8] = aten::cat([%17, %9], 0) in "out"
#13 %20: float32 = aten::view(%19, [%18, 2, 4]) in "out"
#14 %21: float32 = aten::stack([%20, %20], 1) in "out"
#15 %22: float32 = aten::flatten.using_ints(%21, -2, -1) in "out"
#16 %23: float32 = aten::index.Tensor(%22, [none, %24]) in "out"
#17 %25: float32 = aten::mul.Tensor(%23, %3) in "out"
output "y" %25
output "sums" %17
)" + std::string());
}

}  // namespace
}  // namespace shardpipe::graph
