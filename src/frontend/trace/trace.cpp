#include "frontend/trace/trace.h"

#include <ATen/ops/empty.h>

#include <set>

#include "base/error.h"
#include "frontend/trace/fit.h"
#include "frontend/trace/module_scope.h"
#include "frontend/trace/recorder.h"
#include "graph/verify.h"

namespace shardpipe::trace {
namespace {

using graph::Argument;
using graph::ArgumentList;
using graph::Graph;
using graph::Size;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;

struct Run {
  Recorder recorder;
  std::vector<std::pair<std::string, ValueId>> outputs;
};

std::vector<std::string> dimension_names(const Program& program) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (const auto* specs : {&program.inputs, &program.states}) {
    for (const TensorSpec& spec : *specs) {
      for (const Size& size : spec.shape) {
        for (const std::string& name : size.symbols()) {
          if (seen.insert(name).second) {
            names.push_back(name);
          }
        }
      }
    }
  }
  return names;
}

void run_once(const Program& program, const graph::Dimensions& sizes, Run& run, std::map<std::string, std::string>& modules) {
  const auto make = [&](const std::vector<TensorSpec>& specs) {
    std::vector<at::Tensor> tensors;
    for (const TensorSpec& spec : specs) {
      tensors.push_back(
          at::empty(graph::evaluate(spec.shape, sizes), at::TensorOptions(spec.dtype).device(at::kMeta)));
      run.recorder.declare(tensors.back());
    }
    return tensors;
  };
  const std::vector<at::Tensor> inputs = make(program.inputs);
  const std::vector<at::Tensor> states = make(program.states);
  for (const NamedTensor& named : program.tensors) {
    if (run.recorder.find(named.tensor) == graph::kNoValue) {
      run.recorder.declare(named.tensor);
    }
  }
  const ModuleScope::Collector collector(modules);
  const Recorder::Scope scope(run.recorder);
  for (const auto& [name, tensor] : program.forward(inputs, states)) {
    run.outputs.emplace_back(name, run.recorder.find(tensor));
  }
}

// Turns the agreeing runs into one graph.
class Builder {
 public:
  Builder(const Program& program, std::vector<std::string> dimensions, std::vector<graph::Dimensions> sizes, std::vector<Run> runs)
      : program_(program), dimensions_(std::move(dimensions)), sizes_(std::move(sizes)), runs_(std::move(runs)) {}

  Graph build() {
    graph_.dimensions = dimensions_;
    declare();
    check_same_operators();
    const std::vector<RecordedNode>& nodes = runs_[0].recorder.nodes();
    for (size_t n = 0; n < nodes.size(); ++n) {
      graph::Node node;
      node.op = nodes[n].op;
      node.module = nodes[n].module;
      node.grad_enabled = nodes[n].grad_enabled;
      for (size_t a = 0; a < nodes[n].arguments.size(); ++a) {
        std::vector<const Argument*> variants;
        for (const Run& run : runs_) {
          variants.push_back(&run.recorder.nodes()[n].arguments[a]);
        }
        node.arguments.push_back(merge(variants, nodes[n]));
      }
      node.results = nodes[n].results;
      node.id = next_node_id_++;
      graph_.nodes.push_back(std::move(node));
    }
    for (const auto& [name, id] : runs_[0].outputs) {
      if (id == graph::kNoValue) {
        throw_usage("output {} of the traced program is not a tensor it computed", name);
      }
      graph_.outputs.push_back({name, id});
    }
    return std::move(graph_);
  }

 private:
  // Values 0.. are the recorder's tensors, in the same order in every run; nodes made for sizes come after them.
  void declare() {
    const auto& tensors = runs_[0].recorder.tensors();
    for (size_t id = 0; id < tensors.size(); ++id) {
      Value value;
      value.dtype = tensors[id].dtype;
      graph_.add_value(std::move(value));
    }
    ValueId next = 0;
    for (const TensorSpec& spec : program_.inputs) {
      Value& value = graph_.values[static_cast<size_t>(next)];
      value.kind = ValueKind::input;
      value.name = spec.name;
      graph_.inputs.push_back(next++);
    }
    for (const TensorSpec& spec : program_.states) {
      Value& value = graph_.values[static_cast<size_t>(next++)];
      value.kind = ValueKind::state;
      value.state = graph::StateKind::per_sequence;
      value.name = spec.name;
    }
    for (const NamedTensor& named : program_.tensors) {
      const ValueId id = runs_[0].recorder.find(named.tensor);
      Value& value = graph_.values[static_cast<size_t>(id)];
      if (!value.name.empty()) {
        value.tied_names.push_back(named.name);
        continue;
      }
      value.kind = named.kind;
      value.name = named.name;
      if (!named.tensor.is_meta()) {
        value.content = named.tensor.contiguous();
      }
    }
    int constant = 0;
    for (const auto& [id, content] : runs_[0].recorder.constants()) {
      Value& value = graph_.values[static_cast<size_t>(id)];
      value.kind = ValueKind::buffer;
      value.name = fmt::format("constant.{}", constant++);
      value.content = content.contiguous();
    }
  }

  void check_same_operators() {
    const std::vector<RecordedNode>& base = runs_[0].recorder.nodes();
    for (const Run& run : runs_) {
      const std::vector<RecordedNode>& nodes = run.recorder.nodes();
      for (size_t n = 0; n < std::max(base.size(), nodes.size()); ++n) {
        if (n >= base.size() || n >= nodes.size() || !(base[n].op.operator_name() == nodes[n].op.operator_name()) ||
            base[n].results != nodes[n].results) {
          const RecordedNode& at = n < base.size() ? base[n] : nodes[n];
          throw_usage(
              "the operators of \"{}\" depend on the sizes of the inputs (at {}), which cannot be traced", at.module,
              c10::str(at.op.operator_name()));
        }
      }
    }
    for (size_t id = 0; id < graph_.values.size(); ++id) {
      std::vector<std::vector<int64_t>> shapes;
      for (const Run& run : runs_) {
        shapes.push_back(run.recorder.tensors()[id].sizes);
      }
      graph::Shape shape;
      for (size_t d = 0; d < shapes[0].size(); ++d) {
        std::vector<int64_t> extents;
        for (const auto& sizes : shapes) {
          extents.push_back(sizes[d]);
        }
        shape.push_back(fit(extents, "a tensor's extent"));
      }
      graph_.values[id].shape = std::move(shape);
    }
  }

  Size fit(const std::vector<int64_t>& values, const std::string& where) {
    const auto size = fit_size(dimensions_, sizes_, values);
    if (!size) {
      throw_usage("{} is no sum or product of the named dimensions: it is {} in the traced runs", where, c10::str(values));
    }
    return *size;
  }

  Argument merge(const std::vector<const Argument*>& variants, const RecordedNode& node) {
    const Argument& base = *variants[0];
    const auto where = [&] { return fmt::format("an argument of {} in \"{}\"", c10::str(node.op.operator_name()), node.module); };
    if (const ArgumentList* items = base.as_list()) {
      ArgumentList merged;
      for (size_t i = 0; i < items->size(); ++i) {
        std::vector<const Argument*> inner;
        for (const Argument* variant : variants) {
          inner.push_back(&variant->as_list()->at(i));
        }
        merged.push_back(merge(inner, node));
      }
      return Argument::list(std::move(merged));
    }
    const c10::IValue* constant = base.as_constant();
    if (constant == nullptr) {
      return base;
    }
    std::vector<std::vector<int64_t>> lists;
    for (const Argument* variant : variants) {
      const c10::IValue& value = *variant->as_constant();
      if (value.isInt()) {
        lists.push_back({value.toInt()});
      } else if (value.isIntList()) {
        lists.push_back(value.toIntVector());
      } else if (!(value == *constant)) {
        throw_usage("{} depends on the sizes of the inputs but is no integer", where());
      }
    }
    if (lists.empty()) {
      return base;
    }
    ArgumentList merged;
    bool varies = false;
    for (size_t i = 0; i < lists[0].size(); ++i) {
      std::vector<int64_t> values;
      for (const auto& list : lists) {
        if (list.size() != lists[0].size()) {
          throw_usage("{} has a length that depends on the sizes of the inputs", where());
        }
        values.push_back(list[i]);
      }
      const Size size = fit(values, where());
      varies = varies || !size.is_constant();
      merged.push_back(size.is_constant() ? Argument(c10::IValue(size.constant())) : Argument::value(size_value(size)));
    }
    if (!varies) {
      return base;
    }
    return constant->isInt() ? merged[0] : Argument::list(std::move(merged));
  }

  ValueId emit(graph::Node node) {
    Value value;
    value.type = graph::ValueType::integer;
    const ValueId id = graph_.add_value(std::move(value));
    node.id = next_node_id_++;
    node.results = {id};
    graph_.nodes.push_back(std::move(node));
    return id;
  }

  // A node that computes the size, made once for each distinct size.
  ValueId size_value(const Size& size) {
    const std::string key = size.str();
    if (const auto found = size_values_.find(key); found != size_values_.end()) {
      return found->second;
    }
    const std::vector<std::string> symbols = size.symbols();
    ValueId result = graph::kNoValue;
    if (size == Size::symbol(symbols[0])) {
      result = dimension_value(symbols[0]);
    } else {
      // The constant term comes first in terms(): c, c + b*x, c + b*x + a*x*y, ...
      std::optional<Argument> sum;
      for (const auto& [names, coefficient] : size.terms()) {
        Argument product{c10::IValue(coefficient)};
        for (size_t i = 0; i < names.size(); ++i) {
          const Argument factor = Argument::value(dimension_value(names[i]));
          product = i == 0 && coefficient == 1 ? factor
                                               : Argument::value(scalar(graph::ScalarOperator::mul, product, factor));
        }
        sum = sum ? Argument::value(scalar(graph::ScalarOperator::add, *sum, product)) : product;
      }
      result = *sum->as_value();
    }
    size_values_[key] = result;
    return result;
  }

  ValueId scalar(graph::ScalarOperator op, const Argument& a, const Argument& b) {
    graph::Node node;
    node.scalar = op;
    node.arguments = {a, b};
    return emit(std::move(node));
  }

  ValueId dimension_value(const std::string& name) {
    const std::string key = Size::symbol(name).str();
    if (const auto found = size_values_.find(key); found != size_values_.end()) {
      return found->second;
    }
    ValueId tensor = 0;
    for (const auto* specs : {&program_.inputs, &program_.states}) {
      for (const TensorSpec& spec : *specs) {
        for (size_t d = 0; d < spec.shape.size(); ++d) {
          if (spec.shape[d] == Size::symbol(name)) {
            graph::Node node;
            node.op = graph::find_operator("aten::sym_size.int");
            node.arguments = {Argument::value(tensor), Argument(c10::IValue(static_cast<int64_t>(d)))};
            return size_values_[key] = emit(std::move(node));
          }
        }
        ++tensor;
      }
    }
    throw_usage("dimension {} is not itself an extent of an input", name);
  }

  const Program& program_;
  std::vector<std::string> dimensions_;
  std::vector<graph::Dimensions> sizes_;
  std::vector<Run> runs_;
  Graph graph_;
  std::map<std::string, ValueId> size_values_;
  int32_t next_node_id_ = 0;
};

}  // namespace

Graph trace(const Program& program) {
  const std::vector<std::string> dimensions = dimension_names(program);
  const std::vector<graph::Dimensions> sizes = probe_sizes(dimensions);
  std::vector<Run> runs(sizes.size());
  std::map<std::string, std::string> modules;
  for (size_t i = 0; i < sizes.size(); ++i) {
    run_once(program, sizes[i], runs[i], modules);
  }
  Graph graph = Builder(program, dimensions, sizes, std::move(runs)).build();
  graph.modules = std::move(modules);
  graph::verify(graph, "trace");
  return graph;
}

}  // namespace shardpipe::trace
