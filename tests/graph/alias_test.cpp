#include "graph/alias.h"

#include <gtest/gtest.h>

#include "graph/interpret.h"
#include "graph/text.h"

namespace shardpipe::graph {
namespace {

// Runs `nodes` (graph text) on tensors x [4, 6], y [4, 6] and weights r and s [4]: values %0 to %3. The analysis must
// give a common root to values whose storages are one, and name every storage whose content changed as written.
struct Observed {
  explicit Observed(const std::string& nodes)
      : graph(parse(
            "shardpipe-graph 1\nstate %0 \"x\" shared: float32[4, 6]\nstate %1 \"y\" shared: float32[4, 6]\n"
            "state %2 \"r\" shared: float32[4]\nstate %3 \"s\" shared: float32[4]\n" +
                nodes,
            "test")),
        aliases(analyse_aliases(graph)),
        run(graph) {
    at::manual_seed(1);
    run.values[0] = at::rand({4, 6});
    run.values[1] = at::rand({4, 6});
    run.values[2] = at::rand({4});
    run.values[3] = at::rand({4});
    std::vector<ValueId> known = {0, 1, 2, 3};
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      const Node& node = graph.nodes[n];
      std::map<ValueId, at::Tensor> before;
      for (const ValueId id : known) {
        before[id] = run.tensor(id).clone();
      }
      run.call(node);
      for (const auto& [id, content] : before) {
        const std::vector<ValueId>& written = aliases.writes[n];
        const bool found =
            std::find(written.begin(), written.end(), aliases.root[static_cast<size_t>(id)]) != written.end();
        EXPECT_TRUE(found || content.equal(run.tensor(id))) << node.op_name() << " changes %" << id;
        changed = changed || !content.equal(run.tensor(id));
      }
      for (const ValueId id : node.results) {
        for (const ValueId other : known) {
          if (run.tensor(id).storage().is_alias_of(run.tensor(other).storage())) {
            EXPECT_EQ(aliases.root[static_cast<size_t>(id)], aliases.root[static_cast<size_t>(other)])
                << node.op_name();
          }
        }
        known.push_back(id);
      }
    }
  }

  Graph graph;
  AliasAnalysis aliases;
  test::Interpreter run;
  bool changed = false;
};

using Ids = std::vector<ValueId>;

TEST(Alias, ViewsShareTheRoot) {
  const Observed observed(
      "#0 %4: tensor = aten::transpose.int(%0, 0, 1) in \"\"\n"
      "#1 %5: tensor = aten::narrow(%4, 0, 1, 2) in \"\"\n"
      "#2 %6: tensor = aten::reshape(%0, ints[24]) in \"\"\n"
      "#3 %7: tensor = aten::contiguous(%4, 0) in \"\"\n"
      "#4 %8: tensor = aten::add.Tensor(%5, %5, 1) in \"\"\n"
      "#5 %9: tensor = aten::to.dtype(%8, 6, false, false, none) in \"\"\n"
      "#6 %10: tensor = aten::clone(%0, none) in \"\"\n");
  EXPECT_EQ(observed.aliases.root, (Ids{0, 1, 2, 3, 0, 0, 0, 0, 8, 8, 10}));
  EXPECT_EQ(observed.aliases.writes, std::vector<Ids>(7));
}

TEST(Alias, InPlaceResultsAreTheirArgument) {
  const Observed observed(
      "#0 %4: tensor = aten::mul.Tensor(%0, %1) in \"\"\n"
      "#1 %5: tensor = aten::add_.Tensor(%4, %1, 1) in \"\"\n"
      "#2 %6: tensor = aten::relu_(%5) in \"\"\n"
      "#3 %7: tensor = aten::fill_.Scalar(%1, 2) in \"\"\n");
  EXPECT_EQ(observed.aliases.root, (Ids{0, 1, 2, 3, 4, 4, 4, 1}));
  EXPECT_EQ(observed.aliases.writes, (std::vector<Ids>{{}, {4}, {4}, {1}}));
}

TEST(Alias, WritesThroughViewsReachTheOwner) {
  const Observed observed(
      "#0 %4: tensor = aten::slice.Tensor(%0, 1, 2, 5, 1) in \"\"\n"
      "#1 %5: tensor = aten::narrow(%4, 0, 1, 2) in \"\"\n"
      "#2 %6: tensor = aten::select.int(%1, 0, 1) in \"\"\n"
      "#3 %7: tensor = aten::narrow(%6, 0, 0, 3) in \"\"\n"
      "#4 %8: tensor = aten::copy_(%5, %7, false) in \"\"\n");
  EXPECT_TRUE(observed.changed);
  EXPECT_EQ(observed.aliases.root[8], 0);
  EXPECT_EQ(observed.aliases.writes[4], (Ids{0}));
}

TEST(Alias, ItemsOfAListAreViews) {
  const Observed observed(
      "#0 %4: tensor %5: tensor = aten::split.Tensor(%0, 3, 1) in \"\"\n"
      "#1 %6: tensor %7: tensor %8: tensor = aten::chunk(%5, 3, 1) in \"\"\n"
      "#2 %9: tensor %10: tensor %11: tensor %12: tensor = aten::unbind.int(%1, 0) in \"\"\n"
      "#3 %13: tensor = aten::zero_(%7) in \"\"\n"
      "#4 %14: tensor = aten::copy_(%11, %10, false) in \"\"\n"
      "#5 %15: tensor = aten::cat([%9, %10], 0) in \"\"\n"
      "#6 %16: tensor %17: tensor = aten::split_with_sizes(%0, ints[2, 4], 1) in \"\"\n");
  EXPECT_EQ(observed.aliases.root, (Ids{0, 1, 2, 3, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 15, 0, 0}));
  EXPECT_EQ(observed.aliases.writes, (std::vector<Ids>{{}, {}, {}, {0}, {1}, {}, {}}));
}

TEST(Alias, OutAndListArgumentsAreWritten) {
  const Observed observed(
      "#0 %4: tensor = aten::add.out(%0, %1, 1, %1) in \"\"\n"
      "#1 = aten::_foreach_mul_.Scalar([%0, %2], 2.0) in \"\"\n"
      "#2 %5: tensor %6: tensor = aten::_foreach_add.Scalar([%0, %2], 1) in \"\"\n");
  EXPECT_TRUE(observed.changed);
  EXPECT_EQ(observed.aliases.root, (Ids{0, 1, 2, 3, 1, 5, 6}));
  EXPECT_EQ(observed.aliases.writes, (std::vector<Ids>{{1}, {0, 2}, {}}));
}

TEST(Alias, BatchNormWritesItsStatisticsInTraining) {
  const std::string head = "#0 %4: tensor = aten::t(%0) in \"\"\n";
  const Observed training(
      head + "#1 %5: tensor = aten::batch_norm(%4, none, none, %2, %3, true, 0.5, 1e-05, false) in \"\"\n");
  EXPECT_TRUE(training.changed);
  EXPECT_EQ(training.aliases.writes[1], (Ids{2, 3}));
  const Observed inference(
      head + "#1 %5: tensor = aten::batch_norm(%4, none, none, %2, %3, false, 0.5, 1e-05, false) in \"\"\n");
  EXPECT_EQ(inference.aliases.writes[1], Ids());
  const Observed native(
      head +
      "#1 %5: tensor %6: tensor %7: tensor = aten::native_batch_norm(%4, none, none, %2, %3, true, 0.5, 1e-05) in "
      "\"\"\n");
  EXPECT_TRUE(native.changed);
  EXPECT_EQ(native.aliases.writes[1], (Ids{2, 3}));
}

TEST(Alias, ScalarNodesTouchNothing) {
  const Graph graph = parse("shardpipe-graph 1\n#0 %0: int = scalar::add(1, 2) in \"\"\n", "test");
  const AliasAnalysis aliases = analyse_aliases(graph);
  EXPECT_EQ(aliases.root, Ids{0});
  EXPECT_EQ(aliases.writes, std::vector<Ids>(1));
}

}  // namespace
}  // namespace shardpipe::graph
