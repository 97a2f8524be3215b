#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/text.h"
#include "support/errors.h"

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
      {[](PlanOptions& o) { o.layout.tp = 2; }, "--tp 2 --dp 1"},
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
