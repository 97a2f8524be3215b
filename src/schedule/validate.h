#pragma once

#include <cstdint>
#include <vector>

#include "schedule/action.h"
#include "schedule/lower.h"

namespace shardpipe::schedule {

/// What may be held between F and the end of B or W.
struct ActivationLimit {
  int64_t per_rank = 0;  ///< 0: no limit
  std::vector<int64_t>
      by_stage;  ///< of one microbatch; empty: 1 each, the limit is then one of (stage, microbatch) pairs
};

struct ValidateOptions {
  ActivationLimit activations;
  /// Messages from one rank to another must be received in the order in which they are sent. Shardpipe's have tags and
  /// need no order; transports without tags do.
  bool messages_in_order = false;
};

/// Checks the compute and communication lists of one step before any rank loads weights, in time proportional to their
/// length:
/// - each (stage, microbatch) has one F on the stage's rank and, when the step has backwards, one B, or one I and a W
///   after it; B or W of a stage come in microbatch order, so that sums of gradients do not depend on the schedule;
/// - each edge's send and receive are there once in either direction, after and before the right compute action;
/// - REDUCE_GRAD is there for no stage, or for each once, after its last B or W;
/// - the lists run to their end: a receive waits for its sends, a send for nothing;
/// - activations stay within the limit.
/// Throws Error(input) naming rank, position and action, with a remedy; a deadlock is shown as the cycle of ranks that
/// wait for each other and what stands around them in their lists.
void validate(const Schedule& schedule, const StageEdges& edges, const ValidateOptions& options = {});

}  // namespace shardpipe::schedule
