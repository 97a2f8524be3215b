#pragma once

#include "schedule/action.h"

namespace shardpipe::schedule {

/// Whether an action belongs to the backward: B, I, W, their messages, REDUCE_GRAD.
bool is_backward(const Action& action);

/// The same lists, each rank's forwards (and their messages) before its backwards.
Schedule forwards_first(const Schedule& schedule);

/// The forwards alone, for a step without gradients.
Schedule forwards_only(const Schedule& schedule);

/// Without the microbatches from `count` on. Throws Error(usage) when the lists have fewer; `where` names them.
Schedule first_microbatches(const Schedule& schedule, int count, const std::string& where);

}  // namespace shardpipe::schedule
