#include "plan/predict.h"

#include <algorithm>
#include <numeric>

#include "schedule/builders.h"

namespace shardpipe::plan {
namespace {

double transfer(const PipelineCosts& costs, int from, int to) {
  const auto found = costs.transfer_s.find({from, to});
  return found == costs.transfer_s.end() ? 0 : found->second;
}

double sum(const std::vector<double>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), 0.0);
}

double work_of_busiest(const LayoutOptions& layout, const std::vector<double>& forward_s) {
  std::vector<double> work(static_cast<size_t>(layout.pp), 0);
  for (size_t stage = 0; stage < forward_s.size(); ++stage) {
    work[stage % work.size()] += forward_s[stage];
  }
  return *std::max_element(work.begin(), work.end());
}

// The lanes go round: a step takes as long as the busiest rank needs for all of them, or, where that is more, as one
// lane needs through all stages and back to the first (the two cycles of the lanes' order; any other mixes them).
double round_seconds(const Step& step, const LayoutOptions& layout, const PipelineCosts& costs, double message_s) {
  double lane = sum(costs.forward_s);
  for (size_t stage = 1; stage < costs.forward_s.size(); ++stage) {
    lane += transfer(costs, static_cast<int>(stage) - 1, static_cast<int>(stage)) + message_s;
  }
  lane += layout.pp > 1 ? message_s : 0;
  return std::max(lane, step.microbatches * work_of_busiest(layout, costs.forward_s));
}

// Fill-drain: each rank runs its stages one after the other, a stage its microbatches.
double drain_seconds(const Step& step, const LayoutOptions& layout, const PipelineCosts& costs, double message_s) {
  std::vector<double> free(static_cast<size_t>(layout.pp), 0);  // when each rank is
  std::vector<std::vector<double>> done(costs.forward_s.size());
  for (size_t stage = 0; stage < done.size(); ++stage) {
    double& rank_free = free[stage % free.size()];
    for (size_t m = 0; m < static_cast<size_t>(step.microbatches); ++m) {
      double start = rank_free;
      for (size_t from = 0; from < stage; ++from) {
        const auto edge = costs.transfer_s.find({static_cast<int>(from), static_cast<int>(stage)});
        if (edge != costs.transfer_s.end()) {
          start = std::max(start, done[from][m] + edge->second + message_s);
        }
      }
      rank_free = start + costs.forward_s[stage];
      done[stage].push_back(rank_free);
    }
  }
  return *std::max_element(free.begin(), free.end());
}

}  // namespace

StepTime predict_step(const Step& step, const LayoutOptions& layout, const PipelineCosts& costs, double message_s) {
  StepTime time;
  time.seconds = step.name == "decode" ? round_seconds(step, layout, costs, message_s)
                                       : drain_seconds(step, layout, costs, message_s);
  const double busy = step.microbatches * sum(costs.forward_s);
  time.bubble = time.seconds > 0 ? std::max(0.0, 1 - busy / (layout.pp * time.seconds)) : 0;
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
    seconds.push_back(
        std::accumulate(first + static_cast<ptrdiff_t>(begin), first + static_cast<ptrdiff_t>(end), 0.0));
    begin = end;
  }
  return seconds;
}

Alternative predict_alternative(
    const Plan& plan, const Forecast& forecast, int pp, const partition::CutPoints& points) {
  Alternative alternative;
  alternative.pp = pp;
  alternative.threads = forecast.threads(pp);
  LayoutOptions layout = plan.layout;
  layout.pp = pp;
  for (Step& step : forecast.steps(pp)) {
    step.sizes = partition::with_unknown(plan.graph, step.sizes);
    const int active = active_ranks(pp, step);
    const partition::Costs costs = forecast.costs(step, alternative.threads, active);
    PipelineCosts pipeline{stage_seconds(points, costs), {}};
    for (size_t cut = 0; cut < points.size(); ++cut) {
      pipeline.transfer_s[{static_cast<int>(cut), static_cast<int>(cut) + 1}] = costs.transfer[points[cut]];
    }
    const double message_s = forecast.rates(alternative.threads, active).message_seconds;
    const StepTime time = predict_step(step, layout, pipeline, message_s);
    alternative.microbatches.push_back(step.microbatches);
    alternative.step_s.push_back(time.seconds);
    alternative.request_s += static_cast<double>(step.count) * time.seconds;
  }
  return alternative;
}

}  // namespace shardpipe::plan
