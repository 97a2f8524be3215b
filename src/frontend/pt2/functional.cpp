#include "frontend/pt2/functional.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

#include "graph/alias.h"

namespace shardpipe::pt2 {
namespace {

using graph::Argument;
using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

size_t index(ValueId id) {
  return static_cast<size_t>(id);
}

// Operators whose two forms compute the same from tensors of one dtype; comparisons, say, give booleans out of place.
constexpr std::array<std::string_view, 21> kElementwise = {
    "add",         "clamp",     "clamp_max", "clamp_min",  "div",         "elu",  "exp",
    "hardsigmoid", "hardswish", "hardtanh",  "leaky_relu", "masked_fill", "mish", "mul",
    "neg",         "relu",      "sigmoid",   "silu",       "sub",         "tanh", "threshold"};

// aten::add.Tensor of aten::add_.Tensor, when it takes the same arguments and gives one tensor.
std::optional<c10::OperatorHandle> out_of_place(const Node& node) {
  constexpr std::string_view kNamespace = "aten::";
  if (!node.op) {
    return std::nullopt;
  }
  const c10::OperatorName& full = node.op->operator_name();
  std::string_view name = full.name;
  if (!name.starts_with(kNamespace) || !name.ends_with('_')) {
    return std::nullopt;
  }
  name.remove_suffix(1);
  if (std::find(kElementwise.begin(), kElementwise.end(), name.substr(kNamespace.size())) == kElementwise.end()) {
    return std::nullopt;
  }
  const auto found = c10::Dispatcher::singleton().findSchema({std::string(name), full.overload_name});
  if (!found) {
    return std::nullopt;
  }
  const auto& mine = node.op->schema().arguments();
  const auto& theirs = found->schema().arguments();
  const bool same = std::equal(
      mine.begin(), mine.end(), theirs.begin(), theirs.end(),
      [](const auto& a, const auto& b) { return a.name() == b.name() && *a.type() == *b.type(); });
  return same ? found : std::nullopt;
}

class Rewriter {
 public:
  explicit Rewriter(Graph& graph) : graph_(graph), aliases_(graph::analyse_aliases(graph)) {
    last_use_.assign(graph.values.size(), 0);
    members_.resize(graph.values.size());
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      for (const ValueId id : Graph::operands(graph.nodes[n])) {
        last_use_[index(id)] = n;
      }
    }
    for (const graph::Output& output : graph.outputs) {
      last_use_[index(output.value)] = std::numeric_limits<size_t>::max();
    }
    for (const graph::Update& update : graph.updates) {
      last_use_[index(update.value)] = std::numeric_limits<size_t>::max();
    }
    for (size_t id = 0; id < graph.values.size(); ++id) {
      members_[index(aliases_.root[id])].push_back(static_cast<ValueId>(id));
      replacement_.push_back(static_cast<ValueId>(id));
    }
    defined_at_.resize(graph.values.size());
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      for (const ValueId id : graph.nodes[n].results) {
        defined_at_[index(id)] = n;
      }
    }
  }

  void run() {
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      Node& node = graph_.nodes[n];
      for (Argument& argument : node.arguments) {
        rename(argument);
      }
      const auto op = out_of_place(node);
      const ValueId* self = op ? node.arguments[0].as_value() : nullptr;
      if (self != nullptr && nobody_can_tell(n, *self)) {
        replacement_[index(*self)] = node.results[0];
        node.op = op;
      }
    }
    for (graph::Output& output : graph_.outputs) {
      output.value = now(output.value);
    }
    for (graph::Update& update : graph_.updates) {
      update.value = now(update.value);
    }
  }

 private:
  bool nobody_can_tell(size_t n, ValueId self) {
    const Node& node = graph_.nodes[n];
    const ValueId root = aliases_.root[index(self)];
    const Value& value = graph_.values[index(self)];
    if (graph_.values[index(root)].kind != ValueKind::result || aliases_.writes[n].size() != 1 ||
        node.results.size() != 1 || !value.dtype || !value.shape || (node.autocast && node.autocast->enabled)) {
      return false;
    }
    // Out of place, the other operands would take part in type promotion and broadcasting.
    for (const ValueId id : Graph::operands(node)) {
      const Value& operand = graph_.values[index(id)];
      if (operand.type == graph::ValueType::tensor && operand.dtype != value.dtype) {
        return false;
      }
    }
    const Value& result = graph_.values[index(node.results[0])];
    if (result.dtype != value.dtype || result.shape != value.shape) {
      return false;
    }
    // Views that were made before and are read behind would miss what was written. Results of operators that were in
    // place are the same tensor: they are renamed along.
    return std::all_of(members_[index(root)].begin(), members_[index(root)].end(), [&](ValueId id) {
      return defined_at_[index(id)] >= n || last_use_[index(id)] <= n || now(id) == self;
    });
  }

  // What a value is called after the nodes so far.
  ValueId now(ValueId id) {
    ValueId last = id;
    while (replacement_[index(last)] != last) {
      last = replacement_[index(last)];
    }
    while (replacement_[index(id)] != last) {  // shorter next time
      id = std::exchange(replacement_[index(id)], last);
    }
    return last;
  }

  void rename(Argument& argument) {
    if (graph::ArgumentList* list = argument.as_list()) {
      for (Argument& item : *list) {
        rename(item);
      }
    } else if (const ValueId* id = argument.as_value()) {
      argument = Argument::value(now(*id));
    }
  }

  Graph& graph_;
  const graph::AliasAnalysis aliases_;
  std::vector<size_t> last_use_;               // by value: index of the node; the largest for outputs
  std::vector<size_t> defined_at_;             // by value
  std::vector<std::vector<ValueId>> members_;  // by root: values of its storage
  std::vector<ValueId> replacement_;           // by value: what it is called behind an operator that was in place
};

}  // namespace

void make_functional(Graph& graph) {
  Rewriter(graph).run();
}

}  // namespace shardpipe::pt2
