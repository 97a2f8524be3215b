#include "schedule/select.h"

#include <algorithm>

#include "base/error.h"

namespace shardpipe::schedule {

bool is_backward(const Action& action) {
  switch (action.kind) {
    case ActionKind::B:
    case ActionKind::I:
    case ActionKind::W:
    case ActionKind::SEND_B:
    case ActionKind::RECV_B:
    case ActionKind::REDUCE_GRAD:
      return true;
    case ActionKind::F:
    case ActionKind::SEND_F:
    case ActionKind::RECV_F:
    case ActionKind::SEND_T:
    case ActionKind::RECV_T:
      return false;
  }
  return false;
}

Schedule forwards_first(const Schedule& schedule) {
  Schedule result = schedule;
  for (auto& actions : result.ranks) {
    std::stable_partition(actions.begin(), actions.end(), [](const Action& action) { return !is_backward(action); });
  }
  return result;
}

Schedule forwards_only(const Schedule& schedule) {
  Schedule result = schedule;
  for (auto& actions : result.ranks) {
    std::erase_if(actions, is_backward);
  }
  return result;
}

Schedule first_microbatches(const Schedule& schedule, int count, const std::string& where) {
  if (count > schedule.num_microbatches) {
    throw_usage(
        "{} microbatches (--chunks) for the schedule of {}, which has {}", count, where, schedule.num_microbatches);
  }
  Schedule result = schedule;
  result.num_microbatches = count;
  for (auto& actions : result.ranks) {
    std::erase_if(actions, [&](const Action& action) { return action.microbatch >= count; });
  }
  return result;
}

}  // namespace shardpipe::schedule
