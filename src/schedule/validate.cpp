#include "schedule/validate.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "schedule/deadlock.h"

namespace shardpipe::schedule {
namespace {

[[noreturn]] void fail(
    size_t rank, size_t position, const Action& action, const std::string& rule, const std::string& remedy) {
  throw Error(
      ErrorCode::input,
      fmt::format("schedule of rank {}, position {}, action {}: {}", rank, position, to_string(action), rule), remedy);
}

constexpr unsigned bit(ActionKind kind) {
  return 1U << static_cast<unsigned>(kind);
}
constexpr unsigned kInputGradients = bit(ActionKind::B) | bit(ActionKind::I);
constexpr unsigned kWeightGradients = bit(ActionKind::B) | bit(ActionKind::W);

[[noreturn]] void fail_missing(const Schedule& schedule, const Action& action) {
  throw Error(
      ErrorCode::input, fmt::format("the schedule has no {}", to_string(action)),
      fmt::format(
          "rank {} has the stage; all {} stages and {} microbatches need theirs",
          schedule.rank_of_stage[static_cast<size_t>(action.stage)], schedule.num_stages, schedule.num_microbatches));
}

// Before memory is taken for each pair: a number of seven digits in a short list must not cost megabytes.
void check_forward_count(const Schedule& schedule) {
  std::vector<std::pair<int, int>> forwards;
  const int64_t needed = int64_t{schedule.num_stages} * schedule.num_microbatches;
  int64_t count = 0;
  for (const auto& actions : schedule.ranks) {
    count += std::count_if(
        actions.begin(), actions.end(), [](const Action& action) { return action.kind == ActionKind::F; });
  }
  if (count >= needed) {
    return;
  }
  for (const auto& actions : schedule.ranks) {
    for (const Action& action : actions) {
      if (action.kind == ActionKind::F) {
        forwards.emplace_back(action.stage, action.microbatch);
      }
    }
  }
  std::sort(forwards.begin(), forwards.end());
  forwards.erase(std::unique(forwards.begin(), forwards.end()), forwards.end());
  Action missing;
  for (const auto& [stage, microbatch] : forwards) {
    if (stage != missing.stage || microbatch != missing.microbatch) {
      break;
    }
    if (++missing.microbatch == schedule.num_microbatches) {
      missing = {missing.stage + 1, ActionKind::F, 0};
    }
  }
  fail_missing(schedule, missing);
}

// What has been listed so far of each (stage, microbatch). All actions of a stage are in one rank's list, so that their
// order needs no look at other ranks.
class Lists {
 public:
  Lists(const Schedule& schedule, const EdgeTable& table)
      : schedule_(schedule),
        table_(table),
        seen_(static_cast<size_t>(schedule.num_stages) * static_cast<size_t>(schedule.num_microbatches), 0),
        summed_(static_cast<size_t>(schedule.num_stages), 0),
        reduced_(static_cast<size_t>(schedule.num_stages), false) {}

  void check() {
    for (size_t rank = 0; rank < schedule_.ranks.size(); ++rank) {
      for (size_t i = 0; i < schedule_.ranks[rank].size(); ++i) {
        const Action& action = schedule_.ranks[rank][i];
        check_place(rank, i, action);
        if (action.kind == ActionKind::REDUCE_GRAD) {
          check_reduction(rank, i, action);
        } else {
          check_action(rank, i, action);
        }
      }
    }
    check_complete();
  }

 private:
  unsigned& seen(const Action& action) {
    return seen_
        [static_cast<size_t>(action.stage) * static_cast<size_t>(schedule_.num_microbatches) +
         static_cast<size_t>(action.microbatch)];
  }
  bool has_incoming(int stage) const { return !table_.incoming[static_cast<size_t>(stage)].empty(); }
  bool has_outgoing(int stage) const { return !table_.outgoing[static_cast<size_t>(stage)].empty(); }

  void check_place(size_t rank, size_t i, const Action& action) const {
    if (action.stage < 0 || action.stage >= schedule_.num_stages || action.microbatch < 0 ||
        action.microbatch >= schedule_.num_microbatches) {
      fail(
          rank, i, action,
          fmt::format("there are {} stages and {} microbatches", schedule_.num_stages, schedule_.num_microbatches),
          "leave it out, or count stages and microbatches from 0");
    }
    const int owner = schedule_.rank_of_stage[static_cast<size_t>(action.stage)];
    if (owner != static_cast<int>(rank)) {
      fail(
          rank, i, action, fmt::format("stage {} is not on this rank", action.stage),
          fmt::format("move it to rank {}, which has the stage", owner));
    }
  }

  void check_reduction(size_t rank, size_t i, const Action& action) {
    const auto stage = static_cast<size_t>(action.stage);
    if (reduced_[stage]) {
      fail(rank, i, action, "the gradients were reduced before", "leave one of the two out");
    }
    if (summed_[stage] < schedule_.num_microbatches) {
      fail(
          rank, i, action,
          fmt::format("{} of {} microbatches have added their gradients", summed_[stage], schedule_.num_microbatches),
          "move it behind the stage's last B or W");
    }
    reduced_[stage] = true;
    has_reductions_ = true;
  }

  void check_action(size_t rank, size_t i, const Action& action) {
    unsigned& done = seen(action);
    const auto needs = [&](unsigned kinds, const char* rule, ActionKind before) {
      if ((done & kinds) == 0) {
        fail(rank, i, action, rule, to_string({action.stage, before, action.microbatch}) + " before it");
      }
    };
    const auto once = [&](unsigned kinds, const char* rule) {
      if ((done & kinds) != 0) {
        fail(rank, i, action, rule, "leave one of the two out");
      }
    };
    const auto reachable = [&](bool reached, const char* rule) {
      if (!reached) {
        fail(rank, i, action, rule, "leave it out");
      }
    };
    switch (action.kind) {
      case ActionKind::RECV_F:
        reachable(has_incoming(action.stage), "no stage sends to this one");
        once(bit(ActionKind::RECV_F), "the values were received before");
        break;
      case ActionKind::F:
        if (has_incoming(action.stage)) {
          needs(bit(ActionKind::RECV_F), "its inputs were not received", ActionKind::RECV_F);
        }
        once(bit(ActionKind::F), "the forward ran before");
        break;
      case ActionKind::SEND_F:
        reachable(has_outgoing(action.stage), "there is nothing to send: no stage needs values of this one");
        needs(bit(ActionKind::F), "the forward did not run before", ActionKind::F);
        once(bit(ActionKind::SEND_F), "there is nothing to send: the values were sent before");
        break;
      case ActionKind::RECV_B:
        reachable(has_outgoing(action.stage), "no stage sends gradients to this one");
        needs(bit(ActionKind::F), "the forward did not run before", ActionKind::F);
        once(bit(ActionKind::RECV_B), "the gradients were received before");
        has_backwards_ = true;
        break;
      case ActionKind::B:
      case ActionKind::I:
        needs(bit(ActionKind::F), "the forward did not run before", ActionKind::F);
        if (has_outgoing(action.stage)) {
          needs(bit(ActionKind::RECV_B), "its gradients were not received", ActionKind::RECV_B);
        }
        once(kInputGradients, "the backward ran before");
        break;
      case ActionKind::W:
        once(kWeightGradients, "the gradients of the weights were computed before");
        needs(bit(ActionKind::I), "the gradients of the inputs come first", ActionKind::I);
        break;
      case ActionKind::SEND_B:
        reachable(has_incoming(action.stage), "there is nothing to send: no stage sent values to this one");
        needs(kInputGradients, "the backward did not run before", ActionKind::B);
        once(bit(ActionKind::SEND_B), "there is nothing to send: the gradients were sent before");
        break;
      default:
        break;  // tokens go from step to step
    }
    done |= bit(action.kind);
    if ((bit(action.kind) & (kInputGradients | kWeightGradients)) != 0) {
      has_backwards_ = true;
    }
    if ((bit(action.kind) & kWeightGradients) != 0) {
      int& next = summed_[static_cast<size_t>(action.stage)];
      if (action.microbatch != next) {
        fail(
            rank, i, action,
            fmt::format("the backward of microbatch {} has not run: sums would change their order", next),
            "list B, or W, of a stage in microbatch order");
      }
      ++next;
    }
  }

  void check_complete() {
    for (int stage = 0; stage < schedule_.num_stages; ++stage) {
      for (int microbatch = 0; microbatch < schedule_.num_microbatches; ++microbatch) {
        const unsigned done = seen({stage, ActionKind::F, microbatch});
        const auto missing = [&](ActionKind kind) { fail_missing(schedule_, {stage, kind, microbatch}); };
        if ((done & bit(ActionKind::F)) == 0) {
          missing(ActionKind::F);
        }
        if (has_outgoing(stage) && (done & bit(ActionKind::SEND_F)) == 0) {
          missing(ActionKind::SEND_F);
        }
        if (!has_backwards_) {
          continue;
        }
        if ((done & kInputGradients) == 0) {
          missing(ActionKind::B);
        }
        if ((done & kWeightGradients) == 0) {
          missing(ActionKind::W);
        }
        if (has_incoming(stage) && (done & bit(ActionKind::SEND_B)) == 0) {
          missing(ActionKind::SEND_B);
        }
      }
      if (has_reductions_ && !reduced_[static_cast<size_t>(stage)]) {
        throw Error(
            ErrorCode::input, fmt::format("the schedule has no {}", to_string({stage, ActionKind::REDUCE_GRAD, 0})),
            "other stages have one: put it behind the stage's last B or W");
      }
    }
  }

  const Schedule& schedule_;
  const EdgeTable& table_;
  std::vector<unsigned> seen_;  // by stage and microbatch: bits of ActionKind
  std::vector<int> summed_;     // by stage: microbatches whose B or W is listed
  std::vector<bool> reduced_;
  bool has_backwards_ = false;
  bool has_reductions_ = false;
};

void check_activations(const Schedule& schedule, const ActivationLimit& limit) {
  const auto of_stage = [&](int stage) {
    return limit.by_stage.empty() ? 1 : limit.by_stage[static_cast<size_t>(stage)];
  };
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    int64_t held = 0;
    for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const Action& action = schedule.ranks[rank][i];
      if (action.kind == ActionKind::F) {
        held += of_stage(action.stage);
      } else if (action.kind == ActionKind::B || action.kind == ActionKind::W) {
        held -= of_stage(action.stage);
      }
      if (held > limit.per_rank) {
        fail(
            rank, i, action, fmt::format("activations held are {}, the limit is {}", held, limit.per_rank),
            "a B or W earlier, smaller microbatches, or a schedule such as 1f1b");
      }
    }
  }
}

// The messages from one rank to another as their edges, microbatches and directions, in the sender's or receiver's
// order.
using Link = std::pair<int, int>;
struct Message {
  int edge;
  int microbatch;
  bool forward;
  size_t position;
};

std::map<Link, std::vector<Message>> messages(
    const Schedule& schedule, const StageEdges& edges, const EdgeTable& table, bool sent) {
  std::map<Link, std::vector<Message>> links;
  for (size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    for (size_t i = 0; i < schedule.ranks[rank].size(); ++i) {
      const Action& action = schedule.ranks[rank][i];
      const bool forward = action.kind == (sent ? ActionKind::SEND_F : ActionKind::RECV_F);
      if (!forward && action.kind != (sent ? ActionKind::SEND_B : ActionKind::RECV_B)) {
        continue;
      }
      const auto& of_stage = (forward == sent ? table.outgoing : table.incoming)[static_cast<size_t>(action.stage)];
      for (const int edge : of_stage) {
        const auto& [from, to] = edges[static_cast<size_t>(edge)];
        const int producer = schedule.rank_of_stage[static_cast<size_t>(from)];
        const int consumer = schedule.rank_of_stage[static_cast<size_t>(to)];
        if (producer != consumer) {
          links[forward ? Link{producer, consumer} : Link{consumer, producer}].push_back(
              {edge, action.microbatch, forward, i});
        }
      }
    }
  }
  return links;
}

void check_message_order(const Schedule& schedule, const StageEdges& edges, const EdgeTable& table) {
  const auto sent = messages(schedule, edges, table, true);
  auto received = messages(schedule, edges, table, false);
  for (const auto& [link, list] : sent) {
    const std::vector<Message>& other = received[link];
    for (size_t i = 0; i < list.size() && i < other.size(); ++i) {
      if (list[i].edge != other[i].edge || list[i].microbatch != other[i].microbatch ||
          list[i].forward != other[i].forward) {
        const auto rank = static_cast<size_t>(link.second);
        const Action& waits = schedule.ranks[rank][other[i].position];
        const Action& next = schedule.ranks[static_cast<size_t>(link.first)][list[i].position];
        fail(
            rank, other[i].position, waits,
            fmt::format("the next message of rank {} is that of {}", link.first, to_string(next)),
            "receive in the order of the sends, or use a transport with tags");
      }
    }
  }
}

}  // namespace

void validate(const Schedule& schedule, const StageEdges& edges, const ValidateOptions& options) {
  const EdgeTable table = edge_table(schedule.num_stages, edges);
  check_forward_count(schedule);
  Lists(schedule, table).check();
  check_deadlock(schedule, edges, table);
  if (options.activations.per_rank > 0) {
    check_activations(schedule, options.activations);
  }
  if (options.messages_in_order) {
    check_message_order(schedule, edges, table);
  }
}

}  // namespace shardpipe::schedule
