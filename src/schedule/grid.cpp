#include "schedule/grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace shardpipe::schedule {
namespace {

bool is_shown(const TimedAction& timed) {
  return timed.end > timed.start && (is_compute(timed.action.kind) || timed.action.kind == ActionKind::REDUCE_GRAD);
}

double unit_of(const Simulation& simulation, size_t num_ranks) {
  double shortest = 0;
  int64_t divisor = 0;
  bool whole = true;
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    for (const TimedAction& timed : simulation.ranks[rank]) {
      if (!is_shown(timed)) {
        continue;
      }
      const double takes = timed.end - timed.start;
      shortest = shortest == 0 ? takes : std::min(shortest, takes);
      whole =
          whole && timed.end <= 1e15 && timed.start == std::floor(timed.start) && timed.end == std::floor(timed.end);
      if (whole) {
        divisor = std::gcd(std::gcd(divisor, static_cast<int64_t>(timed.start)), static_cast<int64_t>(timed.end));
      }
    }
  }
  return whole ? static_cast<double>(divisor) : shortest;
}

}  // namespace

std::string grid(const Simulation& simulation, const GridOptions& options) {
  const size_t num_ranks = std::min(simulation.ranks.size(), options.max_ranks);
  const double unit = unit_of(simulation, num_ranks);
  if (unit <= 0) {
    return "";
  }
  const double all = std::ceil(simulation.makespan / unit - 1e-9);
  const auto columns = static_cast<size_t>(std::min(all, static_cast<double>(options.max_columns)));
  std::vector<std::vector<std::string>> rows(num_ranks, std::vector<std::string>(columns, "."));
  size_t width = std::to_string(columns - 1).size();
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    for (const TimedAction& timed : simulation.ranks[rank]) {
      const auto first = static_cast<size_t>(std::llround(std::min(timed.start / unit, 1e9)));
      const auto last = static_cast<size_t>(std::llround(std::min(timed.end / unit, 1e9)));
      for (size_t column = first; is_shown(timed) && column < std::min(last, columns); ++column) {
        rows[rank][column] = column == first ? to_string(timed.action) : "--";
        width = std::max(width, rows[rank][column].size());
      }
    }
  }
  const auto line = [&](const std::string& name, const auto& cell) {
    std::string text = fmt::format("{:<9}", name);
    for (size_t column = 0; column < columns; ++column) {
      text += fmt::format(" {:<{}}", cell(column), width);
    }
    return text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  std::string text = line("time", [](size_t column) { return std::to_string(column); });
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    text += line(fmt::format("rank {}", rank), [&](size_t column) { return rows[rank][column]; });
  }
  if (unit != 1) {
    text += fmt::format("one column is {:.6g}\n", unit);
  }
  if (static_cast<double>(columns) < all) {
    text += fmt::format("shown are the first {} of {:.0f} columns\n", columns, all);
  }
  if (num_ranks < simulation.ranks.size()) {
    text += fmt::format("shown are the first {} of {} ranks\n", num_ranks, simulation.ranks.size());
  }
  return text;
}

}  // namespace shardpipe::schedule
