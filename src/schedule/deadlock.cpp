#include "schedule/deadlock.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "schedule/walk.h"

namespace shardpipe::schedule {
namespace {

// By edge or stage and microbatch.
class Flags {
 public:
  Flags(size_t rows, int microbatches)
      : microbatches_(static_cast<size_t>(microbatches)), flags_(rows * microbatches_, false) {}
  void set(int row, int microbatch) { flags_[index(row, microbatch)] = true; }
  bool at(int row, int microbatch) const { return flags_[index(row, microbatch)]; }

 private:
  size_t index(int row, int microbatch) const {
    return static_cast<size_t>(row) * microbatches_ + static_cast<size_t>(microbatch);
  }
  size_t microbatches_;
  std::vector<bool> flags_;
};

class Run {
 public:
  Run(const Schedule& schedule, const StageEdges& edges, const EdgeTable& table)
      : schedule_(schedule),
        edges_(edges),
        table_(table),
        sent_(static_cast<size_t>(schedule.num_stages), schedule.num_microbatches),
        gradients_sent_(static_cast<size_t>(schedule.num_stages), schedule.num_microbatches) {
    position_ = walk(schedule, edges, table, [&](size_t, size_t, const Action& action) { return step(action); });
  }

  bool is_stuck(size_t rank) const { return position_[rank] < schedule_.ranks[rank].size(); }
  size_t position(size_t rank) const { return position_[rank]; }
  const Action& action(size_t rank) const { return schedule_.ranks[rank][position_[rank]]; }

  // The send that a stuck rank waits for.
  Action missing_send(size_t rank) const {
    const Action& waiting = action(rank);
    const bool forward = waiting.kind == ActionKind::RECV_F;
    for (const int edge : (forward ? table_.incoming : table_.outgoing)[static_cast<size_t>(waiting.stage)]) {
      const int sender = sender_of(edge, forward);
      if (!(forward ? sent_ : gradients_sent_).at(sender, waiting.microbatch)) {
        return {sender, forward ? ActionKind::SEND_F : ActionKind::SEND_B, waiting.microbatch};
      }
    }
    throw_internal("rank {} waits for nothing", rank);
  }

 private:
  int sender_of(int edge, bool forward) const {
    const auto& [from, to] = edges_[static_cast<size_t>(edge)];
    return forward ? from : to;
  }

  bool step(const Action& action) {
    const bool forward = action.kind == ActionKind::RECV_F;
    if (action.kind == ActionKind::SEND_F) {
      sent_.set(action.stage, action.microbatch);
    } else if (action.kind == ActionKind::SEND_B) {
      gradients_sent_.set(action.stage, action.microbatch);
    } else if (forward || action.kind == ActionKind::RECV_B) {
      const auto& messages = (forward ? table_.incoming : table_.outgoing)[static_cast<size_t>(action.stage)];
      return std::all_of(messages.begin(), messages.end(), [&](int edge) {
        return (forward ? sent_ : gradients_sent_).at(sender_of(edge, forward), action.microbatch);
      });
    }
    return true;
  }

  const Schedule& schedule_;
  const StageEdges& edges_;
  const EdgeTable& table_;
  Flags sent_;  // by stage
  Flags gradients_sent_;
  std::vector<size_t> position_;  // by rank
};

// The actions around a position: "rank 0: 0F1 0SEND_F1 >0RECV_B0< 0B0 0F2".
std::string around(const Schedule& schedule, size_t rank, size_t position) {
  const std::vector<Action>& actions = schedule.ranks[rank];
  std::string text = fmt::format("rank {}:", rank);
  for (size_t i = position < 2 ? 0 : position - 2; i < std::min(actions.size(), position + 5); ++i) {
    text += (i == position ? " >" : " ") + to_string(actions[i]) + (i == position ? "<" : "");
  }
  return text;
}

constexpr size_t kMaxShown = 8;

}  // namespace

void check_deadlock(const Schedule& schedule, const StageEdges& edges, const EdgeTable& table) {
  const Run run(schedule, edges, table);
  size_t rank = 0;
  while (rank < schedule.ranks.size() && !run.is_stuck(rank)) {
    ++rank;
  }
  if (rank == schedule.ranks.size()) {
    return;
  }
  // Every stuck rank waits for a stuck rank, itself perhaps: following them leads into a cycle.
  const auto next = [&](size_t of) {
    return static_cast<size_t>(schedule.rank_of_stage[static_cast<size_t>(run.missing_send(of).stage)]);
  };
  std::set<size_t> passed;
  while (passed.insert(rank).second) {
    rank = next(rank);
  }
  std::string cycle;
  std::string grid;
  size_t shown = 0;
  size_t length = 0;
  size_t at = rank;
  do {
    if (shown < kMaxShown) {
      cycle += fmt::format(
          "{}rank {} waits at position {}, {}, for {} of rank {}", shown == 0 ? "" : ", ", at, run.position(at),
          to_string(run.action(at)), to_string(run.missing_send(at)), next(at));
      grid += fmt::format("{}{}", shown == 0 ? "" : " | ", around(schedule, at, run.position(at)));
      ++shown;
    }
    ++length;
    at = next(at);
  } while (at != rank);
  if (length > shown) {
    cycle += fmt::format(", and {} more ranks", length - shown);
  }
  throw Error(
      ErrorCode::input, fmt::format("the schedule deadlocks: {}; {}", cycle, grid),
      "move one of these receives behind the send that another rank waits for");
}

}  // namespace shardpipe::schedule
