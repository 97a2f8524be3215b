#include "graph/verify.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "graph/alias.h"
#include "graph/scalar.h"

namespace shardpipe::graph {
namespace {

bool fits(ValueType value, const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::OptionalType:
      return fits(value, *type.containedType(0));
    case c10::TypeKind::TensorType:
      return value != ValueType::string;  // a number becomes a wrapped one
    case c10::TypeKind::IntType:
      return value == ValueType::integer;
    case c10::TypeKind::FloatType:
      return value == ValueType::number;
    case c10::TypeKind::BoolType:
      return value == ValueType::boolean;
    case c10::TypeKind::StringType:
      return value == ValueType::string;
    case c10::TypeKind::NumberType:
      return value == ValueType::integer || value == ValueType::number || value == ValueType::boolean;
    default:
      return false;
  }
}

// Unlike an argument, a result is never turned into another type.
bool returns(ValueType value, const c10::Type& type) {
  return type.kind() == c10::TypeKind::TensorType ? value == ValueType::tensor : fits(value, type);
}

// A Scalar, or a Tensor, which a number becomes.
bool accepts_any_number(const c10::Type& type) {
  return type.kind() == c10::TypeKind::OptionalType
             ? accepts_any_number(*type.containedType(0))
             : type.kind() == c10::TypeKind::TensorType || type.kind() == c10::TypeKind::NumberType;
}

// A tensor is never a constant argument: it is a buffer, which can be placed and printed.
bool fits(const Graph& graph, const Argument& argument, const c10::Type& type) {
  if (const c10::IValue* constant = argument.as_constant()) {
    return !constant->isTensor() &&
           (constant->type()->isSubtypeOf(type) || (constant->isScalar() && accepts_any_number(type)));
  }
  if (const ValueId* id = argument.as_value()) {
    return fits(graph.values[static_cast<size_t>(*id)].type, type);
  }
  const c10::Type& list = type.kind() == c10::TypeKind::OptionalType ? *type.containedType(0) : type;
  return list.kind() == c10::TypeKind::ListType &&
         std::all_of(argument.as_list()->begin(), argument.as_list()->end(), [&](const Argument& item) {
           return fits(graph, item, *list.containedType(0));
         });
}

class Verifier {
 public:
  Verifier(const Graph& graph, const std::string& where)
      : graph_(graph), where_(where), defined_(graph.values.size()) {}

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
    std::set<std::string> names;
    for (const Output& output : graph_.outputs) {
      if (!names.insert(output.name).second) {
        throw_internal("graph after {}: two outputs are named \"{}\"", where_, output.name);
      }
      if (!in_range(output.value) || !defined_[index(output.value)]) {
        throw_internal("graph after {}: output \"{}\" is not defined", where_, output.name);
      }
    }
    for (const Update& update : graph_.updates) {
      const bool good = in_range(update.state) && graph_.values[index(update.state)].kind == ValueKind::state &&
                        in_range(update.value) && defined_[index(update.value)] &&
                        graph_.values[index(update.value)].type == ValueType::tensor;
      if (!good) {
        throw_internal(
            "graph after {}: update of %{} by %{}: a state by a tensor is needed", where_, update.state, update.value);
      }
    }
    check_writes();
  }

 private:
  static size_t index(ValueId id) { return static_cast<size_t>(id); }
  bool in_range(ValueId id) const { return id >= 0 && index(id) < graph_.values.size(); }

  static bool is_described(const Value& value) {
    const at::IntArrayRef sizes = value.content.sizes();
    return value.dtype == value.content.scalar_type() && value.shape == Shape(sizes.begin(), sizes.end());
  }

  [[noreturn]] void fail(const Node& node, const std::string& rule) const {
    throw_internal("graph after {}: node #{} {} in \"{}\": {}", where_, node.id, node.op_name(), node.module, rule);
  }

  void check_named() {
    const std::set<std::string> dimensions(graph_.dimensions.begin(), graph_.dimensions.end());
    if (dimensions.size() != graph_.dimensions.size()) {
      throw_internal("graph after {}: a dimension is declared twice", where_);
    }
    std::set<std::string> names;
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      const Value& value = graph_.values[id];
      if (value.shape) {
        for (const Size& size : *value.shape) {
          for (const std::string& symbol : size.symbols()) {
            if (dimensions.count(symbol) == 0) {
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
      for (const std::string& tied : value.tied_names) {
        if (!names.insert(tied).second) {
          throw_internal("graph after {}: the name \"{}\" of %{} is used twice", where_, tied, id);
        }
      }
      if (value.content.defined() && !is_described(value)) {
        throw_internal("graph after {}: dtype or shape of \"{}\" are not its content's", where_, value.name);
      }
    }
    for (const ValueId id : graph_.inputs) {
      if (!in_range(id) || graph_.values[index(id)].kind != ValueKind::input || defined_[index(id)]) {
        throw_internal("graph after {}: input %{} is not declared as one or twice", where_, id);
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
    if (!node.op && node.scalar == ScalarOperator::none) {
      check_cond(node);
      return;
    }
    const size_t expected = node.op ? node.op->schema().arguments().size() : num_arguments(node.scalar);
    if (node.arguments.size() != expected) {
      fail(node, fmt::format("{} arguments, its schema has {}", node.arguments.size(), expected));
    }
    for (size_t i = 0; i < expected; ++i) {
      const c10::TypePtr type =
          node.op ? node.op->schema().arguments()[i].type() : c10::TypePtr(c10::NumberType::get());
      if (!fits(graph_, node.arguments[i], *type)) {
        const std::string name = node.op ? node.op->schema().arguments()[i].name() : std::to_string(i);
        fail(node, fmt::format("argument {} is no {}", name, type->str()));
      }
    }
  }

  // Its arguments are the condition and the inputs of both branches, its results their outputs.
  void check_cond(const Node& node) const {
    if (node.branches.size() != 2) {
      fail(node, "it has no operator");
    }
    const Argument* condition = node.arguments.empty() ? nullptr : &node.arguments[0];
    if (condition == nullptr || condition->as_list() != nullptr) {
      fail(node, "it has no condition");
    }
    for (const std::shared_ptr<const Graph>& branch : node.branches) {
      if (branch->inputs.size() + 1 != node.arguments.size() || branch->outputs.size() != node.results.size()) {
        fail(
            node, fmt::format(
                      "a branch of {} inputs and {} outputs for {} operands and {} results", branch->inputs.size(),
                      branch->outputs.size(), node.arguments.size() - 1, node.results.size()));
      }
      if (!branch->used_tensors().empty() || !branch->updates.empty()) {
        fail(node, "a branch holds tensors of its own");
      }
      verify(*branch, where_ + ", branch of #" + std::to_string(node.id));
    }
  }

  void check_results(const Node& node) {
    if (!node.returns_list() && node.branches.empty()) {  // the length of a list is the trace's
      const size_t expected = node.op ? node.op->schema().returns().size() : 1;
      if (node.results.size() != expected) {
        fail(node, fmt::format("{} results, its schema has {}", node.results.size(), expected));
      }
    }
    for (size_t r = 0; r < node.results.size(); ++r) {
      const ValueId id = node.results[r];
      if (!in_range(id) || defined_[index(id)] || graph_.values[index(id)].kind != ValueKind::result) {
        fail(node, fmt::format("result %{} is defined twice or is a named tensor", id));
      }
      const ValueType type = graph_.values[index(id)].type;
      const bool fits = !node.branches.empty() ? type != ValueType::string
                        : !node.op             ? type != ValueType::tensor && type != ValueType::string
                        : node.returns_list()  ? type == ValueType::tensor
                                               : returns(type, *node.op->schema().returns()[r].type());
      if (!fits) {
        fail(node, fmt::format("the type of result %{} is not the schema's", id));
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
