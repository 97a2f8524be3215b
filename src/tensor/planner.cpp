#include "tensor/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <set>

#include "base/error.h"
#include "graph/op_table.h"
#include "tensor/part_graph.h"
#include "tensor/pins.h"

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
// What a division may cost for each second that it saves. Above one, since it also spares memory, and since these rates
// are those of the slowest collectives.
constexpr double kWorth = 8;
constexpr int64_t kUnknownDimension = 16;

struct Candidate {
  DimensionClass members;
  double saved = 0;  // seconds of one step
  double moved = 0;
  bool written_whole = false;
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
        candidate.moved += kCollective + bytes(id) * kByteMoved;
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
          candidate.moved += kCollective + 2 * bytes(node.results[r]) * kByteMoved;
        }
      }
      return;
    }
    // No way to go on with the pieces: they are gathered before, unless they are to be written.
    const std::set<size_t> written = node.op ? written_operands(node) : std::set<size_t>();
    for (const size_t place : written) {
      candidate.written_whole = candidate.written_whole || members.members.count(operands[place]) > 0;
    }
    for (const ValueId id : operands) {
      if (members.members.count(id) > 0) {
        candidate.moved += kCollective + bytes(id) * kByteMoved;
      }
    }
  }

  const AxisGraph& axes_;
  const Graph& graph_;
  const ShardOptions& options_;
  graph::Dimensions dimensions_;
  std::set<ValueId> outputs_;
};

// Takes candidates one by one.
class Chooser {
 public:
  Chooser(const AxisGraph& graph, const ShardOptions& options)
      : graph_(graph), options_(options), values_(graph.graph().values) {}

  /// Puts the user's wishes before all, cut as the classes found would be where they can.
  void take_pins(const std::vector<Candidate>& candidates) {
    PinnedTensors pins = find_pins(graph_, options_);
    choice.made_whole = std::move(pins.made_whole);
    for (const ValueId id : pins.whole) {
      taken_[id] = {};
      choice.replicated[values_[static_cast<size_t>(id)].name] = "the plan given keeps it whole";
    }
    for (const auto& [id, pin] : pins.dims) {
      const int dim = pin.dim;
      const int64_t size = (*values_[static_cast<size_t>(id)].shape)[static_cast<size_t>(dim)].constant();
      Shard shard = {dim, {size}, spread(size / pin.unit, options_.parts)};
      for (const Candidate& candidate : candidates) {
        const auto at = candidate.members.members.find(id);
        const std::vector<int64_t> units = units_of(candidate.members);
        if (at != candidate.members.members.end() && at->second.dim == dim && !units.empty()) {
          shard = {dim, at->second.blocks, units};
        }
      }
      taken_[id] = shard;
      choice.shards[id] = std::move(shard);
    }
  }

  /// Why the candidate cannot be; empty when it can.
  std::string refusal(const Candidate& candidate) const {
    const auto& members = candidate.members.members;
    if (units_of(candidate.members).empty()) {
      return fmt::format("it can be cut into {} parts at most", candidate.members.units);
    }
    if (candidate.written_whole) {
      return "an operator writes it whole";
    }
    const std::vector<int64_t> units = units_of(candidate.members);
    const bool meets_other = std::any_of(members.begin(), members.end(), [&](const auto& member) {
      const auto at = taken_.find(member.first);
      return at != taken_.end() && at->second != Shard{member.second.dim, member.second.blocks, units};
    });
    return meets_other ? "another dimension is divided, or the plan given keeps it whole" : "";
  }

  void take(const DimensionClass& members) {
    const std::vector<int64_t> units = units_of(members);
    for (const auto& [id, track] : members.members) {
      taken_[id] = {track.dim, track.blocks, units};
    }
    add(choice.shards, members);
  }

  /// Seconds of the collectives of a step, with one more class.
  double seconds_with(const DimensionClass& members) const {
    TensorShards shards = choice.shards;
    add(shards, members);
    return rewrite_seconds(graph_, shards, choice.made_whole, options_.gradients);
  }

  void say(const Candidate& candidate, const std::string& why) {
    for (const auto& [id, track] : candidate.members.members) {
      const Value& value = values_[static_cast<size_t>(id)];
      if (value.kind == ValueKind::parameter) {
        choice.replicated.emplace(value.name, why);
      }
    }
  }

  Choice choice;

 private:
  std::vector<int64_t> units_of(const DimensionClass& members) const {
    if (members.groups > 0) {
      return spread_groups(members.units, members.groups, options_.parts);
    }
    return members.units < options_.parts ? std::vector<int64_t>() : spread(members.units, options_.parts);
  }

  void add(TensorShards& shards, const DimensionClass& members) const {
    const std::vector<int64_t> units = units_of(members);
    for (const auto& [id, track] : members.members) {
      const ValueKind kind = values_[static_cast<size_t>(id)].kind;
      if (kind == ValueKind::parameter || kind == ValueKind::state) {
        shards[id] = {track.dim, track.blocks, units};
      }
    }
  }

  const AxisGraph& graph_;
  const ShardOptions& options_;
  const std::vector<Value>& values_;
  std::map<ValueId, Shard> taken_;  // kept whole: without units
};

}  // namespace

Choice choose_shards(const AxisGraph& graph, const ShardOptions& options) {
  const Weigher weigher(graph, options);
  std::vector<Candidate> candidates;
  for (DimensionClass& found : find_classes(graph)) {
    candidates.push_back(weigher.weigh(std::move(found)));
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.moved * b.saved < b.moved * a.saved;
  });
  Chooser chooser(graph, options);
  chooser.take_pins(candidates);
  std::vector<const Candidate*> costly;
  for (const Candidate& candidate : candidates) {
    const std::string refusal = chooser.refusal(candidate);
    if (!refusal.empty()) {
      chooser.say(candidate, refusal);
    } else if (candidate.moved >= kWorth * candidate.saved) {
      costly.push_back(&candidate);
    } else {
      chooser.take(candidate.members);
    }
  }
  // Collectives that are there already may do for more: sums that are added are reduced once.
  constexpr size_t kTries = 32;
  double before = costly.empty() ? 0 : chooser.seconds_with({});
  for (size_t i = 0; i < costly.size(); ++i) {
    const Candidate& candidate = *costly[i];
    const double seconds = chooser.refusal(candidate).empty() && i < kTries ? chooser.seconds_with(candidate.members)
                                                                            : std::numeric_limits<double>::infinity();
    if (seconds <= before + kWorth * candidate.saved) {
      chooser.take(candidate.members);
      before = seconds;
    } else {
      chooser.say(candidate, "dividing it would cost more than it saves");
    }
  }
  Choice choice = std::move(chooser.choice);
  for (const auto& [id, shard] : choice.shards) {
    choice.replicated.erase(graph.graph().values[static_cast<size_t>(id)].name);
  }
  return choice;
}

}  // namespace shardpipe::tensor
