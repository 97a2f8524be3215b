#include "frontend/pt2/functional.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <random>

#include "graph/executor.h"
#include "graph/fuzz.h"
#include "graph/text.h"
#include "graph/verify.h"

namespace shardpipe::pt2 {
namespace {

std::string rewritten(const std::string& body) {
  graph::Graph graph = graph::parse("shardpipe-graph 1\n" + body, "test");
  graph::verify(graph, "test");
  make_functional(graph);
  graph::verify(graph, "make_functional");
  const std::string text = graph::print(graph);
  return text.substr(text.find('\n') + 1);
}

TEST(Functional, RenamesWhatIsReadBehind) {
  EXPECT_EQ(
      rewritten(R"(input %0 "x": float32[2]
#0 %1: float32[2] = aten::mul.Tensor(%0, 2) in ""
#1 %2: float32[2] = aten::relu_(%1) in ""
#2 %3: float32[2] = aten::add_.Tensor(%2, %0, 1) in ""
#3 %4: float32[2] = aten::exp(%1) in ""
#4 %5: float32[2] = aten::exp(%2) in ""
output "y" %4
output "z" %1
output "w" %3
)"),
      R"(input %0 "x": float32[2]
#0 %1: float32[2] = aten::mul.Tensor(%0, 2) in ""
#1 %2: float32[2] = aten::relu(%1) in ""
#2 %3: float32[2] = aten::add.Tensor(%2, %0, 1) in ""
#3 %4: float32[2] = aten::exp(%3) in ""
#4 %5: float32[2] = aten::exp(%3) in ""
output "y" %4
output "z" %3
output "w" %3
)");
}

TEST(Functional, LeavesWhatSomebodyCouldTell) {
  const std::string same[] = {// A view that was made before is read behind.
                              R"(input %0 "x": float32[2]
#0 %1: float32[2] = aten::mul.Tensor(%0, 2) in ""
#1 %2: float32[1, 2] = aten::unsqueeze(%1, 0) in ""
#2 %3: float32[2] = aten::relu_(%1) in ""
output "y" %2
)",
                              // A state keeps what is written.
                              R"(input %0 "x": float32[2]
state %1 "mean" shared: float32[2]
#0 %2: float32[2] = aten::add_.Tensor(%1, %0, 1) in ""
output "y" %2
)",
                              // Out of place it would promote, or give booleans.
                              R"(input %0 "x": bfloat16[2]
input %1 "z": float32[2]
#0 %2: bfloat16[2] = aten::mul.Tensor(%0, 2) in ""
#1 %3: bfloat16[2] = aten::add_.Tensor(%2, %1, 1) in ""
output "y" %3
)",
                              R"(input %0 "x": float32[2]
#0 %1: float32[2] = aten::mul.Tensor(%0, 2) in ""
#1 %2: float32[2] = aten::lt_.Scalar(%1, 0) in ""
output "y" %2
)",
                              // Autocast treats the two forms differently.
                              R"(input %0 "x": float32[2]
#0 %1: float32[2] = aten::mul.Tensor(%0, 2) in ""
#1 %2: float32[2] = aten::relu_(%1) autocast(bfloat16, true, true, 0) in ""
output "y" %2
)",
                              // Nothing is known of the shape.
                              R"(input %0 "x": float32[2]
#0 %1: float32 = aten::mul.Tensor(%0, 2) in ""
#1 %2: float32 = aten::relu_(%1) in ""
output "y" %2
)"};
  for (const std::string& body : same) {
    EXPECT_EQ(rewritten(body), body);
  }
}

// Random programs of views, operators in place and reads give the same values, to the bit.
TEST(Functional, RandomProgramsGiveTheSame) {
  int changed = 0;
  const int count = test::fuzz_count(500);
  for (int seed = 0; seed < count; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::string body = "input %0 \"x\": float32[2, 3]\n#0 %1: float32[2, 3] = aten::mul.Tensor(%0, 2) in \"\"\n";
    int next = 2;
    std::vector<int> square = {1};  // values of [2, 3] that may be written
    std::vector<int> flat;          // of [6]
    const auto pick = [&](const std::vector<int>& from) { return from[test::draw(random, from.size())]; };
    for (size_t i = 1; i < 12; ++i) {
      const size_t kind = test::draw(random, flat.empty() ? 5 : 7);
      std::string call;
      const bool to_flat = kind == 3 || kind >= 5;
      switch (kind) {
        case 0:
          call = fmt::format("aten::add_.Tensor(%{}, %{}, 1)", pick(square), pick(square));
          break;
        case 1:
          call = fmt::format("aten::tanh_(%{})", pick(square));
          break;
        case 2:
          call = fmt::format("aten::mul.Tensor(%{}, %{})", pick(square), pick(square));
          break;
        case 3:
          call = fmt::format("aten::view(%{}, ints[6])", pick(square));
          break;
        case 4:
          call = fmt::format("aten::sub_.Tensor(%{}, 0.5, 1)", pick(square));
          break;
        case 5:
          call = fmt::format("aten::mul_.Scalar(%{}, 1.5)", pick(flat));
          break;
        default:
          call = fmt::format("aten::sigmoid_(%{})", pick(flat));
      }
      body += fmt::format("#{} %{}: float32{} = {} in \"\"\n", i, next, to_flat ? "[6]" : "[2, 3]", call);
      (to_flat ? flat : square).push_back(next++);
    }
    for (int i = 0; i < 3; ++i) {
      body += fmt::format("output \"{}\" %{}\n", i, 1 + test::draw(random, static_cast<size_t>(next - 1)));
    }
    const graph::Graph before = graph::parse("shardpipe-graph 1\n" + body, "test");
    graph::Graph after = before;
    make_functional(after);
    graph::verify(after, "make_functional");
    changed += graph::print(after) != graph::print(before) ? 1 : 0;
    std::vector<std::vector<at::Tensor>> results;
    for (const graph::Graph* graph : std::initializer_list<const graph::Graph*>{&before, &after}) {
      graph::Executor executor(*graph);
      executor.set(0, at::arange(6, at::kFloat).view({2, 3}) / 7);
      executor.run();
      auto& outputs = results.emplace_back();
      for (const graph::Output& output : graph->outputs) {
        outputs.push_back(executor.get(output.value).toTensor());
      }
    }
    for (size_t i = 0; i < results[0].size(); ++i) {
      ASSERT_TRUE(at::equal(results[0][i], results[1][i])) << i << "\n" << body;
    }
  }
  EXPECT_GT(changed, count / 3);
}

}  // namespace
}  // namespace shardpipe::pt2
