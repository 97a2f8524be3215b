#include "runtime/loss_counts.h"

#include <ATen/Functions.h>
#include <ATen/core/enum_tag.h>

#include <algorithm>
#include <set>

#include "graph/alias.h"
#include "graph/executor.h"
#include "plan/profile.h"

namespace shardpipe::runtime {
namespace {

using graph::Graph;
using graph::Node;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

constexpr const char* kSizePrefix = "size of %";

// A size that follows from the named dimensions: the number of elements, or one extent, of a value of known shape.
std::optional<graph::Size> known_size(const Graph& graph, const Node& node) {
  if (!node.op ||
      (node.op->operator_name().name != "aten::sym_numel" && node.op->operator_name().name != "aten::sym_size")) {
    return std::nullopt;
  }
  const ValueId* self = node.arguments[0].as_value();
  const Value* value = self == nullptr ? nullptr : &graph.values[static_cast<size_t>(*self)];
  if (value == nullptr || !value->shape) {
    return std::nullopt;
  }
  if (node.op->operator_name().name == "aten::sym_numel") {
    graph::Size size = 1;
    for (const graph::Size& extent : *value->shape) {
      size = size * extent;
    }
    return size;
  }
  const c10::IValue* constant = node.arguments[1].as_constant();
  const auto dims = static_cast<int64_t>(value->shape->size());
  if (constant == nullptr || !constant->isInt() || constant->toInt() < -dims || constant->toInt() >= dims) {
    return std::nullopt;
  }
  return (*value->shape)[static_cast<size_t>((constant->toInt() + dims) % dims)];
}

// Rank 0 counts alone.
bool is_collective(const Node& node) {
  return node.op && node.op->operator_name().name.starts_with("shardpipe::") && node.op->hasSchema() &&
         node.op->schema().argumentIndexWithName("axis").has_value();
}

// The nodes that some values depend on; sizes that follow from the named dimensions become inputs.
class Slice {
 public:
  explicit Slice(const Graph& graph) : graph_(graph), aliases_(graph::analyse_aliases(graph)) {
    producer_.assign(graph.values.size(), graph.nodes.size());
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      for (const ValueId id : graph.nodes[n].results) {
        producer_[static_cast<size_t>(id)] = n;
      }
      for (const ValueId root : aliases_.writes[n]) {
        written_.insert(root);
      }
    }
    part_ = graph;
    part_.nodes.clear();
    part_.inputs.clear();
    part_.outputs.clear();
    part_.updates.clear();
  }

  // False when the value does not follow from what is known before the forward.
  bool add(const std::string& name, ValueId id) {
    part_.outputs.push_back({name, id});
    return need(id);
  }

  Graph take() {
    for (const size_t n : nodes_) {
      part_.nodes.push_back(graph_.nodes[n]);
    }
    return std::move(part_);
  }

 private:
  bool need(ValueId first) {
    std::vector<ValueId> wanted = {first};
    while (!wanted.empty()) {
      const ValueId id = wanted.back();
      wanted.pop_back();
      const Value& value = graph_.values[static_cast<size_t>(id)];
      if (written_.count(aliases_.root[static_cast<size_t>(id)]) > 0) {
        return false;
      }
      const size_t n = producer_[static_cast<size_t>(id)];
      if (n == graph_.nodes.size()) {
        if (value.kind == ValueKind::state ||
            (value.kind == ValueKind::parameter && (!value.shape || value.shape->size() > 1))) {
          return false;
        }
        if (value.kind == ValueKind::input) {
          add_input(id);
        }
        continue;
      }
      const Node& node = graph_.nodes[n];
      if (const std::optional<graph::Size> size = known_size(graph_, node)) {
        Value& input = part_.values[static_cast<size_t>(id)];
        input.kind = ValueKind::input;
        input.name = kSizePrefix + std::to_string(id);
        input.shape = graph::Shape{*size};
        add_input(id);
        continue;
      }
      const bool random = node.op && node.op->hasTag(at::Tag::nondeterministic_seeded);
      if (random || is_collective(node) || !node.branches.empty()) {
        return false;
      }
      if (nodes_.insert(n).second) {
        const std::vector<ValueId> operands = Graph::operands(node);
        wanted.insert(wanted.end(), operands.begin(), operands.end());
      }
    }
    return true;
  }

  void add_input(ValueId id) {
    if (std::find(part_.inputs.begin(), part_.inputs.end(), id) == part_.inputs.end()) {
      part_.inputs.push_back(id);
    }
  }

  const Graph& graph_;
  graph::AliasAnalysis aliases_;
  std::vector<size_t> producer_;  // by value: index of its node
  std::set<ValueId> written_;     // storages that are written in place
  std::set<size_t> nodes_;
  Graph part_;
};

bool is_size(const Value& value) {
  return value.name.starts_with(kSizePrefix);
}

}  // namespace

std::optional<LossCounts> LossCounts::find(const plan::Plan& plan, const std::vector<plan::ScalarTerm>& terms) {
  Slice slice(plan.graph);
  for (const plan::ScalarTerm& term : terms) {
    if (term.count.empty()) {
      continue;
    }
    const auto output = std::find_if(plan.graph.outputs.begin(), plan.graph.outputs.end(), [&](const auto& known) {
      return known.name == term.count;
    });
    if (!slice.add(term.count, output->value)) {
      return std::nullopt;
    }
  }
  LossCounts counts;
  counts.graph_ = slice.take();
  // Sizes need the extents of the inputs.
  for (const ValueId id : plan.graph.inputs) {
    std::vector<ValueId>& inputs = counts.graph_.inputs;
    if (std::find(inputs.begin(), inputs.end(), id) == inputs.end()) {
      inputs.push_back(id);
    }
  }
  return counts;
}

std::vector<std::string> LossCounts::inputs() const {
  std::vector<std::string> names;
  for (const ValueId id : graph_.inputs) {
    const Value& value = graph_.values[static_cast<size_t>(id)];
    if (!is_size(value)) {
      names.push_back(value.name);
    }
  }
  return names;
}

std::optional<ScalarValues> LossCounts::compute(
    int microbatches,
    const std::function<at::Tensor(int microbatch, const std::string& name)>& input,
    const std::function<at::Tensor(const Value& value)>& load) const {
  graph::Executor executor(graph_);
  for (const ValueId id : graph_.used_tensors()) {
    executor.set(id, load(graph_.values[static_cast<size_t>(id)]));
  }
  std::map<std::string, std::vector<at::Tensor>> counts;
  for (int microbatch = 0; microbatch < microbatches; ++microbatch) {
    std::map<std::string, at::Tensor> given;
    for (const std::string& name : inputs()) {
      given[name] = input(microbatch, name);
    }
    const graph::Dimensions sizes = plan::dimensions_of(graph_, given);
    for (const ValueId id : graph_.inputs) {
      const Value& value = graph_.values[static_cast<size_t>(id)];
      if (is_size(value)) {
        const std::vector<std::string> symbols = value.shape->front().symbols();
        if (std::any_of(symbols.begin(), symbols.end(), [&](const auto& name) { return sizes.count(name) == 0; })) {
          return std::nullopt;
        }
        executor.set(id, value.shape->front().evaluate(sizes));
      } else {
        executor.set(id, graph::as_value(given.at(value.name), value.type));
      }
    }
    executor.run();
    for (const graph::Output& output : graph_.outputs) {
      const c10::IValue& value = executor.get(output.value);
      counts[output.name].push_back(
          value.isTensor()
              ? value.toTensor().reshape({}).to(at::kCPU, at::kDouble)
              : at::scalar_tensor(value.isInt() ? static_cast<double>(value.toInt()) : value.toDouble(), at::kDouble));
    }
    executor.release_results();
  }
  ScalarValues values;
  for (const auto& [name, list] : counts) {
    values[name] = at::stack(list);
    if (!at::isfinite(values[name]).all().item<bool>()) {
      return std::nullopt;
    }
  }
  return values;
}

}  // namespace shardpipe::runtime
