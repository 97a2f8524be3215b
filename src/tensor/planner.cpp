#include "tensor/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "graph/op_table.h"

namespace shardpipe::tensor {
namespace {

using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

// Rates as those of partition::Rates: enough to weigh compute against collectives. Dimensions that are not known are
// 16, so a weight counts as it is read in a step of few rows.
constexpr double kFlop = 2e-11;
constexpr double kByteRead = 1e-10;
constexpr double kByteMoved = 2e-10;
constexpr int64_t kUnknownDimension = 16;

struct Candidate {
  DimensionClass members;
  double saved = 0;  // seconds of one step
  double moved = 0;
};

class Weigher {
 public:
  Weigher(const AxisGraph& graph, const ShardOptions& options)
      : axes_(graph), graph_(graph.graph()), options_(options) {
    for (const std::string& dimension : graph_.dimensions) {
      dimensions_[dimension] = kUnknownDimension;
    }
    for (const graph::Output& output : graph_.outputs) {
      outputs_.insert(output.value);
    }
  }

  Candidate weigh(DimensionClass members) const {
    Candidate candidate;
    const double share = 1.0 - 1.0 / options_.parts;
    std::set<size_t> nodes;
    for (const auto& [id, track] : members.members) {
      const Value& value = graph_.values[static_cast<size_t>(id)];
      if (value.kind == ValueKind::parameter) {
        candidate.saved += share * bytes(id) * kByteRead;
      }
      if (outputs_.count(id) > 0) {
        candidate.moved += bytes(id) * kByteMoved;
      }
      if (const auto producer = axes_.producer(id)) {
        nodes.insert(*producer);
      }
      for (const auto& [n, place] : axes_.consumers(id)) {
        nodes.insert(n);
      }
    }
    for (const size_t n : nodes) {
      weigh(candidate, members, n, share);
    }
    candidate.members = std::move(members);
    return candidate;
  }

 private:
  double bytes(ValueId id) const {
    const Value& value = graph_.values[static_cast<size_t>(id)];
    return value.type == graph::ValueType::tensor && value.shape && value.dtype
               ? static_cast<double>(graph::size_bytes(value, dimensions_))
               : 0;
  }

  void weigh(Candidate& candidate, const DimensionClass& members, size_t n, double share) const {
    const Node& node = graph_.nodes[n];
    const std::vector<ValueId> operands = Graph::operands(node);
    const auto has = [&](ValueId id, const Track& track) {
      const auto at = members.members.find(id);
      return at != members.members.end() && fits(at->second, track);
    };
    for (const OpAxis& axis : axes_.axes(n)) {
      size_t met = 0;
      for (const auto& [place, track] : axis.operands) {
        met += has(operands[place], track) ? 1 : 0;
      }
      if (met == 0 || met < axis.operands.size()) {
        continue;
      }
      candidate.saved += share * static_cast<double>(graph::node_flops(graph_, node, dimensions_)) * kFlop;
      for (size_t r = 0; r < node.results.size(); ++r) {
        if (axis.results.count(r) == 0) {
          candidate.moved += 2 * bytes(node.results[r]) * kByteMoved;
        }
      }
      return;
    }
    // No way to go on with the pieces: they are gathered before.
    for (const ValueId id : operands) {
      if (members.members.count(id) > 0) {
        candidate.moved += bytes(id) * kByteMoved;
      }
    }
  }

  const AxisGraph& axes_;
  const Graph& graph_;
  const ShardOptions& options_;
  graph::Dimensions dimensions_;
  std::set<ValueId> outputs_;
};

bool holds_tensor(const Value& value) {
  return value.kind == ValueKind::parameter || value.kind == ValueKind::state;
}

}  // namespace

bool matches(const std::string& pattern, const std::string& path) {
  size_t p = 0;
  size_t at = 0;
  while (p < pattern.size()) {
    if (pattern[p] == '*') {
      at = std::min(path.find('.', at), path.size());
      ++p;
    } else if (at < path.size() && pattern[p] == path[at]) {
      ++p;
      ++at;
    } else {
      return false;
    }
  }
  return at == path.size();
}

Choice choose_shards(const AxisGraph& graph, const ShardOptions& options) {
  const Weigher weigher(graph, options);
  std::vector<Candidate> candidates;
  for (DimensionClass& found : find_classes(graph)) {
    candidates.push_back(weigher.weigh(std::move(found)));
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.moved * b.saved < b.moved * a.saved;
  });
  Choice choice;
  std::map<ValueId, Track> taken;
  const std::vector<Value>& values = graph.graph().values;
  for (const Candidate& candidate : candidates) {
    const auto say = [&](const std::string& why) {
      for (const auto& [id, track] : candidate.members.members) {
        const Value& value = values[static_cast<size_t>(id)];
        if (value.kind == ValueKind::parameter) {
          choice.replicated.emplace(value.name, why);
        }
      }
    };
    if (candidate.members.units < options.parts) {
      say(fmt::format("it can be cut into {} parts at most", candidate.members.units));
      continue;
    }
    if (candidate.moved >= candidate.saved) {
      say("dividing it would cost more than it saves");
      continue;
    }
    const auto& members = candidate.members.members;
    if (std::any_of(
            members.begin(), members.end(), [&](const auto& member) { return taken.count(member.first) > 0; })) {
      say("it belongs to two dimensions that are divided");
      continue;
    }
    const std::vector<int64_t> units = spread(candidate.members.units, options.parts);
    for (const auto& [id, track] : members) {
      taken.emplace(id, track);
      if (holds_tensor(values[static_cast<size_t>(id)])) {
        choice.shards[id] = {track.dim, track.blocks, units};
      }
    }
  }
  for (const auto& [id, shard] : choice.shards) {
    choice.replicated.erase(values[static_cast<size_t>(id)].name);
  }
  return choice;
}

}  // namespace shardpipe::tensor
