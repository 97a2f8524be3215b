#include "graph/verify.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "graph/alias.h"

namespace shardpipe::graph {
namespace {

class Verifier {
 public:
  Verifier(const Graph& graph, const std::string& where) : graph_(graph), where_(where), defined_(graph.values.size()) {}

  void run() {
    check_named();
    std::set<int32_t> ids;
    for (const Node& node : graph_.nodes) {
      if (!ids.insert(node.id).second) {
        fail(node, "its id is used twice");
      }
      check_arguments(node);
      check_results(node);
    }
    for (const Output& output : graph_.outputs) {
      if (!in_range(output.value) || !defined_[index(output.value)]) {
        throw_internal("graph after {}: output {} is not defined", where_, output.name);
      }
    }
    check_writes();
  }

 private:
  static size_t index(ValueId id) { return static_cast<size_t>(id); }
  bool in_range(ValueId id) const { return id >= 0 && index(id) < graph_.values.size(); }

  [[noreturn]] void fail(const Node& node, const std::string& rule) const {
    throw_internal("graph after {}: node #{} {} in \"{}\": {}", where_, node.id, node.op_name(), node.module, rule);
  }

  void check_named() {
    std::set<std::string> names;
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      const Value& value = graph_.values[id];
      if (value.shape) {
        for (const Size& size : *value.shape) {
          for (const std::string& symbol : size.symbols()) {
            if (std::find(graph_.dimensions.begin(), graph_.dimensions.end(), symbol) == graph_.dimensions.end()) {
              throw_internal("graph after {}: dimension {} of %{} is not declared", where_, symbol, id);
            }
          }
        }
      }
      if (value.kind == ValueKind::result) {
        continue;
      }
      defined_[id] = value.kind != ValueKind::input;
      if (value.name.empty() || !names.insert(value.name).second) {
        throw_internal("graph after {}: the name \"{}\" of %{} is empty or used twice", where_, value.name, id);
      }
    }
    for (const ValueId id : graph_.inputs) {
      if (!in_range(id) || graph_.values[index(id)].kind != ValueKind::input) {
        throw_internal("graph after {}: input %{} is not declared as one", where_, id);
      }
      defined_[index(id)] = true;
    }
  }

  void check_arguments(const Node& node) const {
    for (const ValueId id : Graph::operands(node)) {
      if (!in_range(id) || !defined_[index(id)]) {
        fail(node, fmt::format("%{} is used before it is defined", id));
      }
    }
    const size_t expected = node.op ? node.op->schema().arguments().size() : 2;
    if (node.arguments.size() != expected) {
      fail(node, fmt::format("{} arguments, its schema has {}", node.arguments.size(), expected));
    }
    if (!node.op && node.scalar == ScalarOperator::none) {
      fail(node, "it has no operator");
    }
    for (size_t i = 0; node.op && i < expected; ++i) {
      const c10::Argument& formal = node.op->schema().arguments()[i];
      const c10::IValue* constant = node.arguments[i].as_constant();
      if (constant != nullptr && constant->isNone() && formal.type()->kind() != c10::TypeKind::OptionalType) {
        fail(node, fmt::format("argument {} is none but not optional", formal.name()));
      }
    }
  }

  void check_results(const Node& node) {
    const size_t expected = node.op ? node.op->schema().returns().size() : 1;
    if (node.results.size() != expected) {
      fail(node, fmt::format("{} results, its schema has {}", node.results.size(), expected));
    }
    for (const ValueId id : node.results) {
      if (!in_range(id) || defined_[index(id)] || graph_.values[index(id)].kind != ValueKind::result) {
        fail(node, fmt::format("result %{} is defined twice or is a named tensor", id));
      }
      defined_[index(id)] = true;
    }
  }

  void check_writes() const {
    const AliasAnalysis aliases = analyse_aliases(graph_);
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      for (const ValueId root : aliases.writes[n]) {
        const Value& value = graph_.values[index(root)];
        if (value.kind == ValueKind::parameter || value.kind == ValueKind::input) {
          fail(graph_.nodes[n], fmt::format("it writes to \"{}\", which is not a state", value.name));
        }
      }
    }
  }

  const Graph& graph_;
  const std::string& where_;
  std::vector<bool> defined_;
};

}  // namespace

void verify(const Graph& graph, const std::string& where) {
  Verifier(graph, where).run();
}

}  // namespace shardpipe::graph
