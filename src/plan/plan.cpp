#include "plan/plan.h"

#include <set>

#include "base/bytes.h"
#include "base/error.h"
#include "graph/verify.h"
#include "kernels/fuse.h"
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
  if (layout.virtual_stages < 1) {
    throw_usage("--virtual is {}, must be at least 1", layout.virtual_stages);
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
  if (layout.profile && (layout.split != "balanced" || !layout.cuts.empty())) {
    throw Error(ErrorCode::usage, "--profile measures what --split balanced balances", "use --split balanced");
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

partition::CutPoints cut_balanced(
    const graph::Graph& graph, const LayoutOptions& layout, const partition::Costs& costs) {
  const int64_t limit = layout.memory_bytes;
  const int stages = layout.pp * layout.virtual_stages;
  if (layout.virtual_stages == 1) {
    return partition::cut_balanced(graph, stages, costs, limit);
  }
  const partition::CutPoints points = partition::cut_balanced(graph, stages, costs);
  for (int rank = 0; rank < layout.pp; ++rank) {
    if (limit > 0 && partition::held_bytes(graph, points, rank, layout.pp) > limit) {
      // The stages of a rank share its limit: an equal part each is enough, if more than is needed.
      return partition::cut_balanced(graph, stages, costs, limit / layout.virtual_stages);
    }
  }
  return points;
}

partition::CutPoints points_of_policy(const Plan& plan, const PlanOptions& options, const CostFunction& costs) {
  const LayoutOptions& layout = options.layout;
  const graph::Graph& graph = plan.graph;
  const int stages = layout.pp * layout.virtual_stages;
  if (!layout.cuts.empty()) {
    return partition::cut_at(graph, layout.cuts, stages);
  }
  if (options.split) {
    return partition::cut_at(graph, options.split(modules_in_order(graph), stages), stages);
  }
  if (layout.split == "equal_size") {
    return partition::cut_equal_size(graph, stages);
  }
  if (layout.split == "balanced") {
    return cut_balanced(graph, layout, costs ? costs(plan) : partition::cost_model(graph));
  }
  if (layout.split.starts_with(kThreshold)) {
    const partition::CutPoints points =
        partition::cut_threshold(graph, parse_bytes(layout.split.substr(kThreshold.size()), "--split threshold"));
    if (static_cast<int>(points.size()) + 1 != stages) {
      throw Error(
          ErrorCode::usage,
          fmt::format("--split {} gives {} stages, --pp is {}", layout.split, points.size() + 1, stages),
          fmt::format("use --pp {}, or another threshold", points.size() + 1));
    }
    return points;
  }
  return partition::cut_even(graph, stages);
}

// The policies know stages only; where a rank has several, their errors say how many that makes.
template <typename F>
void explain_stages(const LayoutOptions& layout, F f) {
  try {
    f();
  } catch (const Error& error) {
    if (layout.virtual_stages == 1 || error.code() != ErrorCode::usage) {
      throw;
    }
    throw Error(
        ErrorCode::usage, fmt::format("--pp {} --virtual {}: {}", layout.pp, layout.virtual_stages, error.message()),
        fmt::format("this is for {} stages: use fewer, or another --split", layout.pp * layout.virtual_stages));
  }
}

}  // namespace

schedule::StageEdges Plan::stage_edges() const {
  std::set<std::pair<int, int>> pairs;
  for (const partition::Edge& edge : stages.edges) {
    pairs.insert({edge.from_stage, edge.to_stage});
  }
  return {pairs.begin(), pairs.end()};
}

schedule::Schedule Plan::schedule(int microbatches, bool backward) const {
  return schedule::lower(schedule::fill_drain(num_stages(), microbatches, backward, layout.pp), stage_edges());
}

std::vector<int> Plan::stages_of_rank(int rank) const {
  std::vector<int> held;
  for (int stage = rank; stage < num_stages(); stage += layout.pp) {
    held.push_back(stage);
  }
  return held;
}

std::vector<std::pair<std::string, graph::ValueId>> Plan::stage_inputs(int stage) const {
  std::vector<std::pair<std::string, graph::ValueId>> inputs;
  for (const graph::ValueId id : stages.graphs[static_cast<size_t>(stage)].inputs) {
    // An edge's value is an input of the stage, but no input of the model.
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    if (value.kind == graph::ValueKind::input) {
      inputs.emplace_back(value.name, id);
    }
  }
  return inputs;
}

std::vector<std::pair<std::string, graph::ValueId>> Plan::stage_outputs(int stage) const {
  std::vector<std::pair<std::string, graph::ValueId>> outputs;
  for (const graph::Output& output : stages.graphs[static_cast<size_t>(stage)].outputs) {
    if (output.name != partition::edge_name(output.value)) {
      outputs.emplace_back(output.name, output.value);
    }
  }
  return outputs;
}

int64_t Plan::parameter_bytes(const std::vector<int>& of_stages) const {
  std::set<graph::ValueId> counted;
  int64_t bytes = 0;
  for (const int stage : of_stages) {
    const graph::Graph& part = stages.graphs[static_cast<size_t>(stage)];
    for (const graph::ValueId id : part.used_tensors()) {
      const graph::Value& value = part.values[static_cast<size_t>(id)];
      if (value.kind == graph::ValueKind::parameter && counted.insert(id).second) {
        bytes += graph::size_bytes(value, {});
      }
    }
  }
  return bytes;
}

partition::CutPoints cut_points(const Plan& plan, const PlanOptions& options, const CostFunction& costs) {
  partition::CutPoints points = points_of_policy(plan, options, costs);
  partition::check_memory(plan.graph, points, options.layout.pp, options.layout.memory_bytes);
  return points;
}

Plan make_plan(const ModelDescription& model, const PlanOptions& options, const CostFunction& costs) {
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
  explain_stages(plan.layout, [&] {
    plan.cuts = cut_points(plan, options, costs);
    plan.stages = partition::cut(plan.graph, plan.cuts);
  });
  const int lanes = std::max(1, options.layout.chunks);
  schedule::validate(plan.schedule(lanes, false), plan.stage_edges());
  return plan;
}

}  // namespace shardpipe::plan
