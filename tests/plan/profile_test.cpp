#include "plan/profile.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "graph/text.h"

namespace shardpipe::plan {
namespace {

using ::testing::HasSubstr;

// Five products, the fourth of them with a weight that the cost model takes for as heavy as the others', and that is
// applied again and again.
graph::Graph layers(int heavy, int repeats) {
  std::string text = "shardpipe-graph 1\ndimension n\ninput %0 \"x\": float32[n, 64]\n";
  std::string nodes;
  int value = 100;
  int node = 0;
  int last = 0;
  for (int layer = 0; layer < 5; ++layer) {
    text += fmt::format("parameter %{} \"layers.{}.weight\": float32[64, 64]\n", layer + 1, layer);
    text += fmt::format("module \"layers.{}\" \"Layer\"\n", layer);
    for (int i = 0; i < (layer == heavy ? repeats : 1); ++i, ++node, last = value++) {
      nodes += fmt::format(
          "#{} %{}: float32[n, 64] = aten::linear(%{}, %{}, none) in \"layers.{}\"\n", node, value, last, layer + 1,
          layer);
    }
  }
  return graph::parse(text + nodes + fmt::format("output \"y\" %{}\n", last), "layers");
}

TEST(Profile, TimesEachLayer) {
  const graph::Graph graph = layers(3, 40);
  std::vector<std::string> loaded;
  const partition::Costs costs = measure_costs(graph, {}, {{"n", 256}}, [&](const graph::Value& value) {
                                   loaded.push_back(value.name);
                                   return at::rand({64, 64}) / 64;
                                 }).costs;
  EXPECT_EQ(loaded.size(), 5U);
  ASSERT_EQ(costs.compute.size(), graph.nodes.size());
  double light = 0;
  double heavy = 0;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    EXPECT_GT(costs.compute[n], 0);
    (graph.nodes[n].module == "layers.3" ? heavy : light) += costs.compute[n];
  }
  EXPECT_GT(heavy, light) << "40 products against 4";
  EXPECT_LT(heavy, 10) << "seconds";
}

// For the cost model all operators on numbers one by one cost the same; the profile sees that some are slow.
TEST(Profile, SeesWhatTheModelDoesNot) {
  std::string text =
      "shardpipe-graph 1\ndimension n\ninput %0 \"x\": float32[n]\n"
      "parameter %1 \"a.weight\": float32[1]\nparameter %2 \"b.weight\": float32[1]\n"
      "module \"a\" \"A\"\nmodule \"b\" \"B\"\n";
  constexpr int kEach = 20;
  for (int n = 0; n < 2 * kEach; ++n) {
    const bool slow = n >= kEach;
    const std::string argument = fmt::format("%{}", n == 0 ? 0 : 2 + n);
    text += n % kEach == 0
                ? fmt::format("#{} %{}: float32[n] = aten::mul.Tensor({}, %{})", n, 3 + n, argument, slow ? 2 : 1)
                : fmt::format("#{} %{}: float32[n] = aten::{}({})", n, 3 + n, slow ? "digamma" : "neg", argument);
    text += fmt::format(" in \"{}\"\n", slow ? "b" : "a");
  }
  const graph::Graph graph = graph::parse(text + fmt::format("output \"y\" %{}\n", 2 + 2 * kEach), "test");
  const auto load = [](const graph::Value&) { return at::full({1}, 0.5); };
  const std::map<std::string, at::Tensor> inputs = {{"x", at::rand({1 << 13})}};
  const auto ratio = [&](const partition::Costs& costs) {
    const auto middle = costs.compute.begin() + kEach;
    return std::accumulate(middle, costs.compute.end(), 0.0) / std::accumulate(costs.compute.begin(), middle, 0.0);
  };
  EXPECT_NEAR(ratio(partition::cost_model(graph, dimensions_of(graph, inputs))), 1, 1e-6);
  EXPECT_GT(ratio(measure_costs(graph, inputs, {}, load).costs), 2) << "digamma takes 20 times as long as neg";
}

TEST(Profile, RunsPartsOfTheLayersAtTheSameTime) {
  const graph::Graph graph = layers(3, 8);
  const auto load = [](const graph::Value&) { return at::rand({64, 64}) / 64; };
  EXPECT_EQ(measure_costs(graph, {}, {{"n", 64}}, load).together, 1);
  for (const int ranks : {2, 3, 5, 9}) {
    const Profile profile = measure_costs(graph, {}, {{"n", 64}}, load, ranks);
    EXPECT_GE(profile.together, 1) << ranks;
    EXPECT_LE(profile.together, std::min(ranks, 5)) << "there are five layers";
    EXPECT_GT(profile.costs.compute[0], 0);
  }
}

TEST(Profile, DimensionsFollowFromTheExample) {
  const graph::Graph graph = graph::parse(
      "shardpipe-graph 1\ndimension n\ndimension m\ndimension k\ninput %0 \"x\": float32[2*n+1, m]\n"
      "input %1 \"y\": float32[k]\n#0 %2: float32[2*n+1, m] = aten::neg(%0) in \"\"\noutput \"z\" %2\n",
      "test");
  const auto known = dimensions_of(graph, {{"x", at::zeros({7, 5})}}, {{"k", 9}, {"m", 1}});
  EXPECT_EQ(known, (graph::Dimensions{{"n", 3}, {"m", 5}, {"k", 9}}));
}

TEST(Profile, SaysWhenTheExampleCannotBeRun) {
  const graph::Graph graph = layers(0, 1);
  try {
    measure_costs(graph, {{"x", at::zeros({2, 3})}}, {}, [](const graph::Value&) { return at::zeros({64, 64}); });
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    EXPECT_THAT(error.message(), HasSubstr("--profile: the example cannot be run"));
    EXPECT_THAT(error.hint(), HasSubstr("leave out --profile"));
  }
}

}  // namespace
}  // namespace shardpipe::plan
