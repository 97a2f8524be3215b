#include "schedule/action.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"

namespace shardpipe::schedule {
namespace {

constexpr std::array<std::pair<ActionKind, std::string_view>, 11> kNames = {{
    {ActionKind::F, "F"},
    {ActionKind::SEND_F, "SEND_F"},
    {ActionKind::RECV_F, "RECV_F"},
    {ActionKind::B, "B"},
    {ActionKind::I, "I"},
    {ActionKind::W, "W"},
    {ActionKind::SEND_B, "SEND_B"},
    {ActionKind::RECV_B, "RECV_B"},
    {ActionKind::REDUCE_GRAD, "REDUCE_GRAD"},
    {ActionKind::SEND_T, "SEND_T"},
    {ActionKind::RECV_T, "RECV_T"},
}};

constexpr int kMaxIndex = 1 << 24;

}  // namespace

std::string_view name_of(ActionKind kind) {
  return std::find_if(kNames.begin(), kNames.end(), [&](const auto& row) { return row.first == kind; })->second;
}

bool is_compute(ActionKind kind) {
  return kind == ActionKind::F || kind == ActionKind::B || kind == ActionKind::I || kind == ActionKind::W;
}

std::string to_string(const Action& action) {
  std::string text = std::to_string(action.stage).append(name_of(action.kind));
  return action.kind == ActionKind::REDUCE_GRAD ? text : text.append(std::to_string(action.microbatch));
}

Action parse_action(std::string_view text) {
  const auto fail = [&] { throw_input("\"{}\" is not an action such as 0F0, 1RECV_F3 or 0REDUCE_GRAD", text); };
  const auto number = [&](std::string_view digits, int& value) {
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (result.ec != std::errc() || result.ptr != digits.data() + digits.size() || value < 0 || value > kMaxIndex) {
      fail();
    }
  };
  Action action;
  const size_t start = std::min(text.find_first_not_of("0123456789"), text.size());
  const size_t end = std::min(text.find_first_of("0123456789", start), text.size());
  const auto row = std::find_if(
      kNames.begin(), kNames.end(), [&](const auto& r) { return r.second == text.substr(start, end - start); });
  if (row == kNames.end()) {
    fail();
  }
  action.kind = row->first;
  number(text.substr(0, start), action.stage);
  if (action.kind != ActionKind::REDUCE_GRAD) {
    number(text.substr(end), action.microbatch);
  } else if (end != text.size()) {
    fail();
  }
  return action;
}

bool has_messages(const Schedule& schedule) {
  return std::any_of(schedule.ranks.begin(), schedule.ranks.end(), [](const auto& actions) {
    return std::any_of(actions.begin(), actions.end(), [](const Action& action) { return !is_compute(action.kind); });
  });
}

}  // namespace shardpipe::schedule
