#include <algorithm>
#include <map>

#include "base/error.h"
#include "schedule/action.h"

namespace shardpipe::schedule {
namespace {

constexpr std::string_view kOverlap = ")OVERLAP_F_B";

std::string_view trim(std::string_view text) {
  const size_t start = std::min(text.find_first_not_of(" \t\r"), text.size());
  return text.substr(start, text.find_last_not_of(" \t\r") + 1 - start);
}

// The part of `text` before the next `separator`; `text` becomes what follows it.
std::string_view take(std::string_view& text, char separator) {
  const size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

void parse_cell(std::string_view cell, std::vector<Action>& actions) {
  cell = trim(cell);
  const bool overlap = cell.starts_with("(") && cell.ends_with(kOverlap);
  if (overlap) {
    cell = cell.substr(1, cell.size() - 1 - kOverlap.size());
    while (!cell.empty()) {
      actions.push_back(parse_action(trim(take(cell, ';'))));
    }
    return;
  }
  const std::string_view name = cell.substr(std::min(cell.find_first_not_of("0123456789"), cell.size()));
  const bool of_fsdp = name != cell && (name == "UNSHARD" || name == "RESHARD");
  if (!cell.empty() && !of_fsdp) {
    actions.push_back(parse_action(cell));
  }
}

}  // namespace

std::string to_csv(const Schedule& schedule) {
  std::string text;
  for (const auto& actions : schedule.ranks) {
    for (size_t i = 0; i < actions.size(); ++i) {
      text += (i == 0 ? "" : ",") + to_string(actions[i]);
    }
    text += "\n";
  }
  return text;
}

Schedule parse_csv(std::string_view text, const std::string& where) {
  Schedule schedule{0, 0, {}, {}};
  std::map<int, int> owners;  // by stage: a number may be large where the file is small
  while (!text.empty()) {
    std::string_view line = take(text, '\n');
    const int rank = schedule.num_ranks();
    auto& actions = schedule.ranks.emplace_back();
    while (!line.empty()) {
      try {
        parse_cell(take(line, ','), actions);
      } catch (Error& error) {
        error.add_context(fmt::format("{}, line {}", where, rank + 1));
        throw;
      }
    }
    for (const Action& action : actions) {
      schedule.num_microbatches = std::max(schedule.num_microbatches, action.microbatch + 1);
      const int owner = owners.emplace(action.stage, rank).first->second;
      if (owner != rank) {
        throw_input("stage {} is on rank {} and on rank {} in {}, line {}", action.stage, owner, rank, where, rank + 1);
      }
    }
  }
  while (!schedule.ranks.empty() && schedule.ranks.back().empty()) {
    schedule.ranks.pop_back();  // empty lines at the end
  }
  if (schedule.ranks.empty()) {
    throw_input("{} has no action", where);
  }
  for (const auto& [stage, rank] : owners) {
    if (stage != schedule.num_stages) {
      throw_input("stage {} has no action in {}, which has actions of stage {}", schedule.num_stages, where, stage);
    }
    ++schedule.num_stages;
    schedule.rank_of_stage.push_back(rank);
  }
  return schedule;
}

}  // namespace shardpipe::schedule
