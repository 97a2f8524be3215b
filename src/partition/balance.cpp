#include "partition/balance.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "graph/alias.h"
#include "graph/op_table.h"

namespace shardpipe::partition {
namespace {

using graph::Graph;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

constexpr int64_t kUnknownDimension = 16;
constexpr double kNever = std::numeric_limits<double>::infinity();

size_t index(ValueId id) {
  return static_cast<size_t>(id);
}

bool is_held(const Value& value) {
  return value.kind == ValueKind::parameter || value.kind == ValueKind::buffer || value.kind == ValueKind::state;
}

// Of a parameter, buffer or state; 0 where it depends on the call, as that of a cache.
double fixed_bytes(const Value& value) {
  const bool fixed =
      value.shape && value.dtype &&
      std::all_of(value.shape->begin(), value.shape->end(), [](const auto& size) { return size.is_constant(); });
  return fixed ? static_cast<double>(graph::size_bytes(value, {})) : 0;
}

double bytes_of(const Value& value, const graph::Dimensions& dimensions) {
  return value.type == graph::ValueType::tensor && value.shape && value.dtype
             ? static_cast<double>(graph::size_bytes(value, dimensions))
             : 0;
}

// States that a node writes are in one stage: no cut between their first and last use.
std::vector<bool> possible_cuts(const Graph& graph) {
  std::vector<bool> possible(graph.nodes.size() + 1, true);
  const graph::AliasAnalysis aliases = graph::analyse_aliases(graph);
  std::vector<size_t> first(graph.values.size(), graph.nodes.size());
  std::vector<size_t> last(graph.values.size(), 0);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    for (const ValueId id : Graph::operands(graph.nodes[n])) {
      const size_t root = index(aliases.root[index(id)]);
      first[root] = std::min(first[root], n);
      last[root] = n;
    }
  }
  for (const std::vector<ValueId>& written : aliases.writes) {
    for (const ValueId root : written) {
      for (size_t point = first[index(root)] + 1; point <= last[index(root)] && is_held(graph.values[index(root)]);
           ++point) {
        possible[point] = false;
      }
    }
  }
  return possible;
}

// The best cuts for the greatest of `stage_cost(begin, end, bytes)`; empty when there are none.
template <typename F>
std::pair<double, CutPoints> best_cuts(const Graph& graph, int stages, F stage_cost) {
  const size_t count = graph.nodes.size();
  const auto parts = static_cast<size_t>(stages);
  const std::vector<bool> possible = possible_cuts(graph);
  // best[k][j]: of the first j nodes in k stages; from[k][j]: where the last of them begins.
  std::vector<std::vector<double>> best(parts + 1, std::vector<double>(count + 1, kNever));
  std::vector<std::vector<size_t>> from(parts + 1, std::vector<size_t>(count + 1, 0));
  std::vector<size_t> seen(graph.values.size(), count);
  best[0][0] = 0;
  for (size_t begin = 0; begin < count; ++begin) {
    if (!possible[begin]) {
      continue;
    }
    int64_t bytes = 0;
    for (size_t end = begin + 1; end <= count; ++end) {
      for (const ValueId id : Graph::operands(graph.nodes[end - 1])) {
        if (is_held(graph.values[index(id)]) && seen[index(id)] != begin) {
          seen[index(id)] = begin;
          bytes += static_cast<int64_t>(fixed_bytes(graph.values[index(id)]));
        }
      }
      if (!possible[end] && end != count) {
        continue;
      }
      const double cost = stage_cost(begin, end, bytes);
      for (size_t k = begin == 0 ? 0 : 1; k < parts && (begin > 0 || k == 0); ++k) {
        const double worst = std::max(best[k][begin], cost);
        if (worst < best[k + 1][end]) {
          best[k + 1][end] = worst;
          from[k + 1][end] = begin;
        }
      }
    }
  }
  CutPoints points;
  if (best[parts][count] != kNever) {
    for (size_t k = parts, end = count; k > 1; --k) {
      end = from[k][end];
      points.insert(points.begin(), end);
    }
  }
  return {best[parts][count], points};
}

// Bytes that a node adds to those of `seen` values, which it marks.
int64_t hold(const Graph& graph, size_t node, std::vector<bool>& seen) {
  double bytes = 0;
  for (const ValueId id : Graph::operands(graph.nodes[node])) {
    if (is_held(graph.values[index(id)]) && !seen[index(id)]) {
      seen[index(id)] = true;
      bytes += fixed_bytes(graph.values[index(id)]);
    }
  }
  return static_cast<int64_t>(bytes);
}

[[noreturn]] void refuse_memory(const Graph& graph, int stages, int64_t memory_bytes, const std::string& what) {
  const double least =
      best_cuts(graph, stages, [](size_t, size_t, int64_t bytes) { return static_cast<double>(bytes); }).first;
  std::string hint =
      fmt::format("--pp {} can be cut into stages of {} bytes at most", stages, static_cast<int64_t>(least));
  if (least > static_cast<double>(memory_bytes)) {
    // The least number of stages that fits, filling one after the other.
    int needed = 1;
    int64_t bytes = 0;
    std::vector<bool> seen(graph.values.size(), false);
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      bytes += hold(graph, n, seen);
      if (bytes <= memory_bytes) {
        continue;
      }
      seen.assign(graph.values.size(), false);
      bytes = hold(graph, n, seen);
      ++needed;
      if (bytes > memory_bytes) {
        hint += fmt::format("; a single operator needs {} bytes: no number of stages fits", bytes);
        throw Error(ErrorCode::usage, what, hint);
      }
    }
    hint += fmt::format("; --pp {} --split balanced fits", needed);
  } else {
    hint += ": --split balanced fits";
  }
  throw Error(ErrorCode::usage, what, hint);
}

}  // namespace

graph::Dimensions with_unknown(const Graph& graph, graph::Dimensions dimensions) {
  for (const std::string& name : graph.dimensions) {
    dimensions.try_emplace(name, kUnknownDimension);
  }
  return dimensions;
}

Costs cost_model(const Graph& graph, const graph::Dimensions& dimensions, const Rates& rates) {
  const graph::Dimensions known = with_unknown(graph, dimensions);
  const size_t count = graph.nodes.size();
  const graph::AliasAnalysis aliases = graph::analyse_aliases(graph);
  Costs costs{std::vector<double>(count), std::vector<double>(count + 1)};
  std::vector<bool> cheap(graph.values.size(), true);
  std::vector<size_t> producer(graph.values.size(), count);
  std::vector<size_t> last_use(graph.values.size(), 0);
  for (size_t id = 0; id < graph.values.size(); ++id) {
    cheap[id] = graph.values[id].kind == ValueKind::input || graph.values[id].kind == ValueKind::buffer;
  }
  for (size_t n = 0; n < count; ++n) {
    const graph::Node& node = graph.nodes[n];
    double bytes = 0;
    bool is_cheap = aliases.writes[n].empty();
    for (const ValueId id : Graph::operands(node)) {
      bytes += bytes_of(graph.values[index(id)], known);
      is_cheap = is_cheap && cheap[index(id)];
      last_use[index(id)] = n;
    }
    for (const ValueId id : node.results) {
      bytes += bytes_of(graph.values[index(id)], known);
      producer[index(id)] = n;
      cheap[index(id)] = is_cheap;
    }
    const double flops = static_cast<double>(graph::node_flops(graph, node, known));
    // A view neither computes nor moves anything.
    costs.compute[n] = is_cheap ? 0
                                : rates.node_seconds +
                                      (flops > 0 ? flops / rates.flops_per_second + bytes / rates.bytes_per_second : 0);
  }
  for (size_t id = 0; id < graph.values.size(); ++id) {
    if (producer[id] < count && !cheap[id]) {
      for (size_t point = producer[id] + 1; point <= last_use[id]; ++point) {
        costs.transfer[point] += bytes_of(graph.values[id], known) / rates.transfer_bytes_per_second;
      }
    }
  }
  return costs;
}

CutPoints cut_balanced(const Graph& graph, int stages, const Costs& costs, int64_t memory_bytes) {
  if (static_cast<size_t>(stages) > graph.nodes.size()) {
    throw_usage(
        "{} stages (--pp) for a program of {} operators: at most one stage an operator", stages, graph.nodes.size());
  }
  std::vector<double> sums(graph.nodes.size() + 1, 0);
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    sums[n + 1] = sums[n] + costs.compute[n];
  }
  const auto stage_cost = [&](size_t begin, size_t end, int64_t bytes) {
    const bool fits = memory_bytes == 0 || bytes <= memory_bytes;
    return fits ? sums[end] - sums[begin] + costs.transfer[begin] + costs.transfer[end] : kNever;
  };
  auto [cost, points] = best_cuts(graph, stages, stage_cost);
  if (cost == kNever) {
    if (memory_bytes > 0) {
      refuse_memory(
          graph, stages, memory_bytes, fmt::format("no cut into {} stages keeps to --memory {}", stages, memory_bytes));
    }
    throw_usage("the program cannot be cut into {} stages: it writes tensors that most of its operators use", stages);
  }
  return points;
}

int64_t held_bytes(const Graph& graph, const CutPoints& points, const std::vector<int>& stages) {
  std::vector<bool> seen(graph.values.size(), false);
  int64_t bytes = 0;
  for (const int number : stages) {
    const auto stage = static_cast<size_t>(number);
    const size_t begin = stage == 0 ? 0 : points[stage - 1];
    const size_t end = stage == points.size() ? graph.nodes.size() : points[stage];
    for (size_t n = begin; n < end; ++n) {
      bytes += hold(graph, n, seen);
    }
  }
  return bytes;
}

void check_memory(
    const Graph& graph, const CutPoints& points, const std::vector<std::vector<int>>& groups, int64_t memory_bytes) {
  for (const std::vector<int>& stages : groups) {
    const int64_t bytes = memory_bytes > 0 ? held_bytes(graph, points, stages) : 0;
    if (bytes > memory_bytes) {
      const std::string held = stages.size() == 1 ? fmt::format("stage {} holds", stages[0])
                                                  : fmt::format("stages {} hold together", fmt::join(stages, ", "));
      refuse_memory(
          graph, static_cast<int>(groups.size()), memory_bytes,
          fmt::format("{} {} bytes of weights, --memory is {}", held, bytes, memory_bytes));
    }
  }
}

}  // namespace shardpipe::partition
