#include "schedule/action.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "base/error.h"

namespace shardpipe::schedule {
namespace {

constexpr std::array<std::pair<ActionKind, std::string_view>, 8> kNames = {{
    {ActionKind::F, "F"},
    {ActionKind::SEND_F, "SEND_F"},
    {ActionKind::RECV_F, "RECV_F"},
    {ActionKind::B, "B"},
    {ActionKind::SEND_B, "SEND_B"},
    {ActionKind::RECV_B, "RECV_B"},
    {ActionKind::SEND_T, "SEND_T"},
    {ActionKind::RECV_T, "RECV_T"},
}};

std::string_view name_of(ActionKind kind) {
  return std::find_if(kNames.begin(), kNames.end(), [&](const auto& row) { return row.first == kind; })->second;
}

constexpr int kMaxIndex = 1 << 24;

}  // namespace

std::string to_string(const Action& action) {
  return fmt::format("{}{}{}", action.stage, name_of(action.kind), action.microbatch);
}

Action parse_action(std::string_view text) {
  const auto fail = [&] { throw_input("\"{}\" is not an action such as 0F0 or 1RECV_F3", text); };
  Action action;
  const auto stage = std::from_chars(text.data(), text.data() + text.size(), action.stage);
  const size_t start = static_cast<size_t>(stage.ptr - text.data());
  const size_t end = std::min(text.find_first_of("0123456789", start), text.size());
  const auto row = std::find_if(
      kNames.begin(), kNames.end(), [&](const auto& r) { return r.second == text.substr(start, end - start); });
  if (stage.ec != std::errc() || row == kNames.end()) {
    fail();
  }
  action.kind = row->first;
  const auto microbatch = std::from_chars(text.data() + end, text.data() + text.size(), action.microbatch);
  if (microbatch.ec != std::errc() || microbatch.ptr != text.data() + text.size() || action.stage < 0 ||
      action.stage > kMaxIndex || action.microbatch < 0 || action.microbatch > kMaxIndex) {
    fail();
  }
  return action;
}

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
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    const int rank = static_cast<int>(schedule.ranks.size());
    auto& actions = schedule.ranks.emplace_back();
    while (!line.empty()) {
      const size_t comma = std::min(line.find(','), line.size());
      std::string_view cell = line.substr(0, comma);
      line.remove_prefix(std::min(comma + 1, line.size()));
      while (!cell.empty() && (cell.front() == ' ' || cell.front() == '\r')) {
        cell.remove_prefix(1);
      }
      while (!cell.empty() && (cell.back() == ' ' || cell.back() == '\r')) {
        cell.remove_suffix(1);
      }
      if (cell.empty()) {
        continue;  // an idle step
      }
      try {
        actions.push_back(parse_action(cell));
      } catch (Error& error) {
        error.add_context(fmt::format("{}, line {}", where, rank + 1));
        throw;
      }
      const Action& action = actions.back();
      schedule.num_microbatches = std::max(schedule.num_microbatches, action.microbatch + 1);
      const int owner = owners.emplace(action.stage, rank).first->second;
      if (owner != rank) {
        throw_input("stage {} is on rank {} and on rank {} in {}, line {}", action.stage, owner, rank, where, rank + 1);
      }
    }
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
