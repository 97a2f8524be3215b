#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/text.h"
#include "plan/layout_json.h"
#include "support/errors.h"
#include "tensor/collectives.h"

namespace shardpipe::plan {
namespace {

using test::error_of;
using ::testing::HasSubstr;

ModelDescription toy() {
  std::string text = "shardpipe-graph 1\ndimension n\ninput %0 \"x\": float32[n, 4]\n";
  std::string nodes;
  for (int i = 0; i < 5; ++i) {
    text += fmt::format("parameter %{} \"layers.{}.weight\": float32[4, 4]\n", i + 1, i);
    text += fmt::format("module \"layers.{}\" \"Layer\"\n", i);
    nodes += fmt::format(
        "#{} %{}: float32[n, 4] = aten::linear(%{}, %{}, none) in \"layers.{}\"\n", i, 10 + i, i == 0 ? 0 : 9 + i,
        i + 1, i);
  }
  ModelDescription model;
  model.checkpoints = {"/models/toy"};
  model.family = "toy";
  model.graph = graph::parse(text + nodes + "output \"y\" %14\n", "toy");
  for (int i = 0; i < 5; ++i) {
    const std::string name = fmt::format("layers.{}.weight", i);
    model.weights[name] = {0, "transformer." + name};
  }
  return model;
}

PlanOptions options(int pp) {
  PlanOptions options;
  options.layout.pp = pp;
  options.threads = 1;
  return options;
}

TEST(Plan, SaysWhatEachStageHolds) {
  const Plan plan = make_plan(toy(), options(2));
  EXPECT_EQ(plan.stages.graphs.size(), 2U);
  EXPECT_EQ(plan.parameter_bytes({0}), 2 * 64);
  EXPECT_EQ(plan.parameter_bytes({1}), 3 * 64);
  EXPECT_EQ(plan.stage_edges(), (schedule::StageEdges{{0, 1}}));
}

TEST(Plan, GivesARankSeveralStages) {
  PlanOptions chosen = options(2);
  chosen.layout.virtual_stages = 2;
  const Plan plan = make_plan(toy(), chosen);
  EXPECT_EQ(plan.num_stages(), 4);
  EXPECT_EQ(plan.stages.graphs.size(), 4U);
  EXPECT_EQ(plan.stages_of_rank(1), (std::vector<int>{1, 3}));
  EXPECT_EQ(plan.parameter_bytes(plan.stages_of_rank(0)), 2 * 64);
  EXPECT_EQ(plan.parameter_bytes(plan.stages_of_rank(1)), 3 * 64);
  EXPECT_EQ(plan.schedule(1, false).rank_of_stage, (std::vector<int>{0, 1, 0, 1}));
  EXPECT_EQ(serialize(parse(serialize(plan), "test")), serialize(plan));
}

TEST(Plan, KeepsToTheMemoryOfARankWithSeveralStages) {
  PlanOptions chosen = options(2);
  chosen.layout.virtual_stages = 2;
  chosen.layout.split = "balanced";
  const CostFunction costs = [](const Plan& plan) {
    // The first operator takes all the time: the stages after it are as they come.
    partition::Costs made{std::vector<double>(plan.graph.nodes.size(), 0), {}};
    made.compute[0] = 1;
    made.transfer.resize(plan.graph.nodes.size() + 1);
    return made;
  };
  for (const int64_t limit : {int64_t{0}, int64_t{192}}) {
    chosen.layout.memory_bytes = limit;
    const Plan plan = make_plan(toy(), chosen, costs);
    for (int rank = 0; rank < 2 && limit > 0; ++rank) {
      EXPECT_LE(plan.parameter_bytes(plan.stages_of_rank(rank)), limit);
    }
  }
  chosen.layout.memory_bytes = 128;
  const Error error = error_of([&] { make_plan(toy(), chosen, costs); });
  EXPECT_THAT(error.message(), HasSubstr("--pp 2 --virtual 2: no cut into 4 stages keeps to --memory"));
  EXPECT_THAT(error.hint(), HasSubstr("this is for 4 stages"));
}

TEST(Plan, SurvivesItsText) {
  for (const char* kernels : {"auto", "reference"}) {
    PlanOptions chosen = options(3);
    chosen.kernels = kernels;
    chosen.layout.cuts = {"layers.0", "<layers.3"};
    chosen.layout.chunks = 4;
    const Plan plan = make_plan(toy(), chosen);
    const std::string text = serialize(plan);
    const Plan read = parse(text, "test");
    EXPECT_EQ(serialize(read), text);
    EXPECT_EQ(read.stages.edges, plan.stages.edges);
    EXPECT_EQ(read.choice, plan.choice);
    EXPECT_EQ(read.weights, plan.weights);
    for (size_t stage = 0; stage < 3; ++stage) {
      EXPECT_EQ(graph::print(read.stages.graphs[stage]), graph::print(plan.stages.graphs[stage]));
    }
  }
}

// Parts that are not the same: 3 + 1 of 4 columns.
Plan uneven() {
  Plan plan;
  plan.layout.tp = 2;
  plan.layout.pp = 2;
  plan.layout.tp_plan["layers.*"] = {TensorPin::Style::colwise, true, false};
  for (const int64_t columns : {3, 1}) {
    const std::string text = fmt::format(
        "shardpipe-graph 1\ndimension n\ninput %0 \"x\": float32[n, 4]\n"
        "parameter %1 \"a\": float32[{0}, 4]\nparameter %2 \"b\": float32[4, 4]\n"
        "#0 %3: float32[n, {0}] = aten::linear(%0, %1, none) in \"m\"\n"
        "#1 %4: float32[n, 4] = shardpipe::all_gather(%3, 1, ints[4], ints[3, 1], \"tp\") in \"m\"\n"
        "#2 %5: float32[n, 4] = aten::linear(%4, %2, none) in \"m\"\noutput \"y\" %5\n",
        columns);
    plan.parts.push_back(graph::parse(text, "uneven"));
  }
  plan.shards["a"] = {0, {4}, {3, 1}};
  plan.graph = plan.parts.front();
  plan.cuts = {2};
  plan.stages = partition::cut(plan.graph, plan.cuts);
  return plan;
}

TEST(Plan, SelectsAPart) {
  tensor::register_collectives();
  Plan plan = uneven();
  EXPECT_EQ(plan.parameter_bytes({0}), 48);
  EXPECT_EQ(graph::to_string(plan.whole_shape(plan.graph.values[1]).value()), "[4, 4]");
  plan.select_part(1);
  EXPECT_EQ(plan.parameter_bytes({0}), 16);
  EXPECT_EQ(plan.parameter_bytes({1}), 64);
  EXPECT_EQ(graph::to_string(plan.graph.values[1].shape.value()), "[1, 4]");
  EXPECT_EQ(graph::to_string(plan.whole_shape(plan.graph.values[1]).value()), "[4, 4]");
  EXPECT_EQ(graph::to_string(plan.whole_shape(plan.graph.values[2]).value()), "[4, 4]");
}

TEST(Plan, SurvivesItsTextWithParts) {
  tensor::register_collectives();
  const Plan plan = uneven();
  Plan read = parse(serialize(plan), "test");
  EXPECT_EQ(serialize(read), serialize(plan));
  EXPECT_EQ(read.shards, plan.shards);
  EXPECT_EQ(read.layout.tp_plan, plan.layout.tp_plan);
  read.select_part(1);
  EXPECT_EQ(graph::print(read.graph), graph::print(plan.parts[1]));
  EXPECT_EQ(read.stages.edges, plan.stages.edges);
}

TEST(Plan, RunsOnAMeshOfAllAxes) {
  PlanOptions chosen = options(2);
  chosen.layout.dp = 3;
  chosen.layout.tp = 2;
  const Plan plan = make_plan(toy(), chosen);
  EXPECT_EQ(plan.mesh().world_size(), 12);
  EXPECT_EQ(serialize(parse(serialize(plan), "test")), serialize(plan));
}

TEST(Plan, ReadsPins) {
  const auto read = [](const char* text) { return tp_plan_from_json(parse_json(text, "f.json"), "f.json"); };
  const std::map<std::string, TensorPin> pins = {
      {"a.*", {TensorPin::Style::colwise, true, true}},
      {"b", {TensorPin::Style::rowwise, false, false}},
      {"c", {TensorPin::Style::vocab, false, true}},
      {"d", {TensorPin::Style::replicate, false, true}}};
  EXPECT_EQ(
      read(R"({"a.*": {"style": "colwise", "gather_output": true}, "c": "vocab", "d": "replicate",
               "b": {"style": "rowwise", "input_is_parallel": false}})"),
      pins);
  EXPECT_EQ(tp_plan_from_json(tp_plan_to_json(pins), "again"), pins);
  const auto refused = [&](const char* text) { return error_of([&] { read(text); }); };
  EXPECT_EQ(refused("[1]").code(), ErrorCode::input);
  EXPECT_THAT(refused("[1]").message(), HasSubstr("f.json must hold one JSON object"));
  EXPECT_EQ(refused(R"({"a": "columns"})").code(), ErrorCode::usage);
  EXPECT_THAT(
      refused(R"({"a": "columns"})").message(),
      HasSubstr("f.json: \"a\" is pinned to \"columns\", must be colwise, rowwise, replicate or vocab"));
  EXPECT_THAT(refused(R"({"a": 3})").message(), HasSubstr("is pinned to 3"));
  EXPECT_THAT(refused(R"({"a": {"gather_output": true}})").message(), HasSubstr("\"a\" lacks \"style\""));
  EXPECT_THAT(
      refused(R"({"a": {"style": "colwise", "gather": true}})").message(),
      HasSubstr("\"a\" has \"gather\", a pin has"));
  EXPECT_THAT(
      refused(R"({"a": {"style": "colwise", "gather_output": 1}})").message(), HasSubstr("has \"gather_output\""));
}

TEST(Plan, RefusesDamagedText) {
  const std::string text = serialize(make_plan(toy(), options(2)));
  EXPECT_THAT(error_of([&] { parse("hello", "p"); }).message(), HasSubstr("p is not a plan"));
  EXPECT_THAT(error_of([&] { parse("shardpipe-plan 99 00\n", "p"); }).message(), HasSubstr("another version"));
  for (const size_t at : {text.size() - 3, text.find("checkpoints") + 17, text.find("linear")}) {
    std::string damaged = text;
    damaged[at] = damaged[at] == 'x' ? 'y' : 'x';
    EXPECT_THAT(error_of([&] { parse(damaged, "p"); }).message(), HasSubstr("p is damaged: its hash"));
  }
  EXPECT_THAT(error_of([&] { parse(text.substr(0, text.size() / 2), "p"); }).message(), HasSubstr("damaged"));
  EXPECT_EQ(error_of([&] { parse(text.substr(0, 20), "p"); }).code(), ErrorCode::input);
}

TEST(Plan, FollowsTheSplitPolicy) {
  const auto cuts = [](auto change) {
    PlanOptions chosen = options(2);
    chosen.kernels = "reference";
    change(chosen);
    return make_plan(toy(), chosen).cuts;
  };
  using Cuts = partition::CutPoints;
  EXPECT_EQ(cuts([](PlanOptions&) {}), Cuts{2});
  EXPECT_EQ(cuts([](PlanOptions& o) { o.layout.split = "equal_size"; }), Cuts{2});
  EXPECT_EQ(cuts([](PlanOptions& o) { o.layout.split = "threshold:256"; }), Cuts{4});
  EXPECT_EQ(cuts([](PlanOptions& o) { o.layout.memory_bytes = 192; }), Cuts{2});
  EXPECT_EQ(cuts([](PlanOptions& o) { o.layout.split = "balanced"; }).size(), 1U);
  const SplitFunction own = [](const std::vector<std::string>& modules, int stages) {
    EXPECT_EQ(modules.size(), 5U);
    EXPECT_EQ(stages, 2);
    return std::vector<std::string>{modules.at(0)};
  };
  EXPECT_EQ(cuts([&](PlanOptions& o) { o.split = own; }), Cuts{1});
}

struct Impossible {
  std::function<void(PlanOptions&)> change;
  const char* message;
};

TEST(Plan, RefusesLayoutsBeforeAnythingIsLoaded) {
  const std::vector<Impossible> cases = {
      {[](PlanOptions& o) { o.layout.pp = 6; }, "6 stages (--pp) for a model of 5 layers"},
      {[](PlanOptions& o) { o.layout.virtual_stages = 3; }, "--pp 2 --virtual 3: 6 stages (--pp) for a model of 5"},
      {[](PlanOptions& o) { o.layout.virtual_stages = -1; }, "--virtual is -1"},
      {[](PlanOptions& o) { o.layout.profile = true; }, "--profile measures what --split balanced balances"},
      {[](PlanOptions& o) { o.layout.pp = 0; }, "--pp is 0"},
      {[](PlanOptions& o) { o.layout.tp = 0; }, "--tp is 0"},
      {[](PlanOptions& o) { o.layout.tp = 5; },
       "--tp 5 is wider than anything to shard: no dimension of a weight is above 4"},
      {[](PlanOptions& o) { o.layout.dp = 0; }, "--dp is 0"},
      {[](PlanOptions& o) { o.layout.tp_plan["layers.*"] = {}; }, "--tp-plan pins what --tp divides, and --tp is 1"},
      {[](PlanOptions& o) { o.layout.chunks = -1; }, "--chunks is -1"},
      {[](PlanOptions& o) { o.layout.split = "odd"; }, "--split \"odd\""},
      {[](PlanOptions& o) { o.layout.split = "threshold:64"; }, "--split threshold:64 gives 5 stages, --pp is 2"},
      {[](PlanOptions& o) { o.layout.split = "threshold:x"; }, "--split threshold is \"x\""},
      {[](PlanOptions& o) { o.layout.memory_bytes = -1; }, "--memory is -1"},
      {[](PlanOptions& o) { o.layout.memory_bytes = 130; }, "stage 1 holds 192 bytes of weights, --memory is 130"},
      {[](PlanOptions& o) { o.layout.schedule = "zb"; }, "--schedule \"zb\""},
      {[](PlanOptions& o) { o.kernels = "mine"; }, "--kernels \"mine\""},
      {[](PlanOptions& o) { o.layout.cuts = {"layers.7"}; }, "no module of the model"},
  };
  for (const Impossible& impossible : cases) {
    PlanOptions chosen = options(2);
    impossible.change(chosen);
    const Error error = error_of([&] { make_plan(toy(), chosen); });
    EXPECT_EQ(error.code(), ErrorCode::usage);
    EXPECT_THAT(error.message(), HasSubstr(impossible.message));
  }
}

}  // namespace
}  // namespace shardpipe::plan
