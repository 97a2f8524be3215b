#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace shardpipe::schedule {

/// What a rank does with one microbatch on one stage. Names and text are torch.distributed.pipelining's where it has
/// the action; T is Shardpipe's: the tokens that the last stage chose, which every other stage needs for its next step.
enum class ActionKind {
  F,            ///< forward
  SEND_F,       ///< send every value that later stages need, each to its consumer
  RECV_F,       ///< receive every value that earlier stages produce for this one
  B,            ///< backward: gradients of the stage's parameters and of the values that it received
  I,            ///< the part of B that other stages wait for: gradients of the values that it received
  W,            ///< the rest of B: gradients of the stage's parameters
  SEND_B,       ///< send the gradients of received values, each to the stage that computed it
  RECV_B,       ///< receive the gradients of every value that this stage sent
  REDUCE_GRAD,  ///< sum the stage's parameter gradients over its replicas, once a step: has no microbatch
  SEND_T,       ///< the stage that computes the model's outputs sends the chosen tokens to all other ranks
  RECV_T,       ///< receive them
};

struct Action {
  int stage = 0;
  ActionKind kind = ActionKind::F;
  int microbatch = 0;  ///< 0 in a REDUCE_GRAD
  bool operator==(const Action&) const = default;
};

/// Stage, action, microbatch: "0F0", "1RECV_F3"; "0REDUCE_GRAD".
std::string to_string(const Action& action);
/// Throws Error(input) naming the text.
Action parse_action(std::string_view text);

/// "F", "SEND_F", ...
std::string_view name_of(ActionKind kind);
/// F, B, I or W: takes the rank's time on one microbatch.
bool is_compute(ActionKind kind);

/// One step of a pipeline: what each rank does, in order.
struct Schedule {
  int num_stages = 1;
  int num_microbatches = 1;
  std::vector<int> rank_of_stage;          ///< by stage
  std::vector<std::vector<Action>> ranks;  ///< by pp rank

  int num_ranks() const { return static_cast<int>(ranks.size()); }
  bool operator==(const Schedule&) const = default;
};

/// A list has something else than F, B, I and W.
bool has_messages(const Schedule& schedule);

/// A line a rank, actions joined by commas: torch.distributed.pipelining's CSV.
std::string to_csv(const Schedule& schedule);
/// The lists of a CSV; num_stages, num_microbatches and rank_of_stage follow from them. Of
/// torch.distributed.pipelining's cells, idle ones and UNSHARD and RESHARD (of FSDP's parameters) are passed over, and
/// "(0F1;3B0)OVERLAP_F_B" is its actions one after the other. Throws Error(input) naming `where` and the line; also
/// when stages 0 to the highest do not all have an action.
Schedule parse_csv(std::string_view text, const std::string& where);

}  // namespace shardpipe::schedule
