#include "plan/footprint.h"

#include <algorithm>
#include <set>

#include "graph/alias.h"

namespace shardpipe::plan {
namespace {

using graph::Graph;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

size_t index(ValueId id) {
  return static_cast<size_t>(id);
}

}  // namespace

int64_t known_bytes(const Value& value, const graph::Dimensions& dimensions) {
  return value.type == graph::ValueType::tensor && value.shape && value.dtype ? graph::size_bytes(value, dimensions)
                                                                              : 0;
}

int64_t peak_activation_bytes(const Graph& graph, const graph::Dimensions& dimensions) {
  const std::vector<ValueId> root = graph::analyse_aliases(graph).root;
  const size_t end = graph.nodes.size();
  std::vector<size_t> last_use(graph.values.size(), 0);
  for (size_t n = 0; n < end; ++n) {
    for (const ValueId id : Graph::operands(graph.nodes[n])) {
      last_use[index(root[index(id)])] = n;
    }
  }
  for (const graph::Output& output : graph.outputs) {
    last_use[index(root[index(output.value)])] = end;
  }
  for (const graph::Update& update : graph.updates) {
    last_use[index(root[index(update.value)])] = end;
  }
  std::vector<int64_t> freed(end + 1, 0);  // after each node
  int64_t held = 0;
  for (const ValueId id : graph.inputs) {
    const int64_t bytes = known_bytes(graph.values[index(id)], dimensions);
    held += bytes;
    freed[last_use[index(id)]] += bytes;
  }
  int64_t peak = held;
  for (size_t n = 0; n < end; ++n) {
    for (const ValueId id : graph.nodes[n].results) {
      if (root[index(id)] == id) {
        const int64_t bytes = known_bytes(graph.values[index(id)], dimensions);
        held += bytes;
        freed[std::max(last_use[index(id)], n)] += bytes;
      }
    }
    peak = std::max(peak, held);
    held -= freed[n];
  }
  return peak;
}

int64_t cache_bytes(const Graph& graph, const graph::Dimensions& dimensions) {
  int64_t bytes = 0;
  for (const ValueId id : graph.used_tensors()) {
    const Value& value = graph.values[index(id)];
    if (value.kind == ValueKind::state && value.state == graph::StateKind::per_sequence) {
      bytes += known_bytes(value, dimensions);
    }
  }
  return bytes;
}

Parameters parameters_of(const std::vector<const Graph*>& graphs) {
  Parameters sum;
  std::set<ValueId> counted;
  for (const Graph* graph : graphs) {
    for (const ValueId id : graph->used_tensors()) {
      const Value& value = graph->values[index(id)];
      const bool state = value.kind == ValueKind::state && value.state == graph::StateKind::per_sequence;
      if (state || !counted.insert(id).second) {
        continue;
      }
      const int64_t bytes = known_bytes(value, {});
      sum.weight_bytes += bytes;
      if (value.kind == ValueKind::parameter) {
        sum.bytes += bytes;
        sum.count += value.dtype ? bytes / static_cast<int64_t>(c10::elementSize(*value.dtype)) : 0;
      }
    }
  }
  return sum;
}

}  // namespace shardpipe::plan
