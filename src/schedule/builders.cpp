#include "schedule/builders.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "schedule/orders.h"

namespace shardpipe::schedule {
namespace {

constexpr int64_t kMaxPairs = int64_t{1} << 23;  // (stage, microbatch) pairs: 8 times 512 ranks x 2,048 microbatches

struct Row {
  std::string_view name;
  int default_virtual;
  std::vector<Action> (*order)(const Shape& shape, int rank);
};
constexpr std::array<Row, 6> kRows = {{
    {"fill-drain", 1, breadth_first_order},
    {"1f1b", 1, one_f_one_b_order},
    {"interleaved", 2, interleaved_order},
    {"looped-bfs", 2, breadth_first_order},
    {"zb-h1", 1, zb_h1_order},
    {"zb-v", 2, zb_v_order},
}};

const Row& row_of(std::string_view name) {
  const auto row = std::find_if(kRows.begin(), kRows.end(), [&](const Row& r) { return r.name == name; });
  if (row == kRows.end()) {
    throw Error(
        ErrorCode::usage, fmt::format("there is no schedule \"{}\"", name),
        fmt::format("one of {}", fmt::join(schedule_names(), ", ")));
  }
  return *row;
}

void check(std::string_view name, const Shape& shape, bool backward) {
  const auto fail = [](std::string message, std::string hint) {
    throw Error(ErrorCode::usage, std::move(message), std::move(hint));
  };
  if (shape.p < 1 || shape.v < 1 || shape.m < 1) {
    throw_usage(
        "a schedule of {} ranks with {} stages each and {} microbatches: all must be at least 1", shape.p, shape.v,
        shape.m);
  }
  if (int64_t{shape.p} * shape.v > kMaxPairs || int64_t{shape.p} * shape.v * shape.m > kMaxPairs) {
    throw_usage(
        "a schedule of {} ranks with {} stages each and {} microbatches: stages x microbatches may be at most {}",
        shape.p, shape.v, shape.m, kMaxPairs);
  }
  if ((name == "1f1b" || name == "zb-h1") && shape.v != 1) {
    fail(
        fmt::format("schedule {} has one stage a rank, not {}", name, shape.v),
        name == "1f1b" ? "with several stages a rank it is called interleaved" : "zb-v has two stages a rank");
  }
  if (name == "zb-v" && shape.v != 2) {
    fail(fmt::format("schedule zb-v has two stages a rank, not {}", shape.v), "zb-h1 has one, interleaved any number");
  }
  if (name == "interleaved" && backward && shape.v == 1) {
    fail("schedule interleaved has at least two stages a rank, not 1", "with one stage a rank it is called 1f1b");
  }
  if (name == "interleaved" && backward && shape.m % shape.p != 0) {
    fail(
        fmt::format(
            "schedule interleaved needs a number of microbatches that is a multiple of its {} ranks, not {}", shape.p,
            shape.m),
        fmt::format("{} microbatches, or another schedule", (shape.m / shape.p + 1) * shape.p));
  }
}

}  // namespace

const std::vector<std::string>& schedule_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Row& row : kRows) {
      list.emplace_back(row.name);
    }
    return list;
  }();
  return names;
}

int default_virtual_stages(std::string_view name) {
  return row_of(name).default_virtual;
}

int rank_of_stage(std::string_view name, int stage, int num_ranks) {
  if (row_of(name).name == "zb-v") {
    return stage < num_ranks ? stage : 2 * num_ranks - 1 - stage;
  }
  return stage % num_ranks;
}

Schedule make_schedule(std::string_view name, int num_ranks, int virtual_stages, int num_microbatches, bool backward) {
  const Row& row = row_of(name);
  const Shape shape{num_ranks, virtual_stages, num_microbatches};
  check(name, shape, backward);
  Schedule schedule{num_ranks * virtual_stages, num_microbatches, {}, {}};
  std::vector<std::vector<int>> stages(static_cast<size_t>(num_ranks));
  for (int stage = 0; stage < schedule.num_stages; ++stage) {
    const int rank = rank_of_stage(name, stage, num_ranks);
    schedule.rank_of_stage.push_back(rank);
    stages[static_cast<size_t>(rank)].push_back(stage);
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    if (backward) {
      schedule.ranks.push_back(row.order(shape, rank));
    } else {
      const int round = name == "interleaved" ? num_ranks : num_microbatches;
      schedule.ranks.push_back(forward_order(stages[static_cast<size_t>(rank)], num_microbatches, round));
    }
  }
  return schedule;
}

Schedule fill_drain(int num_stages, int num_microbatches, bool backward, int num_ranks) {
  if (num_stages < 1 || num_microbatches < 1) {
    throw_usage("a schedule of {} stages and {} microbatches: both must be at least 1", num_stages, num_microbatches);
  }
  const int ranks = num_ranks == 0 ? num_stages : num_ranks;
  Schedule schedule{num_stages, num_microbatches, {}, {}};
  schedule.ranks.resize(static_cast<size_t>(ranks));
  const auto add = [&](int stage, ActionKind kind) {
    for (int microbatch = 0; microbatch < num_microbatches; ++microbatch) {
      schedule.ranks[static_cast<size_t>(stage % ranks)].push_back({stage, kind, microbatch});
    }
  };
  for (int stage = 0; stage < num_stages; ++stage) {
    schedule.rank_of_stage.push_back(stage % ranks);
    add(stage, ActionKind::F);
  }
  for (int stage = num_stages - 1; stage >= 0 && backward; --stage) {
    add(stage, ActionKind::B);
  }
  return schedule;
}

}  // namespace shardpipe::schedule
