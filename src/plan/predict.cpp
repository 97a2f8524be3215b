#include "plan/predict.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "plan/footprint.h"
#include "schedule/host.h"

namespace shardpipe::plan {
namespace {

double sum(const std::vector<double>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), 0.0);
}

// Steps before the order of the lanes has settled, and as many at the end, when the first ranks have nothing left to
// do; what is taken between them holds whole cycles.
constexpr int kFirstSteps = 4;
constexpr int kMeanOfSteps = 12;

// The microbatches' outputs are joined where they are computed, and sent to rank 0.
double outputs_seconds(const Plan& plan, const Step& step, const partition::Rates& rates) {
  std::map<graph::ValueId, int> stage_of;
  for (size_t n = 0; n < plan.graph.nodes.size(); ++n) {
    for (const graph::ValueId id : plan.graph.nodes[n].results) {
      stage_of[id] = static_cast<int>(std::upper_bound(plan.cuts.begin(), plan.cuts.end(), n) - plan.cuts.begin());
    }
  }
  double seconds = 0;
  for (const graph::Output& output : plan.graph.outputs) {
    const auto bytes = static_cast<double>(
        step.microbatches * known_bytes(plan.graph.values[static_cast<size_t>(output.value)], step.sizes));
    seconds += step.microbatches > 1 ? 2 * bytes / rates.bytes_per_second : 0;
    const auto found = stage_of.find(output.value);
    if (found != stage_of.end() && plan.rank_of_stage(found->second) != 0) {
      seconds += rates.message_seconds + bytes / rates.transfer_bytes_per_second;
    }
  }
  return seconds;
}

// What sending and receiving take from the ranks that compute, at each end.
void add_messages(const Plan& plan, double busy_s, bool tokens, std::vector<double>& forward_s) {
  for (const partition::Edge& edge : plan.stages.edges) {
    if (plan.rank_of_stage(edge.from_stage) != plan.rank_of_stage(edge.to_stage)) {
      forward_s[static_cast<size_t>(edge.from_stage)] += busy_s;
      forward_s[static_cast<size_t>(edge.to_stage)] += busy_s;
    }
  }
  const int last = plan.rank_of_stage(plan.num_stages() - 1);
  for (int rank = 0; tokens && rank < plan.layout.pp; ++rank) {
    if (rank != last) {
      forward_s.back() += busy_s;
      forward_s[static_cast<size_t>(plan.stages_of_rank(rank).front())] += busy_s;
    }
  }
}

}  // namespace

StepTime predict_step(const Plan& plan, const Step& step, const PipelineCosts& costs) {
  schedule::Costs durations;
  durations.forward = costs.forward_s;
  durations.input_gradient.assign(costs.forward_s.size(), 0);
  durations.weight_gradient = durations.input_gradient;
  for (const auto& [edge, seconds] : costs.transfer_s) {
    durations.forward_transfer[edge] = seconds + costs.message_s;
  }
  const schedule::Schedule lists = plan.schedule(step.microbatches, false);
  const schedule::StageEdges edges = plan.stage_edges();
  StepTime time;
  time.simulation = schedule::simulate(lists, edges, schedule::on_host(lists, edges, durations, costs.together));
  time.seconds = time.simulation.makespan + costs.outputs_s;
  if (step.name == "decode") {
    const std::vector<double> ends = schedule::step_ends(
        schedule::add_token_exchange(lists, false), edges, durations, costs.message_s, costs.together,
        kFirstSteps + kMeanOfSteps + kFirstSteps);
    time.seconds = (ends[kFirstSteps + kMeanOfSteps - 1] - ends[kFirstSteps - 1]) / kMeanOfSteps;
  }
  const double busy = step.microbatches * sum(costs.forward_s);
  time.bubble = time.seconds > 0 ? std::max(0.0, 1 - busy / (plan.layout.pp * time.seconds)) : 0;
  return time;
}

std::vector<double> stage_seconds(const partition::CutPoints& points, const partition::Costs& costs) {
  std::vector<double> seconds;
  size_t begin = 0;
  for (size_t stage = 0; stage <= points.size(); ++stage) {
    const size_t end = stage == points.size() ? costs.compute.size() : points[stage];
    const auto first = costs.compute.begin();
    seconds.push_back(std::accumulate(first + static_cast<ptrdiff_t>(begin), first + static_cast<ptrdiff_t>(end), 0.0));
    begin = end;
  }
  return seconds;
}

PipelineCosts pipeline_costs(
    const Plan& plan, int threads, const Step& step, const StepCosts& costs, const Forecast& forecast) {
  const partition::Rates rates = forecast.rates(threads);
  PipelineCosts pipeline;
  pipeline.forward_s = stage_seconds(plan.cuts, costs.nodes);
  pipeline.together = costs.together;
  pipeline.message_s = rates.message_seconds;
  pipeline.forward_s.back() += step.choice_s.value_or(0);
  add_messages(plan, rates.message_busy_seconds / 2, step.choice_s.has_value(), pipeline.forward_s);
  pipeline.outputs_s = step.joins_outputs ? outputs_seconds(plan, step, rates) : 0;
  return pipeline;
}

Alternative predict_alternative(const Plan& outline, const Forecast& forecast) {
  Alternative alternative;
  alternative.pp = outline.layout.pp;
  alternative.threads = forecast.threads(alternative.pp);
  for (Step& step : forecast.steps(outline)) {
    step.sizes = partition::with_unknown(outline.graph, step.sizes);
    const StepCosts costs = forecast.costs(step, alternative.pp, alternative.threads);
    PipelineCosts pipeline = pipeline_costs(outline, alternative.threads, step, costs, forecast);
    for (size_t cut = 0; cut < outline.cuts.size(); ++cut) {
      pipeline.transfer_s[{static_cast<int>(cut), static_cast<int>(cut) + 1}] = costs.nodes.transfer[outline.cuts[cut]];
    }
    const StepTime time = predict_step(outline, step, pipeline);
    alternative.microbatches.push_back(step.microbatches);
    alternative.step_s.push_back(time.seconds);
    alternative.request_s += static_cast<double>(step.count) * time.seconds;
  }
  return alternative;
}

}  // namespace shardpipe::plan
