#include "plan/explain.h"

#include <algorithm>

#include "graph/op_table.h"
#include "partition/layers.h"
#include "plan/explain_layers.h"
#include "plan/explain_sharding.h"
#include "plan/footprint.h"
#include "plan/predict.h"
#include "plan/units.h"

namespace shardpipe::plan {
namespace {

using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;

size_t index(int64_t i) {
  return static_cast<size_t>(i);
}

// The steps of a plan with what they cost.
struct Priced {
  std::vector<Step> steps;
  std::vector<StepCosts> costs;
};

int64_t flops_of(const Graph& graph, const graph::Dimensions& sizes) {
  int64_t flops = 0;
  for (const Node& node : graph.nodes) {
    flops += graph::node_flops(graph, node, sizes);
  }
  return flops;
}

void add_layers(const Plan& plan, const partition::Layers& layers, StageReport& report) {
  const auto stage = index(report.stage);
  const size_t begin = stage == 0 ? 0 : plan.cuts[stage - 1];
  const size_t end = stage == plan.cuts.size() ? plan.graph.nodes.size() : plan.cuts[stage];
  for (const std::string& path : layers.paths) {
    const auto& nodes = plan.graph.nodes;
    const auto is_inside = [&](const Node& node) { return partition::inside(node.module, path); };
    const auto first = std::find_if(nodes.begin(), nodes.end(), is_inside);
    const size_t first_index = index(first - nodes.begin());
    report.layers += first_index >= begin && first_index < end ? 1 : 0;
    const auto from = nodes.begin() + static_cast<ptrdiff_t>(begin);
    const auto to = nodes.begin() + static_cast<ptrdiff_t>(end);
    if (std::find_if(from, to, is_inside) != to) {
      report.first_layer = report.first_layer.empty() ? path : report.first_layer;
      report.last_layer = path;
    }
  }
}

std::vector<StageReport> stage_reports(const Plan& plan, const Priced& priced) {
  std::map<int32_t, int> homes;  // stages that have the node
  for (const Graph& graph : plan.stages.graphs) {
    for (const Node& node : graph.nodes) {
      ++homes[node.id];
    }
  }
  const partition::Layers layers = partition::find_layers(plan.graph);
  std::vector<StageReport> reports;
  for (int stage = 0; stage < plan.num_stages(); ++stage) {
    const Graph& graph = plan.stages.graphs[index(stage)];
    const Parameters parameters = parameters_of({&graph});
    StageReport report;
    report.stage = stage;
    report.rank = plan.rank_of_stage(stage);
    report.operators = std::ssize(graph.nodes);
    report.repeated_operators =
        std::count_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) { return homes.at(node.id) > 1; });
    report.parameters = parameters.count;
    report.parameter_bytes = parameters.bytes;
    report.weight_bytes = parameters.weight_bytes;
    add_layers(plan, layers, report);
    for (const Step& step : priced.steps) {
      report.flops.push_back(flops_of(graph, step.sizes));
      report.activation_bytes.push_back(peak_activation_bytes(graph, step.sizes));
      report.cache_bytes.push_back(cache_bytes(graph, step.sizes));
    }
    reports.push_back(std::move(report));
  }
  for (const StepCosts& costs : priced.costs) {
    const std::vector<double> seconds = stage_seconds(plan.cuts, costs.nodes);
    for (StageReport& report : reports) {
      report.forward_s.push_back(seconds[index(report.stage)]);
    }
  }
  return reports;
}

std::vector<RankReport> rank_reports(const Plan& plan, const Priced& priced, const std::vector<StageReport>& stages) {
  std::vector<RankReport> reports;
  std::vector<Plan> parts;
  for (int part = 1; part < (plan.parts.empty() ? 1 : plan.layout.tp); ++part) {
    parts.push_back(plan);
    parts.back().select_part(part);
  }
  for (int rank = 0; rank < plan.mesh().world_size(); ++rank) {
    RankReport report;
    report.rank = rank;
    report.at = plan.mesh().coordinates(rank);
    report.stages = plan.stages_of_rank(report.at.pp);
    const Plan& own = report.at.tp == 0 || parts.empty() ? plan : parts[index(report.at.tp) - 1];
    std::vector<const Graph*> graphs;
    for (const int stage : report.stages) {
      graphs.push_back(&own.stages.graphs[index(stage)]);
    }
    const Parameters parameters = parameters_of(graphs);
    report.parameters = parameters.count;
    report.parameter_bytes = parameters.bytes;
    report.weight_bytes = parameters.weight_bytes;
    for (size_t i = 0; i < priced.steps.size(); ++i) {
      int64_t caches = 0;
      int64_t activations = 0;
      for (const int stage : report.stages) {
        caches += stages[index(stage)].cache_bytes[i] * priced.steps[i].microbatches;
        activations = std::max(activations, stages[index(stage)].activation_bytes[i]);
      }
      report.peak_bytes = std::max(report.peak_bytes, report.weight_bytes + caches + activations);
    }
    reports.push_back(std::move(report));
  }
  return reports;
}

std::vector<EdgeReport> edge_reports(const Plan& plan, const Priced& priced, const partition::Rates& rates) {
  std::map<ValueId, const Node*> producer;
  for (const Node& node : plan.graph.nodes) {
    for (const ValueId id : node.results) {
      producer[id] = &node;
    }
  }
  std::vector<EdgeReport> reports;
  for (const partition::Edge& edge : plan.stages.edges) {
    const Value& value = plan.graph.values[index(edge.value)];
    EdgeReport report;
    report.from_stage = edge.from_stage;
    report.to_stage = edge.to_stage;
    report.value = partition::edge_name(edge.value);
    report.module = producer.count(edge.value) > 0 ? producer.at(edge.value)->module : "";
    report.dtype = value.dtype ? graph::dtype_name(*value.dtype) : "";
    report.shape = value.shape ? graph::to_string(*value.shape) : "";
    for (const Step& step : priced.steps) {
      report.sizes.push_back(value.shape ? graph::evaluate(*value.shape, step.sizes) : std::vector<int64_t>());
      report.bytes.push_back(known_bytes(value, step.sizes));
      report.transfer_s.push_back(static_cast<double>(report.bytes.back()) / rates.transfer_bytes_per_second);
    }
    reports.push_back(std::move(report));
  }
  return reports;
}

std::vector<SharedReport> shared_reports(const Plan& plan) {
  std::map<ValueId, std::vector<int>> holders;
  for (int stage = 0; stage < plan.num_stages(); ++stage) {
    const Graph& graph = plan.stages.graphs[index(stage)];
    for (const ValueId id : graph.used_tensors()) {
      holders[id].push_back(stage);
    }
  }
  std::vector<SharedReport> reports;
  for (const auto& [id, stages] : holders) {
    if (stages.size() > 1) {
      const Value& value = plan.graph.values[index(id)];
      reports.push_back({value.name, known_bytes(value, {}), stages});
    }
  }
  return reports;
}

// A view has no row either, but nothing to cost.
std::vector<OperatorReport> operators_without_row(const Plan& plan, const graph::Dimensions& sizes) {
  std::map<std::string, int64_t> counts;
  for (const Node& node : plan.graph.nodes) {
    const bool row = node.op && graph::find_op(node.op->operator_name().name) != nullptr;
    if (!row && node.scalar == graph::ScalarOperator::none && graph::node_flops(plan.graph, node, sizes) > 0) {
      ++counts[node.op_name()];
    }
  }
  std::vector<OperatorReport> reports;
  for (const auto& [name, count] : counts) {
    reports.push_back({name, count});
  }
  std::stable_sort(reports.begin(), reports.end(), [](const auto& a, const auto& b) { return a.count > b.count; });
  return reports;
}

std::vector<StepReport> step_reports(
    const Plan& plan, const Priced& priced, const Explanation& explanation, const Forecast& forecast) {
  std::vector<StepReport> reports;
  for (size_t i = 0; i < priced.steps.size(); ++i) {
    const Step& step = priced.steps[i];
    PipelineCosts costs = pipeline_costs(plan, plan.threads, step, priced.costs[i], forecast);
    double sum = 0;
    double most = 0;
    StepReport report;
    for (const StageReport& stage : explanation.stages) {
      const double seconds = stage.forward_s[i];
      sum += seconds;
      if (seconds > most) {
        most = seconds;
        report.bottleneck = stage.stage;
      }
    }
    for (const EdgeReport& edge : explanation.edges) {
      costs.transfer_s[{edge.from_stage, edge.to_stage}] += edge.transfer_s[i];
    }
    StepTime time = predict_step(plan, step, costs);
    report.name = step.name;
    report.sizes = step.sizes;
    report.microbatches = step.microbatches;
    report.count = step.count;
    report.balance = most > 0 ? sum / static_cast<double>(plan.num_stages()) / most : 1;
    report.step_s = time.seconds;
    report.together = costs.together;
    report.bubble = time.bubble;
    report.simulation = std::move(time.simulation);
    reports.push_back(std::move(report));
  }
  return reports;
}

// The numbers of the model, where the graph is that of a part.
void count_whole(Explanation& explanation) {
  if (explanation.weights.empty()) {
    return;
  }
  explanation.parameters = 0;
  explanation.parameter_bytes = 0;
  for (const WeightReport& weight : explanation.weights) {
    const int64_t count = c10::multiply_integers(weight.shape);
    explanation.parameters += count;
    explanation.parameter_bytes +=
        count * static_cast<int64_t>(c10::elementSize(graph::parse_dtype(weight.dtype).value()));
  }
}

// 1, 2, 3, 4, 8, 16, … below `pp`.
std::vector<int> fewer_ranks(int pp) {
  std::vector<int> fewer;
  for (int ranks = 1; ranks < pp; ranks = ranks < 4 ? ranks + 1 : 2 * ranks) {
    fewer.push_back(ranks);
  }
  return fewer;
}

void add_alternatives(const Plan& plan, const Forecast& forecast, Explanation& explanation) {
  const Alternative* best = nullptr;
  for (const int pp : fewer_ranks(plan.layout.pp)) {
    if (const std::optional<Plan> outline = forecast.outline(pp)) {
      explanation.alternatives.push_back(predict_alternative(*outline, forecast));
    }
  }
  for (const Alternative& alternative : explanation.alternatives) {
    if (alternative.request_s < explanation.request_s && (best == nullptr || alternative.request_s < best->request_s)) {
      best = &alternative;
    }
  }
  if (best != nullptr) {
    explanation.remark = fmt::format(
        "--pp {} would be faster on this host of {} core{}: {} instead of {} a request", best->pp, explanation.cores,
        explanation.cores == 1 ? "" : "s", seconds_text(best->request_s), seconds_text(explanation.request_s));
  }
}

}  // namespace

Explanation explain(const Plan& plan, const Forecast& forecast) {
  Explanation explanation;
  explanation.model = forecast.model;
  explanation.family = plan.family;
  explanation.program = forecast.program;
  explanation.dtype = graph::dtype_name(plan.dtype);
  explanation.layout = plan.layout;
  explanation.split = plan.layout.cuts.empty() ? plan.layout.split : "cuts";
  explanation.cores = forecast.cores;
  explanation.threads = plan.threads;
  explanation.device = plan.device;
  explanation.kernels = plan.kernels;
  if (plan.kernels == "auto") {
    explanation.choice = plan.choice;
  }
  explanation.profile = forecast.profile;
  explanation.missing_weights = forecast.missing_weights;
  explanation.layer_class = partition::find_layers(plan.graph).class_name;
  const Parameters all = parameters_of({&plan.graph});
  explanation.parameters = all.count;
  explanation.parameter_bytes = all.bytes;
  explanation.weights = weight_reports(plan);
  count_whole(explanation);

  Priced priced{forecast.steps(plan), {}};
  for (Step& step : priced.steps) {
    step.sizes = partition::with_unknown(plan.graph, step.sizes);
    std::erase_if(step.sizes, [&](const auto& size) {  // of another kind of program
      return std::find(plan.graph.dimensions.begin(), plan.graph.dimensions.end(), size.first) ==
             plan.graph.dimensions.end();
    });
    priced.costs.push_back(forecast.costs(step, plan.layout.pp, plan.threads));
  }
  explanation.rates = forecast.rates(plan.threads);
  explanation.stages = stage_reports(plan, priced);
  explanation.ranks = rank_reports(plan, priced, explanation.stages);
  explanation.edges = edge_reports(plan, priced, explanation.rates);
  explanation.layers = layer_reports(plan, priced.steps, priced.costs);
  explanation.collectives = collective_reports(plan, priced.steps);
  explanation.shared = shared_reports(plan);
  explanation.operators = operators_without_row(plan, priced.steps.front().sizes);
  explanation.steps = step_reports(plan, priced, explanation, forecast);
  for (const StepReport& step : explanation.steps) {
    explanation.request_s += static_cast<double>(step.count) * step.step_s;
  }
  add_alternatives(plan, forecast, explanation);
  return explanation;
}

}  // namespace shardpipe::plan
