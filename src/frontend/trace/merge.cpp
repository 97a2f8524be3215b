#include "frontend/trace/merge.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "frontend/trace/fit.h"
#include "frontend/trace/size_nodes.h"

namespace shardpipe::trace {
namespace {

using graph::Argument;
using graph::ArgumentList;
using graph::Graph;
using graph::Size;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

class Merger {
 public:
  Merger(
      const Program& program,
      const std::vector<std::string>& dimensions,
      const std::vector<graph::Dimensions>& sizes,
      const std::vector<Run>& runs,
      std::set<graph::Dimensions>& wanted)
      : wanted_(wanted),
        program_(program),
        dimensions_(dimensions),
        sizes_(sizes),
        runs_(runs),
        size_nodes_(program, graph_, next_node_id_) {}

  Graph merge() {
    graph_.dimensions = dimensions_;
    check_same_operators();
    add_values();
    for (size_t n = 0; n < base().nodes().size(); ++n) {
      const RecordedNode& recorded = base().nodes()[n];
      graph::Node node{
          .op = recorded.op,
          .results = recorded.results,
          .module = recorded.module,
          .grad_enabled = recorded.grad_enabled};
      for (size_t a = 0; a < recorded.arguments.size(); ++a) {
        std::vector<const Argument*> variants;
        for (const Run& run : runs_) {
          variants.push_back(&run.recorder.nodes()[n].arguments[a]);
        }
        node.arguments.push_back(merge(variants, recorded));
      }
      node.id = next_node_id_++;
      graph_.nodes.push_back(std::move(node));
    }
    for (const auto& [name, id] : runs_[0].outputs) {
      if (id == graph::kNoValue) {
        throw_usage("output \"{}\" of the traced program is not a tensor it computed", name);
      }
      graph_.outputs.push_back({name, id});
    }
    return std::move(graph_);
  }

 private:
  const Recorder& base() const { return runs_[0].recorder; }

  [[noreturn]] static void fail(const RecordedNode& node, const std::string& what) {
    throw_usage("{} operator {} {}", what, c10::toString(node.op->operator_name()), node.place());
  }

  void check_same_operators() const {
    const std::vector<RecordedNode>& nodes = base().nodes();
    for (const Run& run : runs_) {
      const std::vector<RecordedNode>& others = run.recorder.nodes();
      for (size_t n = 0; n < std::max(nodes.size(), others.size()); ++n) {
        const bool same = n < nodes.size() && n < others.size() &&
                          nodes[n].op->operator_name() == others[n].op->operator_name() &&
                          nodes[n].results == others[n].results && nodes[n].module == others[n].module &&
                          nodes[n].grad_enabled == others[n].grad_enabled;
        if (!same) {
          fail(n < nodes.size() ? nodes[n] : others[n], "control flow depends on the sizes of the inputs, at");
        }
      }
      if (run.outputs != runs_[0].outputs || run.recorder.values().size() != base().values().size()) {
        throw_usage("the outputs of the traced program depend on the sizes of the inputs");
      }
    }
  }

  // Ids are the recorder's, the same in every run; values made for sizes come after them.
  void add_values() {
    for (size_t id = 0; id < base().values().size(); ++id) {
      const RecordedValue& recorded = base().values()[id];
      graph_.add_value({.type = recorded.type, .dtype = recorded.dtype, .shape = merge_shape(id)});
    }
    ValueId next = 0;
    for (const TensorSpec& spec : program_.inputs) {
      describe(next, ValueKind::input, spec.name);
      graph_.inputs.push_back(next++);
    }
    for (const TensorSpec& spec : program_.states) {
      describe(next++, ValueKind::state, spec.name).state = graph::StateKind::per_sequence;
    }
    for (const NamedTensor& named : program_.tensors) {
      const ValueId id = base().find(named.tensor);
      if (!graph_.values[static_cast<size_t>(id)].name.empty()) {
        graph_.values[static_cast<size_t>(id)].tied_names.push_back(named.name);
      } else if (Value& value = describe(id, named.kind, named.name); !named.tensor.is_meta()) {
        value.content = named.tensor.contiguous();
      }
    }
    int count = 0;
    for (const auto& [id, content] : base().constants()) {
      for (const Run& run : runs_) {
        const auto found = run.recorder.constants().find(id);
        if (found == run.recorder.constants().end() || !found->second.equal(content)) {
          throw_usage("a constant of shape {} depends on the sizes of the inputs", c10::str(content.sizes()));
        }
      }
      describe(id, ValueKind::buffer, fmt::format("constant.{}", count++)).content = content.contiguous();
    }
  }

  Value& describe(ValueId id, ValueKind kind, const std::string& name) {
    Value& value = graph_.values[static_cast<size_t>(id)];
    value.kind = kind;
    value.name = name;
    return value;
  }

  // Unknown when an extent is no polynomial of the dimensions, such as that of every second row.
  std::optional<graph::Shape> merge_shape(size_t id) const {
    const auto& sizes = base().values()[id].sizes;
    if (!sizes) {
      return std::nullopt;
    }
    graph::Shape shape;
    for (size_t d = 0; d < sizes->size(); ++d) {
      std::vector<int64_t> extents;
      for (const Run& run : runs_) {
        const auto& others = run.recorder.values()[id].sizes;
        if (!others || others->size() != sizes->size()) {
          return std::nullopt;
        }
        extents.push_back((*others)[d]);
      }
      const auto extent = fit(extents);
      if (!extent) {
        return std::nullopt;
      }
      shape.push_back(*extent);
    }
    return shape;
  }

  Argument merge(const std::vector<const Argument*>& variants, const RecordedNode& node) {
    const Argument& first = *variants[0];
    if (const ArgumentList* items = first.as_list()) {
      ArgumentList merged;
      for (size_t i = 0; i < items->size(); ++i) {
        std::vector<const Argument*> inner;
        for (const Argument* variant : variants) {
          if (variant->as_list() == nullptr || variant->as_list()->size() != items->size()) {
            fail(node, "the length of a list depends on the sizes of the inputs, at");
          }
          inner.push_back(&variant->as_list()->at(i));
        }
        merged.push_back(merge(inner, node));
      }
      return Argument::list(std::move(merged));
    }
    if (const ValueId* id = first.as_value()) {
      for (const Argument* variant : variants) {
        if (variant->as_value() == nullptr || *variant->as_value() != *id) {
          fail(node, "which tensor is used depends on the sizes of the inputs, at");
        }
      }
      return first;
    }
    return merge_constants(variants, node);
  }

  Argument merge_constants(const std::vector<const Argument*>& variants, const RecordedNode& node) {
    const c10::IValue& first = *variants[0]->as_constant();
    std::vector<std::vector<int64_t>> lists;
    for (const Argument* variant : variants) {
      const c10::IValue* value = variant->as_constant();
      if (value == nullptr || value->tagKind() != first.tagKind()) {
        fail(node, "the kind of an argument depends on the sizes of the inputs, at");
      }
      if (value->isInt()) {
        lists.push_back({value->toInt()});
      } else if (value->isIntList()) {
        lists.push_back(value->toIntVector());
      } else if (!same(*value, first)) {
        fail(node, "an argument that is no integer depends on the sizes of the inputs, at");
      }
    }
    if (lists.empty()) {
      return *variants[0];
    }
    ArgumentList merged;
    bool varies = false;
    for (size_t i = 0; i < lists[0].size(); ++i) {
      std::vector<int64_t> values;
      for (const auto& list : lists) {
        if (list.size() != lists[0].size()) {
          fail(node, "the length of a list depends on the sizes of the inputs, at");
        }
        values.push_back(list[i]);
      }
      const auto size = fit(values);
      if (!size) {
        fail(
            node,
            fmt::format(
                "an integer is no polynomial of the named dimensions (the traced runs give {}), at", c10::str(values)));
      }
      varies = varies || !size->is_constant();
      merged.push_back(
          size->is_constant() ? Argument(c10::IValue(size->constant())) : Argument::value(size_nodes_.value(*size)));
    }
    if (!varies) {
      return *variants[0];
    }
    return first.isInt() ? merged[0] : Argument::list(std::move(merged));
  }

  // A stand-in when further runs may tell: the graph is then made once more.
  std::optional<Size> fit(const std::vector<int64_t>& values) const {
    const auto size = fit_size(dimensions_, sizes_, values);
    if (!size) {
      const auto further = further_probe_sizes(dimensions_, sizes_, values);
      wanted_.insert(further.begin(), further.end());
      if (!further.empty()) {
        return Size(values[0]);
      }
    }
    return size;
  }

  static bool same(const c10::IValue& a, const c10::IValue& b) {
    return a == b || (a.isDouble() && std::isnan(a.toDouble()) && std::isnan(b.toDouble()));
  }

  std::set<graph::Dimensions>& wanted_;
  const Program& program_;
  const std::vector<std::string>& dimensions_;
  const std::vector<graph::Dimensions>& sizes_;
  const std::vector<Run>& runs_;
  Graph graph_;
  int32_t next_node_id_ = 0;
  SizeNodes size_nodes_;
};

}  // namespace

Graph merge_runs(
    const Program& program,
    const std::vector<std::string>& dimensions,
    const std::vector<graph::Dimensions>& sizes,
    const std::vector<Run>& runs,
    std::set<graph::Dimensions>& wanted) {
  return Merger(program, dimensions, sizes, runs, wanted).merge();
}

}  // namespace shardpipe::trace
