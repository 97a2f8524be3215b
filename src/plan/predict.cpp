#include "plan/predict.h"

#include <algorithm>
#include <numeric>

namespace shardpipe::plan {
namespace {

double sum(const std::vector<double>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), 0.0);
}

// Of one lane through all stages and back to the first.
double lane_seconds(const Plan& plan, const PipelineCosts& costs) {
  double seconds = sum(costs.forward_s);
  for (int stage = 1; stage < plan.num_stages(); ++stage) {
    const auto transfer = costs.transfer_s.find({stage - 1, stage});
    if (plan.rank_of_stage(stage - 1) != plan.rank_of_stage(stage)) {
      seconds += costs.message_s + (transfer == costs.transfer_s.end() ? 0 : transfer->second);
    }
  }
  return seconds + (plan.layout.pp > 1 ? costs.message_s : 0);
}

double seconds_of_busiest_rank(const Plan& plan, const PipelineCosts& costs) {
  std::vector<double> work(static_cast<size_t>(plan.layout.pp), 0);
  for (int stage = 0; stage < plan.num_stages(); ++stage) {
    work[static_cast<size_t>(plan.rank_of_stage(stage))] += costs.forward_s[static_cast<size_t>(stage)];
  }
  return *std::max_element(work.begin(), work.end());
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
  StepTime time;
  time.simulation = schedule::simulate(plan.schedule(step.microbatches, false), plan.stage_edges(), durations);
  time.seconds = time.simulation.makespan;
  if (step.name == "decode") {
    time.seconds = std::max(lane_seconds(plan, costs), step.microbatches * seconds_of_busiest_rank(plan, costs));
  }
  const double busy = step.microbatches * sum(costs.forward_s);
  time.bubble = time.seconds > 0 ? std::max(0.0, 1 - busy / (plan.layout.pp * time.seconds)) : 0;
  return time;
}

int active_ranks(int pp, const Step& step) {
  return std::max(1, std::min(pp, step.microbatches));
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

Alternative predict_alternative(const Plan& outline, const Forecast& forecast) {
  Alternative alternative;
  alternative.pp = outline.layout.pp;
  alternative.threads = forecast.threads(alternative.pp);
  for (Step& step : forecast.steps(outline)) {
    step.sizes = partition::with_unknown(outline.graph, step.sizes);
    const int active = active_ranks(alternative.pp, step);
    const partition::Costs costs = forecast.costs(step, alternative.threads, active);
    PipelineCosts pipeline;
    pipeline.forward_s = stage_seconds(outline.cuts, costs);
    pipeline.message_s = forecast.rates(alternative.threads, active).message_seconds;
    for (size_t cut = 0; cut < outline.cuts.size(); ++cut) {
      pipeline.transfer_s[{static_cast<int>(cut), static_cast<int>(cut) + 1}] = costs.transfer[outline.cuts[cut]];
    }
    const StepTime time = predict_step(outline, step, pipeline);
    alternative.microbatches.push_back(step.microbatches);
    alternative.step_s.push_back(time.seconds);
    alternative.request_s += static_cast<double>(step.count) * time.seconds;
  }
  return alternative;
}

}  // namespace shardpipe::plan
