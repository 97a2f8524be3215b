#include "plan/plan.h"

#include <set>

#include "base/error.h"
#include "graph/verify.h"
#include "kernels/fuse.h"
#include "schedule/validate.h"

namespace shardpipe::plan {
namespace {

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
  if (layout.split != "even" && layout.cuts.empty()) {
    throw Error(
        ErrorCode::usage, fmt::format("--split \"{}\" is not known", layout.split), "use --split even, or --cuts");
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
  plan.folder = model.folder;
  plan.family = model.family;
  plan.dtype = model.dtype;
  plan.layout = options.layout;
  plan.threads = options.threads;
  plan.kernels = options.kernels;
  plan.weights = model.weights;
  if (options.kernels == "auto") {
    plan.choice = kernels::load_or_measure(options.threads);
    plan.graph = kernels::fuse(model.graph, plan.choice, model.dtype);
    graph::verify(plan.graph, "fuse");
  } else {
    plan.graph = model.graph;
  }
  plan.cuts = options.layout.cuts.empty() ? partition::cut_even(plan.graph, options.layout.pp)
                                          : partition::cut_at(plan.graph, options.layout.cuts, options.layout.pp);
  plan.stages = partition::cut(plan.graph, plan.cuts);
  const schedule::StageEdges edges = plan.stage_edges();
  const int lanes = std::max(1, options.layout.chunks);
  schedule::validate(schedule::lower_forward(schedule::fill_drain(options.layout.pp, lanes), edges), edges);
  return plan;
}

}  // namespace shardpipe::plan
