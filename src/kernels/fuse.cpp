#include "kernels/fuse.h"

#include <algorithm>
#include <set>

#include "graph/alias.h"
#include "kernels/register.h"

namespace shardpipe::kernels {
namespace {

using graph::Argument;
using graph::ArgumentList;
using graph::Graph;
using graph::Node;
using graph::ValueId;
using graph::ValueKind;

constexpr size_t kNone = static_cast<size_t>(-1);

std::string parent(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

// Whether `path` is `module` or inside it; the empty module holds everything.
bool inside(const std::string& path, const std::string& module) {
  return module.empty() || path == module || path.starts_with(module + ".");
}

class Fuser {
 public:
  Fuser(const Graph& graph, int64_t few_rows, std::string many)
      : graph_(graph), few_rows_(few_rows), many_(std::move(many)), replacement_(graph.nodes.size()) {
    register_operators();
    uses_.resize(graph.values.size(), 0);
    producer_.resize(graph.values.size(), kNone);
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      for (const ValueId id : Graph::operands(graph.nodes[n])) {
        ++uses_[index(id)];
      }
      for (const ValueId id : graph.nodes[n].results) {
        producer_[index(id)] = n;
      }
    }
    for (const graph::Output& output : graph.outputs) {
      ++uses_[index(output.value)];
    }
    for (const graph::Update& update : graph.updates) {
      ++uses_[index(update.value)];
    }
    const graph::AliasAnalysis aliases = graph::analyse_aliases(graph);
    std::set<ValueId> written;
    for (const auto& writes : aliases.writes) {
      written.insert(writes.begin(), writes.end());
    }
    for (size_t id = 0; id < graph.values.size(); ++id) {
      mutated_.push_back(written.count(aliases.root[id]) > 0);
    }
  }

  Graph run() {
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      rename(n);
      norm(n);
    }
    gated_products();
    grouped_products();
    Graph fused = graph_;
    fused.nodes.clear();
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (replacement_[n]) {
        fused.nodes.push_back(*replacement_[n]);
      } else if (removed_.count(n) == 0) {
        fused.nodes.push_back(graph_.nodes[n]);
      }
    }
    return fused;
  }

 private:
  static size_t index(ValueId id) { return static_cast<size_t>(id); }

  bool is(size_t n, const char* name) const {
    const Node& node = graph_.nodes[n];
    // A fused operator computes in one state: what stands in a no_grad or autocast region stays as it is.
    return node.op && node.op->operator_name().name == name && removed_.count(n) == 0 && !replacement_[n] &&
           node.grad_enabled && !node.autocast;
  }

  // The node that made an argument, when nothing else reads it.
  size_t sole_producer(const Argument& argument) const {
    const ValueId* id = argument.as_value();
    return id != nullptr && uses_[index(*id)] == 1 ? producer_[index(*id)] : kNone;
  }

  Node like(size_t n, const std::string& name, std::vector<Argument> arguments) const {
    Node node = graph_.nodes[n];
    node.op = graph::find_operator(name);
    node.arguments = std::move(arguments);
    return node;
  }

  void rename(size_t n) {
    for (const char* name : {"shardpipe::rotary", "shardpipe::cached_attention", "shardpipe::cross_attention"}) {
      if (is(n, (std::string(name) + "_reference").c_str())) {
        replacement_[n] = like(n, name, graph_.nodes[n].arguments);
      }
    }
  }

  struct Norm {
    ValueId x;
    Argument weight;
    Argument eps;
    std::vector<size_t> nodes;  // the last one makes the result
  };

  static bool is_dtype_cast(const Node& node) {
    return node.op && node.op->operator_name().name == "aten::to" && node.op->operator_name().overload_name == "dtype";
  }

  // rms_norm over the last dimension with a weight: aten::rms_norm as it is, or (llama in 16 bits) without a weight on
  // the float32 copy, cast back, times the weight.
  std::optional<Norm> match_norm(size_t n) const {
    const Node& node = graph_.nodes[n];
    if (is(n, "aten::rms_norm") && node.arguments[2].as_value() != nullptr) {
      return Norm{*node.arguments[0].as_value(), node.arguments[2], node.arguments[3], {n}};
    }
    if (!is(n, "aten::mul") || node.arguments[0].as_value() == nullptr) {
      return std::nullopt;
    }
    const size_t back = sole_producer(node.arguments[1]);
    if (back == kNone || !is_dtype_cast(graph_.nodes[back])) {
      return std::nullopt;
    }
    const size_t norm = sole_producer(graph_.nodes[back].arguments[0]);
    if (norm == kNone || !is(norm, "aten::rms_norm") || graph_.nodes[norm].arguments[2].as_value() != nullptr) {
      return std::nullopt;
    }
    const size_t up = sole_producer(graph_.nodes[norm].arguments[0]);
    if (up == kNone || !is_dtype_cast(graph_.nodes[up])) {
      return std::nullopt;
    }
    const ValueId x = *graph_.nodes[up].arguments[0].as_value();
    const graph::Value& weight = graph_.values[index(*node.arguments[0].as_value())];
    const graph::Value& wide = graph_.values[index(graph_.nodes[up].results[0])];
    if (wide.dtype != at::kFloat || graph_.values[index(x)].dtype != weight.dtype ||
        graph_.values[index(node.results[0])].dtype != weight.dtype) {
      return std::nullopt;
    }
    return Norm{x, node.arguments[0], graph_.nodes[norm].arguments[3], {up, norm, back, n}};
  }

  // A norm, with the residual addition before it in the same module.
  void norm(size_t n) {
    const std::optional<Norm> found = match_norm(n);
    if (!found) {
      return;
    }
    const graph::Value& weight = graph_.values[index(*found->weight.as_value())];
    const c10::IValue* eps = found->eps.as_constant();
    if (weight.kind != ValueKind::parameter || weight.shape->size() != 1 || eps == nullptr || !eps->isDouble() ||
        mutated_[index(found->x)]) {
      return;
    }
    removed_.insert(found->nodes.begin(), found->nodes.end());
    const Node& node = graph_.nodes[n];
    const size_t add = producer_[index(found->x)];
    if (add != kNone && is(add, "aten::add") && plain_add(add) && !graph_.nodes[add].module.empty() &&
        inside(node.module, graph_.nodes[add].module)) {
      const Node& sum = graph_.nodes[add];
      // It stands where the sum was: other readers of the sum may come before the norm.
      Node joined =
          like(add, "shardpipe::add_rms_norm", {sum.arguments[0], sum.arguments[1], found->weight, found->eps});
      joined.results = {sum.results[0], node.results[0]};
      replacement_[add] = std::move(joined);
      return;
    }
    replacement_[n] = like(n, "shardpipe::rms_norm", {Argument::value(found->x), found->weight, found->eps});
  }

  // aten::add.Tensor of two tensors of one shape and dtype, alpha 1.
  bool plain_add(size_t n) const {
    const Node& node = graph_.nodes[n];
    const ValueId* a = node.arguments[0].as_value();
    const ValueId* b = node.arguments[1].as_value();
    const c10::IValue* alpha = node.arguments[2].as_constant();
    if (node.op->operator_name().overload_name != "Tensor" || a == nullptr || b == nullptr || alpha == nullptr ||
        !alpha->isInt() || alpha->toInt() != 1) {
      return false;
    }
    const graph::Value& left = graph_.values[index(*a)];
    const graph::Value& right = graph_.values[index(*b)];
    return left.shape && left.shape == right.shape && left.dtype == right.dtype && !mutated_[index(*a)] &&
           !mutated_[index(*b)];
  }

  // aten::linear with a weight [out, in] of the checkpoint.
  bool product(size_t n) const {
    if (!is(n, "aten::linear")) {
      return false;
    }
    const Node& node = graph_.nodes[n];
    const ValueId* weight = node.arguments[1].as_value();
    const ValueId* x = node.arguments[0].as_value();
    return weight != nullptr && x != nullptr && graph_.values[index(*weight)].kind == ValueKind::parameter &&
           !mutated_[index(*x)];
  }

  // The operator's name for linear_gated; empty when the node is no activation of it.
  std::string activation(size_t n) const {
    if (is(n, "aten::silu")) {
      return "silu";
    }
    if (is(n, "aten::relu")) {
      return "relu";
    }
    if (is(n, "aten::gelu")) {
      return graph_.nodes[n].arguments[1].as_constant()->toStringRef() == "tanh" ? "gelu_tanh" : "gelu";
    }
    return "";
  }

  // act(linear(x, gate)) * linear(x, up)
  void gated_products() {
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (!is(n, "aten::mul") || graph_.nodes[n].op->operator_name().overload_name != "Tensor") {
        continue;
      }
      const Node& mul = graph_.nodes[n];
      for (const size_t side : {0, 1}) {
        const size_t act = sole_producer(mul.arguments[side]);
        const size_t up = sole_producer(mul.arguments[1 - side]);
        if (act == kNone || up == kNone || activation(act).empty() || !product(up)) {
          continue;
        }
        const size_t gate = sole_producer(graph_.nodes[act].arguments[0]);
        if (gate == kNone || !product(gate) || gate == up) {
          continue;
        }
        const Node& g = graph_.nodes[gate];
        const Node& u = graph_.nodes[up];
        if (*g.arguments[0].as_value() != *u.arguments[0].as_value() || parent(g.module) != parent(u.module)) {
          continue;
        }
        const std::string name = activation(act);
        replacement_[n] = like(
            n, "shardpipe::linear_gated",
            {g.arguments[0], g.arguments[1], u.arguments[1], g.arguments[2], u.arguments[2],
             Argument(c10::IValue(name)), Argument(c10::IValue(few_rows_)), Argument(c10::IValue(many_))});
        removed_.insert({act, gate, up});
        break;
      }
    }
  }

  void grouped_products() {
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (!product(n)) {
        continue;
      }
      std::vector<size_t> group = {n};
      const Node& first = graph_.nodes[n];
      for (size_t m = n + 1; m < graph_.nodes.size() && inside(graph_.nodes[m].module, parent(first.module)); ++m) {
        if (product(m) && *graph_.nodes[m].arguments[0].as_value() == *first.arguments[0].as_value() &&
            parent(graph_.nodes[m].module) == parent(first.module) && !parent(first.module).empty()) {
          group.push_back(m);
        }
      }
      const std::vector<Argument> tail = {Argument(c10::IValue(few_rows_)), Argument(c10::IValue(many_))};
      if (group.size() == 1) {
        replacement_[n] = like(
            n, "shardpipe::linear", {first.arguments[0], first.arguments[1], first.arguments[2], tail[0], tail[1]});
        continue;
      }
      ArgumentList weights;
      ArgumentList biases;
      std::vector<ValueId> results;
      for (const size_t m : group) {
        weights.push_back(graph_.nodes[m].arguments[1]);
        biases.push_back(graph_.nodes[m].arguments[2]);
        results.push_back(graph_.nodes[m].results[0]);
        removed_.insert(m);
      }
      Node joined = like(
          n, "shardpipe::linear_group",
          {first.arguments[0], Argument::list(std::move(weights)), Argument::list(std::move(biases)), tail[0],
           tail[1]});
      joined.results = std::move(results);
      joined.module = parent(first.module);
      replacement_[n] = std::move(joined);
    }
  }

  const Graph& graph_;
  int64_t few_rows_;
  std::string many_;
  std::vector<std::optional<Node>> replacement_;  // by node; a replaced node may also be listed as removed
  std::set<size_t> removed_;
  std::vector<int> uses_;
  std::vector<size_t> producer_;
  std::vector<bool> mutated_;
};

}  // namespace

Graph fuse(const Graph& graph, const KernelChoice& choice, at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return Fuser(graph, choice.few_rows_f32, choice.many_f32).run();
    case at::kBFloat16:
      return Fuser(graph, choice.few_rows_bf16, choice.many_bf16).run();
    default:
      return Fuser(graph, 0, "aten").run();
  }
}

}  // namespace shardpipe::kernels
