#include <algorithm>
#include <limits>

#include "schedule/builders.h"

namespace shardpipe::schedule {

double closed_form_bubble(
    std::string_view name,
    int num_ranks,
    int virtual_stages,
    int num_microbatches,
    double forward,
    double input_gradient,
    double weight_gradient) {
  const double fill = num_ranks - 1;
  const double all = forward + input_gradient + weight_gradient;
  const bool equal = forward == input_gradient && forward == weight_gradient;
  const bool fills = num_microbatches >= num_ranks;
  if (name == "fill-drain" || name == "looped-bfs") {
    // With fewer microbatches than ranks each round but the last waits for its first microbatch to come back.
    const int waits = fills ? 0 : num_ranks - num_microbatches;
    return (fill + (virtual_stages - 1.0) * waits) * all;
  }
  if (name == "1f1b" || name == "interleaved") {
    return fill * all;
  }
  if (name == "zb-h1" && fills) {  // F + I - W where W is the shortest
    return fill * (forward + input_gradient - std::min({forward, input_gradient, weight_gradient}));
  }
  if (name == "zb-v" && equal && num_microbatches >= 2 * num_ranks - 1) {
    return fill * forward;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace shardpipe::schedule
