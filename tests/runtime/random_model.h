#pragma once

// Random programs: DAGs of common operators with skips, integers, masks, statistics, writes in place, tied weights.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>

#include <random>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::test {

/// A program over inputs x [n, 4] and y [n, 4] float32, ids [n] int64 and k (an integer), that returns out [n, 4],
/// count (an integer) and a scalar loss.
class RandomModel {
 public:
  explicit RandomModel(unsigned seed) : random_(seed), generator_(at::detail::createCPUGenerator(seed)) {
    using graph::ValueKind;
    graph.dimensions = {"n"};
    const graph::Shape rows = {graph::Size::symbol("n"), 4};
    x_ = input("x", at::kFloat, rows);
    y_ = input("y", at::kFloat, rows);
    ids_ = input("ids", at::kLong, graph::Shape{graph::Size::symbol("n")});
    graph::Value k;
    k.type = graph::ValueType::integer;
    k.kind = ValueKind::input;
    k.name = "k";
    k_ = graph.add_value(k);
    graph.inputs.push_back(k_);
    table_ = parameter("table", {4, 4});
    floats_ = {x_, call("aten::embedding", {v(table_), v(ids_), i(-1), b(false), b(false)}, shape())};
    const size_t count = 6 + draw(14);
    for (size_t step = 0; step < count; ++step) {
      module_ = "m" + std::to_string(step);
      graph.modules[module_] = "Module";
      add_step();
    }
    module_ = "head";
    graph.modules[module_] = "Head";
    // All that nobody reads yet flows into the result, so that little is dead.
    graph::ValueId out = floats_.back();
    out = call("aten::add.Tensor", {v(out), v(pick()), i(1)}, shape());
    const bool tied = draw(2) == 0;
    out = call("aten::linear", {v(out), v(tied ? table_ : parameter("head", {4, 4})), none()}, shape());
    graph::ValueId loss = graph::kNoValue;
    cross_entropy = draw(2) == 0;
    if (cross_entropy) {
      loss = call("aten::cross_entropy_loss", {v(out), v(ids_), none(), i(1), i(2), d(0.0)}, graph::Shape{});
    } else {
      loss = call("aten::mse_loss", {v(out), v(y_), i(1)}, graph::Shape{});
    }
    loss = call("aten::mul.Scalar", {v(loss), d(0.5)}, graph::Shape{});
    graph.outputs = {{"out", out}, {"count", integers_.empty() ? k_ : integers_.back()}, {"loss", loss}};
    if (draw(2) == 0) {
      graph.outputs.push_back({"early", floats_[draw(floats_.size())]});
    }
  }

  graph::Graph graph;
  bool cross_entropy = false;

 private:
  using Arguments = std::vector<graph::Argument>;

  static graph::Argument v(graph::ValueId id) { return graph::Argument::value(id); }
  static graph::Argument i(int64_t number) { return {c10::IValue(number)}; }
  static graph::Argument d(double number) { return {c10::IValue(number)}; }
  static graph::Argument b(bool value) { return {c10::IValue(value)}; }
  static graph::Argument none() { return {c10::IValue()}; }

  size_t draw(size_t limit) { return random_() % limit; }
  graph::ValueId pick() { return floats_[draw(floats_.size())]; }
  // Shapes are not always known.
  std::optional<graph::Shape> shape() {
    return draw(3) == 0 ? std::nullopt : std::optional(graph::Shape{graph::Size::symbol("n"), 4});
  }

  graph::ValueId input(const std::string& name, at::ScalarType dtype, graph::Shape extents) {
    graph::Value value;
    value.kind = graph::ValueKind::input;
    value.name = name;
    value.dtype = dtype;
    value.shape = std::move(extents);
    graph.inputs.push_back(graph.add_value(value));
    return graph.inputs.back();
  }

  graph::ValueId tensor(graph::ValueKind kind, const std::string& name, const at::Tensor& content) {
    graph::Value value;
    value.kind = kind;
    value.name = name;
    value.dtype = content.scalar_type();
    value.shape = graph::Shape();
    for (const int64_t size : content.sizes()) {
      value.shape->push_back(size);
    }
    value.content = content;
    return graph.add_value(value);
  }

  graph::ValueId parameter(const std::string& name, at::IntArrayRef sizes) {
    return tensor(graph::ValueKind::parameter, name, at::randn(sizes, generator_));
  }

  graph::ValueId call(
      const std::string& op,
      Arguments arguments,
      std::optional<graph::Shape> extents,
      graph::ValueType type = graph::ValueType::tensor,
      at::ScalarType dtype = at::kFloat) {
    graph::Value value;
    value.type = type;
    if (type == graph::ValueType::tensor) {
      value.dtype = dtype;
      value.shape = std::move(extents);
    }
    graph::Node node;
    node.id = static_cast<int32_t>(graph.nodes.size());
    node.op = graph::find_operator(op);
    node.arguments = std::move(arguments);
    node.results = {graph.add_value(value)};
    node.module = module_;
    graph.nodes.push_back(node);
    return node.results[0];
  }

  graph::ValueId scalar(graph::ScalarOperator op, graph::Argument left, graph::Argument right) {
    graph::Value value;
    value.type = graph::ValueType::integer;
    graph::Node node;
    node.id = static_cast<int32_t>(graph.nodes.size());
    node.scalar = op;
    node.arguments = {std::move(left), std::move(right)};
    node.results = {graph.add_value(value)};
    node.module = module_;
    graph.nodes.push_back(node);
    return node.results[0];
  }

  void add_step() {
    graph::ValueId made = graph::kNoValue;
    switch (draw(13)) {
      case 0:
      case 1: {
        if (weights_.empty() || draw(3) > 0) {
          weights_.push_back(parameter(module_ + ".weight", {4, 4}));
        }
        made = call("aten::linear", {v(pick()), v(weights_[draw(weights_.size())]), none()}, shape());
        break;
      }
      case 2:
        made = call("aten::add.Tensor", {v(pick()), v(pick()), i(1)}, shape());
        break;
      case 3: {
        const graph::ValueId operand = pick();
        made = call("aten::mul.Tensor", {v(operand), v(draw(2) == 0 ? operand : pick())}, shape());
        made = call("aten::tanh", {v(made)}, shape());
        break;
      }
      case 4:
        made = call("aten::tanh", {v(pick())}, shape());
        break;
      case 5: {  // fresh, then written in place, possibly behind a cut
        const graph::ValueId fresh = call("aten::mul.Scalar", {v(pick()), d(1.25)}, shape());
        module_ += ".act";
        graph.modules[module_] = "Activation";
        made = call("aten::relu_", {v(fresh)}, shape());
        break;
      }
      case 6: {  // an integer computed here and used wherever
        const graph::ValueId rows = call("aten::sym_size.int", {v(pick()), i(0)}, {}, graph::ValueType::integer);
        integers_.push_back(scalar(graph::ScalarOperator::mul, v(rows), v(k_)));
        return;
      }
      case 7: {
        if (integers_.empty()) {
          return;
        }
        const graph::ValueId number = integers_[draw(integers_.size())];
        const graph::ValueId small = scalar(graph::ScalarOperator::mod, v(number), i(3));
        made = call("aten::mul.Scalar", {v(pick()), v(small)}, shape());
        break;
      }
      case 8: {  // a mask
        masks_.push_back(call("aten::gt.Scalar", {v(pick()), d(0.1)}, shape(), graph::ValueType::tensor, at::kBool));
        return;
      }
      case 9: {
        if (masks_.empty()) {
          return;
        }
        made = call("aten::where.self", {v(masks_[draw(masks_.size())]), v(pick()), v(pick())}, shape());
        break;
      }
      case 10: {  // statistics that are updated
        const graph::ValueId mean = tensor(graph::ValueKind::state, module_ + ".running_mean", at::zeros({4}));
        const graph::ValueId var = tensor(graph::ValueKind::state, module_ + ".running_var", at::ones({4}));
        made = call(
            "aten::batch_norm",
            {v(pick()), v(parameter(module_ + ".weight", {4})), none(), v(mean), v(var), b(draw(2) == 0), d(0.1),
             d(1e-5), b(false)},
            shape());
        break;
      }
      case 11: {  // a counter that scales
        const graph::ValueId counter = tensor(graph::ValueKind::state, module_ + ".count", at::ones({}));
        const graph::ValueId next = call("aten::add_.Tensor", {v(counter), d_tensor(), i(1)}, graph::Shape{});
        made = call("aten::mul.Tensor", {v(pick()), v(next)}, shape());
        made = call("aten::tanh", {v(made)}, shape());
        break;
      }
      default: {  // views with other strides
        const graph::ValueId turned = call("aten::t", {v(pick())}, std::nullopt);
        made = call("aten::t", {v(call("aten::tanh", {v(turned)}, std::nullopt))}, shape());
        break;
      }
    }
    floats_.push_back(made);
  }

  graph::Argument d_tensor() { return v(tensor(graph::ValueKind::buffer, module_ + ".step", at::full({}, 0.25))); }

  std::mt19937 random_;
  at::Generator generator_;
  std::string module_ = "embed";
  graph::ValueId x_, y_, ids_, k_, table_;
  std::vector<graph::ValueId> floats_;
  std::vector<graph::ValueId> masks_;
  std::vector<graph::ValueId> integers_;
  std::vector<graph::ValueId> weights_;
};

}  // namespace shardpipe::test
