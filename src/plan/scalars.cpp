#include "plan/scalars.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "graph/alias.h"

namespace shardpipe::plan {
namespace {

using graph::Argument;
using graph::Graph;
using graph::kNoValue;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;
using graph::ValueType;
using Kind = ScalarTerm::Kind;

constexpr std::string_view kHidden = "shardpipe.";
constexpr int64_t kMeanReduction = 1;
constexpr int64_t kSumReduction = 2;

// Losses over pairs of elements, and which argument is their reduction.
constexpr std::array<std::pair<std::string_view, size_t>, 8> kElementwise = {{
    {"aten::mse_loss", 2},
    {"aten::l1_loss", 2},
    {"aten::smooth_l1_loss", 2},
    {"aten::huber_loss", 2},
    {"aten::soft_margin_loss", 2},
    {"aten::kl_div", 2},
    {"aten::binary_cross_entropy", 3},
    {"aten::binary_cross_entropy_with_logits", 4},
}};
// (self, target, weight, reduction, ignore_index, …)
constexpr std::array<std::string_view, 6> kClassification = {"aten::cross_entropy_loss", "aten::nll_loss",
                                                             "aten::nll_loss_nd",        "aten::nll_loss2d",
                                                             "aten::nll_loss_forward",   "aten::nll_loss2d_forward"};
constexpr std::array<std::string_view, 12> kSameElements = {
    "aten::view",       "aten::reshape", "aten::_unsafe_view", "aten::squeeze", "aten::unsqueeze", "aten::clone",
    "aten::contiguous", "aten::alias",   "aten::to",           "aten::flatten", "aten::_to_copy",  "aten::permute"};

template <size_t N>
bool among(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::optional<int64_t> integer(const Argument& argument) {
  const c10::IValue* constant = argument.as_constant();
  return constant != nullptr && constant->isInt() ? std::optional(constant->toInt()) : std::nullopt;
}

class Describer {
 public:
  explicit Describer(Graph& graph) : graph_(graph) {
    for (const Node& node : graph.nodes) {
      next_id_ = std::max(next_id_, node.id + 1);
    }
    number_nodes();
  }

  ScalarOutput describe(const graph::Output& output) {
    ScalarOutput scalar{output.name, {}};
    std::vector<Term> found;
    if (find(output.value, 1, found)) {
      for (size_t i = 0; i < found.size(); ++i) {
        scalar.terms.push_back(add(fmt::format("{}{}.{}", kHidden, output.name, i), found[i]));
      }
    }
    return scalar;
  }

 private:
  struct Term {
    Kind kind = Kind::mean;
    ValueId value = kNoValue;
    double coefficient = 1;
  };

  Value& value(ValueId id) { return graph_.values[static_cast<size_t>(id)]; }

  void number_nodes() {
    producer_.assign(graph_.values.size(), graph_.nodes.size());
    varies_.assign(graph_.values.size(), false);
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      varies_[id] = graph_.values[id].kind == ValueKind::input || graph_.values[id].kind == ValueKind::state;
    }
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      const std::vector<ValueId> operands = Graph::operands(graph_.nodes[n]);
      const bool varies =
          std::any_of(operands.begin(), operands.end(), [&](ValueId id) { return varies_[static_cast<size_t>(id)]; });
      for (const ValueId id : graph_.nodes[n].results) {
        producer_[static_cast<size_t>(id)] = n;
        varies_[static_cast<size_t>(id)] = varies;
      }
    }
  }

  // A number that is the same in every run.
  std::optional<double> constant(const Argument& argument) {
    if (const c10::IValue* number = argument.as_constant()) {
      if (number->isInt()) {
        return static_cast<double>(number->toInt());
      }
      return number->isDouble() ? std::optional(number->toDouble()) : std::nullopt;
    }
    const ValueId* id = argument.as_value();
    if (id == nullptr || value(*id).kind != ValueKind::buffer || !value(*id).content.defined() ||
        value(*id).content.numel() != 1 || value(*id).content.is_complex()) {
      return std::nullopt;
    }
    return value(*id).content.item<double>();
  }

  bool find(const Argument& argument, double coefficient, std::vector<Term>& found) {
    const ValueId* id = argument.as_value();
    return id != nullptr && find(*id, coefficient, found);
  }

  // Takes `coefficient` x the value apart; false when that cannot be done.
  bool find(ValueId id, double coefficient, std::vector<Term>& found) {
    if (!varies_[static_cast<size_t>(id)]) {
      found.push_back({Kind::same, id, coefficient});
      return true;
    }
    const size_t n = producer_[static_cast<size_t>(id)];
    if (n == graph_.nodes.size() || !graph_.nodes[n].op) {
      return false;
    }
    const Node& node = graph_.nodes[n];
    const std::string& name = node.op->operator_name().name;
    if (const std::optional<Kind> kind = reduction(node)) {
      if (id != node.results[0]) {
        return false;
      }
      found.push_back({*kind, id, coefficient});
      return true;
    }
    if (among(kSameElements, name)) {
      return find(node.arguments[0], coefficient, found);
    }
    if (name == "aten::neg") {
      return find(node.arguments[0], -coefficient, found);
    }
    if (name == "aten::mul") {
      for (const size_t side : {size_t{0}, size_t{1}}) {
        if (const std::optional<double> factor = constant(node.arguments[side])) {
          return find(node.arguments[1 - side], coefficient * *factor, found);
        }
      }
    }
    if (name == "aten::div" && node.arguments.size() == 2) {
      const std::optional<double> divisor = constant(node.arguments[1]);
      return divisor && find(node.arguments[0], coefficient / *divisor, found);
    }
    if ((name == "aten::add" || name == "aten::sub") && node.arguments.size() == 3) {
      const std::optional<double> alpha = constant(node.arguments[2]);
      const double sign = name == "aten::add" ? 1 : -1;
      return alpha && find(node.arguments[0], coefficient, found) &&
             find(node.arguments[1], sign * *alpha * coefficient, found);
    }
    return false;
  }

  // Whether a node reduces all elements of its arguments to one, and how.
  std::optional<Kind> reduction(const Node& node) {
    const std::string& name = node.op->operator_name().name;
    const auto kind_of = [](const Argument& argument) -> std::optional<Kind> {
      const std::optional<int64_t> given = integer(argument);
      return given == kMeanReduction  ? std::optional(Kind::mean)
             : given == kSumReduction ? std::optional(Kind::sum)
                                      : std::nullopt;
    };
    if (among(kClassification, name)) {
      const ValueId* target = node.arguments[1].as_value();
      const bool known = target != nullptr && value(*target).dtype && integer(node.arguments[4]);
      return known ? kind_of(node.arguments[3]) : std::nullopt;
    }
    for (const auto& [loss, position] : kElementwise) {
      if (name == loss) {
        return kind_of(node.arguments[position]);
      }
    }
    if ((name == "aten::mean" || name == "aten::sum") && reduces_all(node)) {
      return name == "aten::mean" ? Kind::mean : Kind::sum;
    }
    return std::nullopt;
  }

  bool reduces_all(const Node& node) {
    if (node.op->operator_name().overload_name.empty()) {
      return true;
    }
    const c10::IValue* dims = node.arguments[1].as_constant();
    const ValueId* self = node.arguments[0].as_value();
    if (dims == nullptr || self == nullptr || !(dims->isNone() || dims->isIntList())) {
      return false;
    }
    return dims->isNone() || dims->toIntVector().empty() ||
           (value(*self).shape && value(*self).shape->size() == dims->toIntVector().size());
  }

  ScalarTerm add(const std::string& name, const Term& term) {
    ScalarTerm added{term.kind, name + ".term", "", term.coefficient};
    graph_.outputs.push_back({added.output, term.value});
    if (term.kind == Kind::mean) {
      added.count = name + ".count";
      graph_.outputs.push_back({added.count, add_count(term.value)});
    }
    return added;
  }

  // How many elements the mean is over, computed right after it.
  ValueId add_count(ValueId mean) {
    const size_t n = producer_[static_cast<size_t>(mean)];
    const Node node = graph_.nodes[n];
    at_ = n + 1;
    module_ = node.module;
    ValueId count = kNoValue;
    if (!among(kClassification, node.op->operator_name().name)) {
      count = count_elements(node);
    } else if (c10::isIntegralType(*value(*node.arguments[1].as_value()).dtype, false)) {
      count = count_targets(node);
    } else {
      // Probabilities [classes] or [n, classes, …]: one element a position, whatever the weights.
      const ValueId target = *node.arguments[1].as_value();
      const int64_t dimension = value(target).shape && value(target).shape->size() == 1 ? 0 : 1;
      const ValueId positions =
          call("aten::select.int", {Argument::value(target), c10::IValue(dimension), c10::IValue(int64_t{0})});
      count = call("aten::sym_numel", {Argument::value(positions)}, ValueType::integer);
    }
    number_nodes();
    return count;
  }

  ValueId count_elements(const Node& node) {
    ValueId counted = *node.arguments[0].as_value();
    const ValueId* target = node.arguments.size() > 1 ? node.arguments[1].as_value() : nullptr;
    const std::string& name = node.op->operator_name().name;
    if (target != nullptr && name != "aten::mean" && value(counted).shape != value(*target).shape) {
      counted = call("aten::eq.Tensor", {Argument::value(counted), Argument::value(*target)});  // both broadcast
    }
    return call("aten::sym_numel", {Argument::value(counted)}, ValueType::integer);
  }

  ValueId count_targets(const Node& node) {
    const ValueId target = *node.arguments[1].as_value();
    ValueId counted =
        call("aten::ne.Scalar", {Argument::value(target), c10::IValue(integer(node.arguments[4]).value())});
    if (const ValueId* weight = node.arguments[2].as_value()) {
      const ValueId valid = call("aten::mul.Tensor", {Argument::value(target), Argument::value(counted)});
      const ValueId weights = call("aten::take", {Argument::value(*weight), Argument::value(valid)});
      counted = call("aten::mul.Tensor", {Argument::value(weights), Argument::value(counted)});
    }
    return call("aten::sum", {Argument::value(counted), c10::IValue()});
  }

  ValueId call(const std::string& op, std::vector<Argument> arguments, ValueType type = ValueType::tensor) {
    Value result;
    result.type = type;
    const ValueId id = graph_.add_value(std::move(result));
    Node node;
    node.id = next_id_++;
    node.op = graph::find_operator(op);
    node.arguments = std::move(arguments);
    node.results = {id};
    node.module = module_;
    node.grad_enabled = false;
    graph_.nodes.insert(graph_.nodes.begin() + static_cast<ptrdiff_t>(at_++), std::move(node));
    return id;
  }

  Graph& graph_;
  std::vector<size_t> producer_;  // by value: index of its node; nodes.size() for named tensors
  std::vector<bool> varies_;      // by value: whether it depends on inputs
  int32_t next_id_ = 0;
  size_t at_ = 0;  // where call() inserts, and in which module
  std::string module_;
};

bool is_scalar(const Graph& graph, const graph::AliasAnalysis& aliases, const graph::Output& output) {
  const Value& value = graph.values[static_cast<size_t>(output.value)];
  const ValueId owner = aliases.root[static_cast<size_t>(output.value)];
  const bool computed = graph.values[static_cast<size_t>(owner)].kind == ValueKind::result;  // no counter, no parameter
  return computed && value.type == ValueType::tensor && value.shape && value.dtype &&
         c10::isFloatingType(*value.dtype) &&
         std::all_of(
             value.shape->begin(), value.shape->end(), [](const graph::Size& size) { return size == graph::Size(1); });
}

}  // namespace

std::vector<ScalarOutput> describe_scalars(Graph& graph) {
  std::vector<ScalarOutput> scalars;
  const graph::AliasAnalysis aliases = graph::analyse_aliases(graph);
  Describer describer(graph);
  const std::vector<graph::Output> outputs = graph.outputs;
  for (const graph::Output& output : outputs) {
    if (is_scalar(graph, aliases, output)) {
      scalars.push_back(describer.describe(output));
    }
  }
  return scalars;
}

bool is_hidden_output(const std::string& name) {
  return name.starts_with(kHidden);
}

Json to_json(const ScalarOutput& scalar) {
  Json terms = Json::array();
  for (const ScalarTerm& term : scalar.terms) {
    terms.push_back(
        {{"kind", static_cast<int>(term.kind)},
         {"output", term.output},
         {"count", term.count},
         {"coefficient", term.coefficient}});
  }
  return {{"name", scalar.name}, {"terms", terms}};
}

ScalarOutput scalar_from_json(const Json& json) {
  ScalarOutput scalar{json.at("name"), {}};
  for (const Json& term : json.at("terms")) {
    scalar.terms.push_back(
        {static_cast<Kind>(term.at("kind").get<int>()), term.at("output"), term.at("count"), term.at("coefficient")});
  }
  return scalar;
}

}  // namespace shardpipe::plan
