#include "plan/plan.h"

#include <set>

#include "base/bytes.h"
#include "base/error.h"
#include "graph/verify.h"
#include "kernels/fuse.h"
#include "partition/balance.h"
#include "schedule/validate.h"

namespace shardpipe::plan {
namespace {

constexpr std::string_view kThreshold = "threshold:";

void check(const LayoutOptions& layout, const std::string& kernels) {
  const mesh::Mesh mesh(layout.pp, layout.dp, layout.tp);  // refuses sizes that cannot exist
  if (layout.tp > 1 || layout.dp > 1) {
    throw Error(
        ErrorCode::usage,
        fmt::format("--tp {} --dp {}: this version runs pipeline stages only, both must be 1", layout.tp, layout.dp),
        "use --pp");
  }
  if (layout.chunks < 0) {
    throw_usage("--chunks is {}, must be at least 1", layout.chunks);
  }
  const bool known = layout.split == "even" || layout.split == "equal_size" || layout.split == "balanced";
  if (!known && !layout.split.starts_with(kThreshold)) {
    throw Error(
        ErrorCode::usage, fmt::format("--split \"{}\" is not known", layout.split),
        "use --split even, equal_size, threshold:BYTES or balanced, or --cuts");
  }
  if (layout.memory_bytes < 0) {
    throw_usage("--memory is {}, must be above 0", layout.memory_bytes);
  }
  if (layout.schedule != "fill-drain") {
    throw Error(
        ErrorCode::usage, fmt::format("--schedule \"{}\" is not known", layout.schedule), "use --schedule fill-drain");
  }
  if (kernels != "auto" && kernels != "reference") {
    throw Error(
        ErrorCode::usage, fmt::format("--kernels \"{}\" is not known", kernels), "use --kernels auto or reference");
  }
}

// Paths of the modules that compute something, in the order of their first operator.
std::vector<std::string> modules_in_order(const graph::Graph& graph) {
  std::vector<std::string> paths;
  std::set<std::string> seen;
  for (const graph::Node& node : graph.nodes) {
    for (size_t end = node.module.find('.'); !node.module.empty(); end = node.module.find('.', end + 1)) {
      const std::string path = node.module.substr(0, end);
      if (graph.modules.count(path) > 0 && seen.insert(path).second) {
        paths.push_back(path);
      }
      if (end == std::string::npos) {
        break;
      }
    }
  }
  return paths;
}

partition::CutPoints cut_points(const graph::Graph& graph, const PlanOptions& options) {
  const LayoutOptions& layout = options.layout;
  if (!layout.cuts.empty()) {
    return partition::cut_at(graph, layout.cuts, layout.pp);
  }
  if (options.split) {
    return partition::cut_at(graph, options.split(modules_in_order(graph), layout.pp), layout.pp);
  }
  if (layout.split == "equal_size") {
    return partition::cut_equal_size(graph, layout.pp);
  }
  if (layout.split == "balanced") {
    return partition::cut_balanced(graph, layout.pp, partition::cost_model(graph), layout.memory_bytes);
  }
  if (layout.split.starts_with(kThreshold)) {
    const partition::CutPoints points =
        partition::cut_threshold(graph, parse_bytes(layout.split.substr(kThreshold.size()), "--split threshold"));
    if (static_cast<int>(points.size()) + 1 != layout.pp) {
      throw Error(
          ErrorCode::usage,
          fmt::format("--split {} gives {} stages, --pp is {}", layout.split, points.size() + 1, layout.pp),
          fmt::format("use --pp {}, or another threshold", points.size() + 1));
    }
    return points;
  }
  return partition::cut_even(graph, layout.pp);
}

}  // namespace

schedule::StageEdges Plan::stage_edges() const {
  std::set<std::pair<int, int>> pairs;
  for (const partition::Edge& edge : stages.edges) {
    pairs.insert({edge.from_stage, edge.to_stage});
  }
  return {pairs.begin(), pairs.end()};
}

int64_t Plan::parameter_bytes(int stage) const {
  const graph::Graph& part = stages.graphs[static_cast<size_t>(stage)];
  int64_t bytes = 0;
  for (const graph::ValueId id : part.used_tensors()) {
    const graph::Value& value = part.values[static_cast<size_t>(id)];
    bytes += value.kind == graph::ValueKind::parameter ? graph::size_bytes(value, {}) : 0;
  }
  return bytes;
}

Plan make_plan(const ModelDescription& model, const PlanOptions& options) {
  check(options.layout, options.kernels);
  Plan plan;
  plan.family = model.family;
  plan.dtype = model.dtype;
  plan.layout = options.layout;
  plan.threads = options.threads;
  plan.kernels = options.kernels;
  plan.checkpoints = model.checkpoints;
  plan.weights = model.weights;
  plan.frozen = model.frozen;
  plan.graph = model.graph;
  plan.scalars = describe_scalars(plan.graph);
  if (options.kernels == "auto" && !options.gradients) {
    // The fused operators have no gradient.
    plan.choice = kernels::load_or_measure(options.threads);
    plan.graph = kernels::fuse(plan.graph, plan.choice, model.dtype);
  }
  graph::verify(plan.graph, "planning");
  plan.cuts = cut_points(plan.graph, options);
  partition::check_memory(plan.graph, plan.cuts, options.layout.memory_bytes);
  plan.stages = partition::cut(plan.graph, plan.cuts);
  const schedule::StageEdges edges = plan.stage_edges();
  const int lanes = std::max(1, options.layout.chunks);
  schedule::validate(schedule::lower(schedule::fill_drain(options.layout.pp, lanes), edges), edges);
  return plan;
}

}  // namespace shardpipe::plan
