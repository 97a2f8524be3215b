#include "plan/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/text.h"
#include "plan/rates.h"

namespace shardpipe::plan {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// x [n, 4] through four layers, each a product with a weight [4, 4]; the first and the last share theirs. What the
// second gives goes on to the third and to the last one; a function of the input is needed by the second and the last.
ModelDescription four_layers() {
  std::string text = "shardpipe-graph 1\ndimension n\ninput %0 \"x\": float32[n, 4]\n";
  for (int i = 0; i < 3; ++i) {
    text += fmt::format("parameter %{} \"layers.{}.weight\": float32[4, 4]\n", i + 1, i);
  }
  for (int i = 0; i < 4; ++i) {
    text += fmt::format("module \"layers.{}\" \"Layer\"\n", i);
  }
  ModelDescription model;
  model.family = "toy";
  model.graph = graph::parse(
      text +
          "#0 %4: float32[n, 4] = aten::neg(%0) in \"\"\n"
          "#1 %5: float32[n, 4] = aten::linear(%0, %1, none) in \"layers.0\"\n"
          "#2 %6: float32[n, 4] = aten::linear(%5, %2, none) in \"layers.1\"\n"
          "#3 %7: float32[n, 4] = aten::mul.Tensor(%6, %4) in \"layers.1\"\n"
          "#4 %8: float32[n, 4] = aten::linear(%7, %3, none) in \"layers.2\"\n"
          "#5 %9: float32[n, 4] = aten::linear(%8, %1, none) in \"layers.3\"\n"
          "#6 %10: float32[n, 4] = aten::mul.Tensor(%9, %4) in \"layers.3\"\n"
          "#7 %11: float32[n, 4] = aten::add.Tensor(%10, %7, 1) in \"layers.3\"\n"
          "output \"y\" %11\n",
      "toy");
  return model;
}

Plan make(int pp, const std::vector<std::string>& cuts = {}) {
  PlanOptions options;
  options.layout.pp = pp;
  options.layout.cuts = cuts;
  options.threads = 1;
  options.kernels = "reference";
  return make_plan(four_layers(), options);
}

// A layer's product takes a second, nothing else takes time, messages neither.
Forecast seconds_of_products(const std::string& step, int microbatches) {
  Forecast forecast;
  forecast.model = "four layers";
  forecast.program = "forward";
  forecast.cores = 8;
  forecast.steps = [step, microbatches](const Plan& plan) {
    return std::vector<Step>{{step, std::min(microbatches, plan.layout.pp), 1, {}, {{"n", 3}}}};
  };
  forecast.costs = [](const Step&, int pp, int) {
    const graph::Graph graph = four_layers().graph;
    StepCosts costs{{{}, std::vector<double>(graph.nodes.size() + 1, 0)}, static_cast<double>(pp)};
    for (const graph::Node& node : graph.nodes) {
      costs.nodes.compute.push_back(node.op_name() == "aten::linear" ? 1 : 0);
    }
    return costs;
  };
  forecast.rates = [](int) {
    partition::Rates rates;
    rates.bytes_per_second = 192;
    rates.message_seconds = 0;
    rates.transfer_bytes_per_second = 96;
    return rates;
  };
  forecast.threads = [](int) { return 1; };
  forecast.outline = [](int) { return std::nullopt; };
  return forecast;
}

TEST(Explain, CountsWhatEachStageHoldsAndComputes) {
  const Explanation e = explain(make(2), seconds_of_products("forward", 2));
  EXPECT_EQ(e.parameters, 3 * 16);
  EXPECT_EQ(e.parameter_bytes, 3 * 64);
  EXPECT_EQ(e.layer_class, "Layer");
  ASSERT_EQ(e.stages.size(), 2U);
  for (const StageReport& stage : e.stages) {
    EXPECT_EQ(stage.layers, 2);
    EXPECT_EQ(stage.parameters, 2 * 16) << "a tied one counts in both";
    EXPECT_EQ(stage.weight_bytes, 2 * 64);
    EXPECT_EQ(stage.repeated_operators, 1) << "neg";
    EXPECT_THAT(stage.cache_bytes, ElementsAre(0));
    EXPECT_THAT(stage.forward_s, ElementsAre(2));
  }
  EXPECT_EQ(e.stages[0].first_layer, "layers.0");
  EXPECT_EQ(e.stages[0].last_layer, "layers.1");
  EXPECT_EQ(e.stages[1].first_layer, "layers.2");
  // 2 m n k a product, and one for each element of neg, mul and add.
  EXPECT_THAT(e.stages[0].flops, ElementsAre(2 * 2 * 3 * 4 * 4 + 2 * 12));
  EXPECT_THAT(e.stages[1].flops, ElementsAre(2 * 2 * 3 * 4 * 4 + 3 * 12));
  // x, neg and the first product; x, neg, what arrives, and a product and what it came from.
  EXPECT_THAT(e.stages[0].activation_bytes, ElementsAre(3 * 48));
  EXPECT_THAT(e.stages[1].activation_bytes, ElementsAre(4 * 48));
  ASSERT_EQ(e.shared.size(), 1U);
  EXPECT_EQ(e.shared[0].name, "layers.0.weight");
  EXPECT_THAT(e.shared[0].stages, ElementsAre(0, 1));
  std::map<std::string, int64_t> operators;
  for (const OperatorReport& report : e.operators) {
    operators[report.name] = report.count;
  }
  EXPECT_EQ(
      operators, (std::map<std::string, int64_t>{{"aten::add.Tensor", 1}, {"aten::mul.Tensor", 2}, {"aten::neg", 1}}));
}

TEST(Explain, ListsTheEdgesWithTheirSizes) {
  const Explanation e = explain(make(3, {"layers.1", "layers.2"}), seconds_of_products("forward", 1));
  ASSERT_EQ(e.edges.size(), 3U);
  std::vector<std::pair<int, int>> stages;
  for (const EdgeReport& edge : e.edges) {
    stages.emplace_back(edge.from_stage, edge.to_stage);
    EXPECT_EQ(edge.dtype, "float32");
    EXPECT_EQ(edge.shape, "[n, 4]");
    EXPECT_THAT(edge.sizes, ElementsAre(ElementsAre(3, 4)));
    EXPECT_THAT(edge.bytes, ElementsAre(48));
    EXPECT_THAT(edge.transfer_s, ElementsAre(0.5));
  }
  EXPECT_THAT(stages, ElementsAre(std::pair(0, 1), std::pair(0, 2), std::pair(1, 2)));
  EXPECT_EQ(e.edges[1].value, "edge.7") << "a skip connection";
  EXPECT_EQ(e.edges[1].module, "layers.1");
  EXPECT_EQ(e.split, "cuts");
}

TEST(Explain, PredictsAStepBySimulation) {
  const StepReport two = explain(make(2), seconds_of_products("forward", 2)).steps[0];
  // Stage 1 starts when the first microbatch is done and sent, and waits for nothing after it.
  EXPECT_DOUBLE_EQ(two.step_s, 2 + 0.5 + 2 + 2);
  EXPECT_DOUBLE_EQ(two.bubble, 1 - 8 / (2 * 6.5));
  EXPECT_DOUBLE_EQ(two.balance, 1);
  const StepReport three = explain(make(3, {"layers.1", "layers.2"}), seconds_of_products("forward", 1)).steps[0];
  EXPECT_DOUBLE_EQ(three.step_s, 2 + 0.5 + 1 + 0.5 + 1);
  EXPECT_DOUBLE_EQ(three.balance, (2 + 1 + 1) / 3.0 / 2);
  EXPECT_EQ(three.bottleneck, 0);
}

TEST(Explain, LanesOfADecodeStepOverlapWithTheNext) {
  // One lane: through both stages, and a message between them.
  EXPECT_DOUBLE_EQ(explain(make(2), seconds_of_products("decode", 1)).steps[0].step_s, 2 + 0.5 + 2);
  // Two lanes keep the ranks busy but for the message.
  const StepReport two = explain(make(2), seconds_of_products("decode", 2)).steps[0];
  EXPECT_DOUBLE_EQ(two.step_s, 4.5);
  EXPECT_DOUBLE_EQ(two.bubble, 1 - 8 / (2 * 4.5));
}

TEST(Explain, RanksShareTheHost) {
  Forecast forecast = seconds_of_products("forward", 2);
  // Together they do no more than one: only the message is hidden.
  forecast.costs = [costs = forecast.costs](const Step& step, int pp, int threads) {
    StepCosts made = costs(step, pp, threads);
    made.together = 1;
    return made;
  };
  const StepReport forward = explain(make(2), forecast).steps[0];
  EXPECT_DOUBLE_EQ(forward.step_s, 8);
  EXPECT_DOUBLE_EQ(forward.together, 1);
  EXPECT_DOUBLE_EQ(forward.bubble, 0.5);
  forecast.steps = seconds_of_products("decode", 2).steps;
  EXPECT_NEAR(explain(make(2), forecast).steps[0].step_s, 8, 1e-9);
}

TEST(Explain, CountsTheChoiceOfTokensAndTheWayOfTheOutputs) {
  Forecast forecast = seconds_of_products("decode", 1);
  forecast.steps = [steps = forecast.steps](const Plan& plan) {
    std::vector<Step> made = steps(plan);
    made[0].choice_s = 0.25;
    return made;
  };
  EXPECT_DOUBLE_EQ(explain(make(1), forecast).steps[0].step_s, 4 + 0.25);
  EXPECT_DOUBLE_EQ(explain(make(2), forecast).steps[0].step_s, 2 + 0.5 + 2 + 0.25);
  // A message to the second stage and one with the tokens back, each taking 0.1 s at both its ends.
  forecast.rates = [rates = forecast.rates](int threads) {
    partition::Rates made = rates(threads);
    made.message_busy_seconds = 0.2;
    return made;
  };
  EXPECT_DOUBLE_EQ(explain(make(1), forecast).steps[0].step_s, 4 + 0.25);
  EXPECT_NEAR(explain(make(2), forecast).steps[0].step_s, 2 + 0.5 + 2 + 0.25 + 4 * 0.1, 1e-9);

  // y is [3, 4] float32, 48 bytes a microbatch: of two 0.5 s to join, of two from another rank 1 s to send.
  forecast = seconds_of_products("forward", 2);
  const auto with_outputs = [&](int pp) {
    forecast.steps = [pp](const Plan&) {
      Step step{"forward", pp, 1, {}, {{"n", 3}}};
      step.joins_outputs = true;
      return std::vector<Step>{step};
    };
    return explain(make(pp), forecast).steps[0].step_s;
  };
  EXPECT_DOUBLE_EQ(with_outputs(1), 4);
  EXPECT_DOUBLE_EQ(with_outputs(2), 6.5 + 2 * 96 / 192.0 + 96 / 96.0);
}

TEST(Explain, LayersAddUpToTheStages) {
  const Explanation e = explain(make(2), seconds_of_products("forward", 1));
  std::vector<std::string> names;
  std::vector<double> seconds(2, 0);
  for (const LayerReport& layer : e.layers) {
    names.push_back(layer.name);
    seconds[static_cast<size_t>(layer.stage)] += layer.forward_s[0];
  }
  EXPECT_THAT(names, ElementsAre("(no module)", "layers.0", "layers.1", "layers.2", "layers.3"));
  EXPECT_EQ(e.layers[1].parameters, 16);
  EXPECT_THAT(e.layers[1].flops, ElementsAre(96));
  for (const StageReport& stage : e.stages) {
    EXPECT_DOUBLE_EQ(seconds[static_cast<size_t>(stage.stage)], stage.forward_s[0]);
  }
}

TEST(Explain, SaysWhenFewerRanksAreFaster) {
  const Plan plan = make(3, {"layers.1", "layers.2"});
  Forecast forecast = seconds_of_products("forward", 1);
  PlanOptions options;
  options.layout = plan.layout;
  forecast.outline = [&](int pp) { return std::optional(outline(plan, options, pp)); };
  const Explanation e = explain(plan, forecast);
  ASSERT_EQ(e.alternatives.size(), 2U);
  EXPECT_EQ(e.alternatives[0].pp, 1);
  EXPECT_DOUBLE_EQ(e.alternatives[0].request_s, 4);
  EXPECT_DOUBLE_EQ(e.request_s, 5);
  EXPECT_THAT(e.remark, HasSubstr("--pp 1 would be faster on this host of 8 cores: 4.00 s instead of 5.00 s"));
  EXPECT_THAT(to_text(e), HasSubstr(e.remark));
  EXPECT_EQ(to_json(e)["remark"], e.remark);
  // With eight times the threads each rank is as fast as the pipeline is long: nothing to say.
  forecast.costs = [costs = forecast.costs](const Step& step, int pp, int threads) {
    StepCosts made = costs(step, pp, threads);
    for (double& seconds : made.nodes.compute) {
      seconds *= threads;
    }
    return made;
  };
  forecast.threads = [](int pp) { return pp == 3 ? 1 : 8; };
  EXPECT_EQ(explain(plan, forecast).remark, "");
}

TEST(Explain, WritesJsonTextAndPage) {
  Explanation e = explain(make(2), seconds_of_products("forward", 2));
  e.model = "a <b> & c";
  e.missing_weights = "model.safetensors";
  const Json json = to_json(e);
  EXPECT_EQ(json["stages"][1]["steps"]["forward"]["flops"], e.stages[1].flops[0]);
  EXPECT_EQ(json["edges"][0]["steps"]["forward"]["shape"], (Json{3, 4}));
  EXPECT_EQ(json["missing_weights"], "model.safetensors");
  const std::string text = to_text(e);
  EXPECT_THAT(text, HasSubstr("layers.2 - layers.3"));
  EXPECT_THAT(text, HasSubstr("The weights are not there"));
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    EXPECT_LE(end - begin, 100U) << text.substr(begin, end - begin);
    begin = end + 1;
  }
  const std::string page = to_html(e);
  EXPECT_THAT(page, HasSubstr("a &lt;b&gt; &amp; c"));
  EXPECT_EQ(page.find("<b> & c"), std::string::npos);
}

TEST(Rates, AreThoseOfThisMachine) {
  const partition::Rates rates = measure_rates(at::kFloat, 1, std::nullopt);
  EXPECT_GT(rates.flops_per_second, 1e8);
  EXPECT_LT(rates.flops_per_second, 1e13);
  EXPECT_GT(rates.bytes_per_second, 1e8);
  EXPECT_LT(rates.bytes_per_second, 1e12);
  EXPECT_GT(rates.node_seconds, 1e-8);
  EXPECT_LT(rates.node_seconds, 1e-3);
}

TEST(Rates, OfRanksThatShareAHost) {
  partition::Rates one;
  one.flops_per_second = 10;
  one.bytes_per_second = 10;
  partition::Rates host;
  host.flops_per_second = 40;
  host.bytes_per_second = 12;
  EXPECT_DOUBLE_EQ(shared_rates(one, host, 1).bytes_per_second, 10);
  EXPECT_DOUBLE_EQ(shared_rates(one, host, 2).bytes_per_second, 6) << "memory is shared";
  EXPECT_DOUBLE_EQ(shared_rates(one, host, 2).flops_per_second, 10);
  EXPECT_DOUBLE_EQ(shared_rates(one, host, 8).flops_per_second, 5) << "more ranks than cores";
}

}  // namespace
}  // namespace shardpipe::plan
