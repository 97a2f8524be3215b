#include "plan/plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/bytes.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "graph/device.h"
#include "graph/verify.h"
#include "kernels/fuse.h"
#include "plan/pin_rule.h"
#include "schedule/builders.h"
#include "schedule/select.h"
#include "schedule/validate.h"
#include "tensor/shard.h"

namespace shardpipe::plan {
namespace {

constexpr std::string_view kThreshold = "threshold:";

// A schedule that is a file's.
bool is_file(const std::string& schedule) {
  return schedule.ends_with(".csv");
}

void check(const LayoutOptions& layout, const std::string& kernels, const std::string& device) {
  const mesh::Mesh mesh(layout.pp, layout.dp, layout.tp);  // refuses sizes that cannot exist
  if (layout.tp == 1 && !layout.tp_plan.empty()) {
    throw Error(ErrorCode::usage, "--tp-plan pins what --tp divides, and --tp is 1", "use --tp 2, or leave it out");
  }
  if (layout.virtual_stages < 0) {
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
  const std::vector<std::string>& schedules = schedule::schedule_names();
  if (!is_file(layout.schedule) && std::find(schedules.begin(), schedules.end(), layout.schedule) == schedules.end()) {
    throw Error(
        ErrorCode::usage, fmt::format("--schedule \"{}\" is not known", layout.schedule),
        fmt::format("use --schedule {} or FILE.csv", fmt::join(schedules, ", ")));
  }
  if (kernels != "auto" && kernels != "reference") {
    throw Error(
        ErrorCode::usage, fmt::format("--kernels \"{}\" is not known", kernels), "use --kernels auto or reference");
  }
  if (graph::device_type(device) != at::kCPU && layout.profile) {
    throw Error(
        ErrorCode::usage, fmt::format("--profile times layers on the CPU, not on --device {}", device),
        "leave it out: the cost model then balances the stages");
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

partition::CutPoints cut_balanced(const Plan& plan, const partition::Costs& costs) {
  const int64_t limit = plan.layout.memory_bytes;
  if (plan.layout.virtual_stages == 1) {
    return partition::cut_balanced(plan.graph, plan.num_stages(), costs, limit);
  }
  partition::CutPoints points = partition::cut_balanced(plan.graph, plan.num_stages(), costs);
  for (const std::vector<int>& stages : plan.stages_by_rank()) {
    if (limit > 0 && partition::held_bytes(plan.graph, points, stages) > limit) {
      // The stages of a rank share its limit: an equal part each is enough, if more than is needed.
      return partition::cut_balanced(plan.graph, plan.num_stages(), costs, limit / plan.layout.virtual_stages);
    }
  }
  return points;
}

partition::CutPoints cut_points(const Plan& plan, const PlanOptions& options, const CostFunction& costs) {
  const LayoutOptions& layout = plan.layout;
  const graph::Graph& graph = plan.graph;
  const int stages = plan.num_stages();
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
    return cut_balanced(plan, costs ? costs(plan) : partition::cost_model(graph));
  }
  if (layout.split.starts_with(kThreshold)) {
    partition::CutPoints points =
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

// Nothing can be divided into more parts than it has elements in a row.
void check_width(const graph::Graph& graph, int parts) {
  int64_t widest = 0;
  for (const graph::ValueId id : graph.used_tensors()) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    if (value.kind == graph::ValueKind::parameter && value.shape) {
      for (const int64_t extent : graph::evaluate(*value.shape, {})) {
        widest = std::max(widest, extent);
      }
    }
  }
  if (parts > widest) {
    throw Error(
        ErrorCode::usage,
        fmt::format("--tp {} is wider than anything to shard: no dimension of a weight is above {}", parts, widest),
        "use a smaller --tp, or --pp and --dp");
  }
}

// Divides the plan's graph over the axis tp.
void divide(Plan& plan, bool gradients, std::vector<tensor::PinRule> pins) {
  check_width(plan.graph, plan.layout.tp);
  for (const auto& [pattern, pin] : plan.layout.tp_plan) {
    pins.push_back(pin_rule(pattern, pin));  // the last that matches counts
  }
  tensor::Sharded sharded = tensor::shard(plan.graph, {plan.layout.tp, gradients, std::move(pins)});
  if (sharded.shards.empty()) {
    log_warning("--tp {}: nothing is divided, every rank of tp computes all of its stage", plan.layout.tp);
  }
  plan.shards = std::move(sharded.shards);
  plan.replicated = std::move(sharded.replicated);
  plan.collectives = std::move(sharded.collectives);
  plan.whole_values = std::move(sharded.whole_values);
  plan.graph = sharded.graphs.front();
  if (sharded.graphs.size() > 1) {
    plan.parts = std::move(sharded.graphs);
  }
}

// Cuts are indices into the nodes, and edges are ids: the same in all parts.
void check_same_program(const std::vector<graph::Graph>& parts) {
  for (const graph::Graph& part : parts) {
    const bool same = std::equal(
        part.nodes.begin(), part.nodes.end(), parts.front().nodes.begin(), parts.front().nodes.end(),
        [](const graph::Node& a, const graph::Node& b) { return a.id == b.id && a.results == b.results; });
    if (!same || part.values.size() != parts.front().values.size()) {
      throw_internal("the parts of a model are not the same program");
    }
  }
}

}  // namespace

void Plan::select_part(int selected) {
  part = selected;
  if (!parts.empty()) {
    graph = parts.at(static_cast<size_t>(selected));
    stages = partition::cut(graph, cuts);
  }
}

void Plan::move_to(at::Device place) {
  if (place.is_cpu()) {
    return;
  }
  graph = graph::on_device(graph, place);
  for (graph::Graph& stage : stages.graphs) {
    stage = graph::on_device(stage, place);
  }
}

std::optional<graph::Shape> Plan::whole_shape(const graph::Value& value) const {
  std::optional<graph::Shape> shape = value.shape;
  if (const auto divided = shards.find(value.name); shape && divided != shards.end()) {
    graph::Size& extent = shape->at(static_cast<size_t>(divided->second.dim));
    extent = divided->second.whole(extent.evaluate({}), part);
  }
  return shape;
}

void Plan::check_memory(int64_t limit) const {
  partition::check_memory(graph, cuts, stages_by_rank(), limit);
  for (const graph::Graph& other : parts) {
    partition::check_memory(other, cuts, stages_by_rank(), limit);
  }
}

schedule::StageEdges Plan::stage_edges() const {
  std::set<std::pair<int, int>> pairs;
  for (const partition::Edge& edge : stages.edges) {
    pairs.insert({edge.from_stage, edge.to_stage});
  }
  return {pairs.begin(), pairs.end()};
}

void Plan::place_stages() {
  placement.clear();
  if (schedule_csv.empty()) {
    for (int stage = 0; stage < num_stages(); ++stage) {
      placement.push_back(schedule::rank_of_stage(layout.schedule, stage, layout.pp));
    }
    return;
  }
  file_schedule = schedule::parse_csv(schedule_csv, layout.schedule);
  if (layout.virtual_stages == 0) {
    layout.virtual_stages = std::max(1, file_schedule.num_stages / layout.pp);
  }
  if (file_schedule.num_ranks() != layout.pp || file_schedule.num_stages != num_stages()) {
    throw Error(
        ErrorCode::usage,
        fmt::format(
            "the schedule of {} has {} stages on {} ranks, --pp {} --virtual {} is {} stages on {} ranks",
            layout.schedule, file_schedule.num_stages, file_schedule.num_ranks(), layout.pp, layout.virtual_stages,
            num_stages(), layout.pp),
        fmt::format("use --pp {}", file_schedule.num_ranks()));
  }
  placement = file_schedule.rank_of_stage;
}

schedule::Schedule Plan::schedule(int microbatches, bool backward) const {
  if (schedule_csv.empty()) {
    return schedule::lower(
        schedule::make_schedule(layout.schedule, layout.pp, num_stages() / layout.pp, microbatches, backward),
        stage_edges());
  }
  schedule::Schedule step = backward ? file_schedule : schedule::forwards_only(file_schedule);
  step = schedule::first_microbatches(step, microbatches, layout.schedule);
  return schedule::has_messages(step) ? schedule::add_local_messages(step, stage_edges())
                                      : schedule::lower(step, stage_edges());
}

int Plan::default_microbatches() const {
  return layout.chunks > 0 ? layout.chunks : schedule_csv.empty() ? layout.pp : file_schedule.num_microbatches;
}

std::vector<std::vector<int>> Plan::stages_by_rank() const {
  std::vector<std::vector<int>> ranks;
  for (int rank = 0; rank < layout.pp; ++rank) {
    ranks.push_back(stages_of_rank(rank));
  }
  return ranks;
}

std::vector<int> Plan::stages_of_rank(int rank) const {
  std::vector<int> held;
  for (int stage = 0; stage < num_stages(); ++stage) {
    if (rank_of_stage(stage) == rank) {
      held.push_back(stage);
    }
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
    const graph::Graph& held = stages.graphs[static_cast<size_t>(stage)];
    for (const graph::ValueId id : held.used_tensors()) {
      const graph::Value& value = held.values[static_cast<size_t>(id)];
      if (value.kind == graph::ValueKind::parameter && counted.insert(id).second) {
        bytes += graph::size_bytes(value, {});
      }
    }
  }
  return bytes;
}

Plan outline(const Plan& plan, const PlanOptions& options, int pp, const CostFunction& costs) {
  Plan other;
  other.graph = plan.graph;
  other.shards = plan.shards;
  other.scalars = plan.scalars;
  other.threads = plan.threads;
  other.layout = plan.layout;
  other.layout.pp = pp;
  if (!plan.layout.cuts.empty()) {
    other.layout.cuts.clear();
    other.layout.split = "balanced";
  }
  other.schedule_csv = plan.schedule_csv;
  other.place_stages();
  other.cuts = cut_points(other, options, costs);
  partition::check_memory(other.graph, other.cuts, other.stages_by_rank(), other.layout.memory_bytes);
  for (int stage = 1; stage < other.num_stages(); ++stage) {
    other.stages.edges.push_back({graph::kNoValue, stage - 1, stage});
  }
  return other;
}

Plan make_plan(const ModelDescription& model, const PlanOptions& options, const CostFunction& costs) {
  check(options.layout, options.kernels, options.device);
  Plan plan;
  plan.family = model.family;
  plan.dtype = model.dtype;
  plan.layout = options.layout;
  plan.threads = options.threads;
  plan.device = options.device;
  plan.kernels = options.device == "cpu" ? options.kernels : "reference";  // ours are the CPU's
  plan.checkpoints = model.checkpoints;
  plan.weights = model.weights;
  plan.frozen = model.frozen;
  plan.graph = model.graph;
  plan.scalars = describe_scalars(plan.graph);
  if (plan.layout.tp > 1) {
    divide(plan, options.gradients, model.pins);
  }
  if (is_file(plan.layout.schedule)) {
    plan.schedule_csv = read_file(plan.layout.schedule);
  } else if (plan.layout.virtual_stages == 0) {
    plan.layout.virtual_stages = schedule::default_virtual_stages(plan.layout.schedule);
  }
  plan.place_stages();
  if (plan.kernels == "auto" && !options.gradients) {
    // The fused operators have no gradient.
    plan.choice = kernels::load_or_measure(options.threads);
    plan.graph = kernels::fuse(plan.graph, plan.choice, model.dtype);
    for (graph::Graph& part : plan.parts) {
      part = kernels::fuse(part, plan.choice, model.dtype);
    }
  }
  graph::verify(plan.graph, "planning");
  check_same_program(plan.parts);
  explain_stages(plan.layout, [&] {
    plan.cuts = cut_points(plan, options, costs);
    plan.check_memory(plan.layout.memory_bytes);
    plan.stages = partition::cut(plan.graph, plan.cuts);
  });
  schedule::validate(plan.schedule(plan.default_microbatches(), options.gradients), plan.stage_edges());
  return plan;
}

}  // namespace shardpipe::plan
