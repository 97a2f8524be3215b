#include "tensor/part_graph.h"

#include <algorithm>

#include "base/error.h"
#include "tensor/local_form.h"

namespace shardpipe::tensor {

using graph::Argument;
using graph::ArgumentList;
using graph::Graph;
using graph::kNoValue;
using graph::Node;
using graph::ScalarOperator;
using graph::Shape;
using graph::Size;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;
using graph::ValueType;

namespace {

constexpr int64_t kUnknownDimension = 16;
constexpr double kWeightGathered = 1000;  // parts would hold what they were spared: the last resort

size_t index(ValueId id) {
  return static_cast<size_t>(id);
}

// The same argument with values replaced in order.
Argument replaced(const Argument& argument, const std::vector<ValueId>& operands, size_t& next) {
  if (argument.as_value() != nullptr) {
    return Argument::value(operands[next++]);
  }
  if (argument.as_list() != nullptr) {
    ArgumentList items;
    for (const Argument& item : *argument.as_list()) {
      items.push_back(replaced(item, operands, next));
    }
    return Argument::list(std::move(items));
  }
  return argument;
}

}  // namespace

Size local_size(const Size& size, const Shard& shard, int part) {
  const int64_t all = shard.all_units();
  Size local;
  for (const auto& [symbols, coefficient] : size.terms()) {
    Size term(coefficient / all * shard.units[static_cast<size_t>(part)]);
    for (const std::string& symbol : symbols) {
      term = term * Size::symbol(symbol);
    }
    local = local + term;
  }
  return local;
}

PartGraph::PartGraph(
    const Graph& graph, const std::map<ValueId, Shard>& shards, int part, bool gradients, Sharded* told)
    : graph_(graph),
      part_(part),
      gradients_(gradients),
      told_(told),
      local_(graph),
      lays_(graph.values.size()),
      needs_gradient_(graph.values.size()),
      is_weight_(graph.values.size()) {
  for (const std::string& dimension : graph.dimensions) {
    dimensions_[dimension] = kUnknownDimension;
  }
  local_.nodes.clear();
  for (size_t id = 0; id < graph.values.size(); ++id) {
    lays_[id].id = static_cast<ValueId>(id);
    const Value& value = graph.values[id];
    is_weight_[id] = value.kind == ValueKind::parameter;
    needs_gradient_[id] = value.kind == ValueKind::parameter && value.dtype && at::isFloatingType(*value.dtype);
  }
  for (const auto& [id, shard] : shards) {
    set_piece(id, shard);
  }
  for (const Node& node : graph.nodes) {
    next_node_ = std::max(next_node_, node.id + 1);
    bool needs = false;
    bool weights = true;
    for (const ValueId id : Graph::operands(node)) {
      weights = weights && is_weight_[index(id)];
      needs = needs || (node.grad_enabled && needs_gradient_[index(id)]);
    }
    for (const ValueId id : node.results) {
      const Value& value = graph.values[index(id)];
      is_weight_[index(id)] = weights && !Graph::operands(node).empty();
      needs_gradient_[index(id)] =
          needs && value.type == ValueType::tensor && (!value.dtype || at::isFloatingType(*value.dtype));
    }
  }
}

double PartGraph::bytes(ValueId id) const {
  const Value& value = graph_.values[index(id)];
  return value.type == ValueType::tensor && value.shape && value.dtype
             ? static_cast<double>(graph::size_bytes(value, dimensions_))
             : 0;
}

bool PartGraph::can_lie(ValueId id, const Shard& shard) const {
  const Value& value = graph_.values[index(id)];
  if (value.type != ValueType::tensor || !value.shape || shard.blocks.empty()) {
    return false;
  }
  const int64_t all = shard.all_units();
  const auto& terms = (*value.shape)[static_cast<size_t>(shard.dim)].terms();
  const auto divides = [&](int64_t number) { return number % all == 0; };
  return std::all_of(shard.blocks.begin(), shard.blocks.end(), divides) &&
         std::all_of(terms.begin(), terms.end(), [&](const auto& term) { return term.second % shard.period() == 0; });
}

bool PartGraph::changes_dtype(const Node& node, ValueId operand) const {
  return graph_.values[index(node.results[0])].dtype != graph_.values[index(operand)].dtype;
}

double PartGraph::cost_of_reduction(ValueId id) const {
  return kCollective + 2 * bytes(id) * kByteMoved;
}

double PartGraph::cost_of_whole(ValueId id) const {
  const Lay& at = lay(id);
  if (at.kind == Lay::Kind::whole || wholes_.count(id) > 0) {
    return 0;
  }
  if (at.kind == Lay::Kind::sum) {
    return cost_of_reduction(id);
  }
  return (kCollective + bytes(id) * kByteMoved) * (is_weight_[index(id)] ? kWeightGathered : 1);
}

double PartGraph::cost_of_piece(ValueId id, const Shard& shard) const {
  const Lay& at = lay(id);
  if (at.is_piece(shard)) {
    return 0;
  }
  // A piece of something whole costs nothing here but a copy, and its gradient is gathered.
  return cost_of_whole(id) + (gradients_ && needs_gradient_[index(id)] ? kCollective + bytes(id) * kByteMoved : 1e-9);
}

void PartGraph::set_piece(ValueId id, const Shard& shard) {
  Lay& at = lays_[index(id)];
  at.kind = Lay::Kind::piece;
  at.shard = shard;
  Shape& shape = *local_.values[index(at.id)].shape;
  Size& size = shape[static_cast<size_t>(shard.dim)];
  size = local_size(size, shard, part_);
}

void PartGraph::begin(const Node& node) {
  place_ = Node();
  place_.module = node.module;
  place_.grad_enabled = node.grad_enabled;
}

ValueId PartGraph::add_node(const std::string& op, std::vector<Argument> arguments, const Value& result) {
  Node node = place_;
  node.id = next_node_++;
  node.op = graph::find_operator(op);
  node.arguments = std::move(arguments);
  const ValueId id = local_.add_value(result);
  node.results = {id};
  local_.nodes.push_back(std::move(node));
  return id;
}

ValueId PartGraph::call(const std::string& op, std::vector<Argument> arguments, ValueId like) {
  Value value;
  value.dtype = local_.values[index(like)].dtype;
  value.shape = local_.values[index(like)].shape;
  return add_node(op, std::move(arguments), value);
}

ValueId PartGraph::scalar(ScalarOperator op, ValueId value, int64_t by) {
  Node node = place_;
  node.id = next_node_++;
  node.scalar = op;
  node.arguments = {Argument::value(value), c10::IValue(by)};
  Value result;
  result.type = ValueType::integer;
  node.results = {local_.add_value(result)};
  local_.nodes.push_back(node);
  return node.results[0];
}

void PartGraph::note(const std::string& op, ValueId value, bool backward) {
  seconds_ += kCollective + (op == "all_reduce" ? 2 : 1) * bytes(value) * kByteMoved;
  if (told_ != nullptr) {
    told_->collectives.push_back({op, place_.module, value, backward});
  }
}

ValueId PartGraph::reduced(ValueId id) {
  Lay& at = lays_[index(id)];
  note("all_reduce", id, false);
  ValueId whole = call("shardpipe::all_reduce", {Argument::value(at.id), c10::IValue(kAxis)}, at.id);
  if (at.addend != kNoValue) {
    whole = call("aten::add.Tensor", {Argument::value(whole), Argument::value(at.addend), c10::IValue(1)}, whole);
  }
  at = Lay();
  at.id = whole;
  return whole;
}

ValueId PartGraph::whole(ValueId id) {
  Lay& at = lays_[index(id)];
  if (at.kind == Lay::Kind::whole) {
    return at.id;
  }
  if (at.kind == Lay::Kind::sum) {
    return reduced(id);
  }
  const auto known = wholes_.find(id);
  if (known != wholes_.end()) {
    return known->second;
  }
  note("all_gather", id, false);
  Value value;
  value.dtype = graph_.values[index(id)].dtype;
  value.shape = graph_.values[index(id)].shape;
  const ValueId whole = add_node(
      "shardpipe::all_gather",
      {Argument::value(at.id), c10::IValue(static_cast<int64_t>(at.shard.dim)), c10::IValue(at.shard.blocks),
       c10::IValue(at.shard.units), c10::IValue(kAxis)},
      value);
  wholes_[id] = whole;
  return whole;
}

ValueId PartGraph::piece(ValueId id, const Shard& shard) {
  if (lay(id).is_piece(shard)) {
    return lay(id).id;
  }
  const bool named = graph_.values[index(id)].kind != ValueKind::result;
  for (const auto& [of, known] : pieces_[id]) {
    if (of == shard && !named) {
      return known;
    }
  }
  const ValueId from = whole(id);
  if (gradients_ && needs_gradient_[index(id)]) {
    note("all_gather", id, true);
  }
  const ValueId piece = call(
      "shardpipe::take_part",
      {Argument::value(from), c10::IValue(static_cast<int64_t>(shard.dim)), c10::IValue(shard.blocks),
       c10::IValue(shard.units), c10::IValue(kAxis)},
      from);
  Size& size = (*local_.values[index(piece)].shape)[static_cast<size_t>(shard.dim)];
  size = local_size(size, shard, part_);
  pieces_[id].emplace_back(shard, piece);
  return piece;
}

ValueId PartGraph::entered(ValueId id) {
  const ValueId from = whole(id);
  if (!gradients_ || !place_.grad_enabled || !needs_gradient_[index(id)]) {
    return from;
  }
  // A parameter enters at each of its uses, so that nothing of it is sent from stage to stage.
  const bool named = graph_.values[index(id)].kind != ValueKind::result;
  const auto known = entered_.find(id);
  if (known != entered_.end() && !named) {
    return known->second;
  }
  note("all_reduce", id, true);
  return entered_[id] = call("shardpipe::enter", {Argument::value(from), c10::IValue(kAxis)}, from);
}

ValueId PartGraph::group_of_heads(ValueId id, int dim, const std::vector<int64_t>& units) {
  const Shape& shape = *graph_.values[index(id)].shape;
  const int64_t groups = shape[static_cast<size_t>(dim)].constant();
  const Lay& at = lay(id);
  if (graph_.values[index(id)].kind == ValueKind::state) {
    // A cache of the one head that this part's queries use.
    (*local_.values[index(at.id)].shape)[static_cast<size_t>(dim)] = 1;
    return at.id;
  }
  const ValueId from = entered(id);
  const ValueId group = call(
      "aten::narrow",
      {Argument::value(from), c10::IValue(static_cast<int64_t>(dim)), c10::IValue(group_of_part(units, groups, part_)),
       c10::IValue(1)},
      from);
  (*local_.values[index(group)].shape)[static_cast<size_t>(dim)] = 1;
  return group;
}

Node PartGraph::with_operands(const Node& node, const std::vector<ValueId>& operands) const {
  Node changed = node;
  size_t next = 0;
  for (Argument& argument : changed.arguments) {
    argument = replaced(argument, operands, next);
  }
  return changed;
}

void PartGraph::emit_whole(const Node& node) {
  std::vector<ValueId> operands;
  for (const ValueId id : Graph::operands(node)) {
    operands.push_back(whole(id));
  }
  local_.nodes.push_back(with_operands(node, operands));
}

void PartGraph::emit_sum(const Node& node) {
  std::vector<ValueId> operands;
  for (const ValueId id : Graph::operands(node)) {
    operands.push_back(lay(id).id);
  }
  local_.nodes.push_back(with_operands(node, operands));
  lays_[index(node.results[0])].kind = Lay::Kind::sum;
}

void PartGraph::emit_added(const Node& node, ValueId a, ValueId b) {
  std::vector<ValueId> sums;
  std::vector<ValueId> addends;
  for (const ValueId id : {a, b}) {
    const Lay& at = lay(id);
    if (at.kind == Lay::Kind::sum) {
      sums.push_back(at.id);
    }
    const ValueId addend = at.kind == Lay::Kind::sum ? at.addend : at.id;
    if (addend != kNoValue) {
      addends.push_back(addend);
    }
  }
  const ValueId result = node.results[0];
  Lay& at = lays_[index(result)];
  at.kind = Lay::Kind::sum;
  if (sums.size() == 2) {
    local_.nodes.push_back(with_operands(node, sums));
  } else {
    at.id = sums[0];
  }
  if (addends.size() == 2) {
    const bool first_larger =
        local_.values[index(addends[0])].shape->size() >= local_.values[index(addends[1])].shape->size();
    const bool exact = local_.values[index(addends[0])].shape == local_.values[index(result)].shape ||
                       local_.values[index(addends[1])].shape == local_.values[index(result)].shape;
    const ValueId like = exact ? result : addends[first_larger ? 0 : 1];
    at.addend =
        call("aten::add.Tensor", {Argument::value(addends[0]), Argument::value(addends[1]), c10::IValue(1)}, like);
  } else if (addends.size() == 1) {
    at.addend = addends[0];
  }
}

void PartGraph::emit_size(const Node& node, const Lay& lay, int dim, const Shape& whole) {
  const Size& size = whole[static_cast<size_t>(dim)];
  Node read = node;
  if (lay.kind == Lay::Kind::piece && lay.shard.dim == dim) {
    if (size.is_constant()) {
      read.op.reset();
      read.scalar = ScalarOperator::mul;
      read.arguments = {Argument(c10::IValue(size.constant())), Argument(c10::IValue(1))};
      local_.nodes.push_back(std::move(read));
      return;
    }
    Value result;
    result.type = ValueType::integer;
    read.results = {local_.add_value(result)};
    read.id = next_node_++;
    local_.nodes.push_back(with_operands(read, {lay.id}));
    const ValueId units = scalar(ScalarOperator::floordiv, read.results[0], lay.shard.units[index(part_)]);
    Node times = node;
    times.op.reset();
    times.scalar = ScalarOperator::mul;
    times.arguments = {Argument::value(units), c10::IValue(lay.shard.all_units())};
    local_.nodes.push_back(std::move(times));
    return;
  }
  local_.nodes.push_back(with_operands(node, {lay.id}));
}

void PartGraph::emit_divided(
    const Node& node,
    const std::map<size_t, Shard>& operands,
    const std::map<size_t, Shard>& results,
    const OpAxis& axis) {
  const std::vector<ValueId> ids = Graph::operands(node);
  LocalForm form(*this, node, operands, results);
  std::vector<ValueId> local;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto at = operands.find(i);
    const bool tensor = graph_.values[index(ids[i])].type == ValueType::tensor;
    if (at != operands.end()) {
      local.push_back(piece(ids[i], at->second));
    } else if (const auto group = axis.grouped.find(i); group != axis.grouped.end()) {
      local.push_back(group_of_heads(ids[i], group->second, operands.at(0).units));
    } else if (!tensor || (axis.sums && form.is_added_once(i))) {
      local.push_back(whole(ids[i]));
    } else {
      local.push_back(entered(ids[i]));
    }
  }
  for (size_t r = 0; r < node.results.size(); ++r) {
    const auto at = results.find(r);
    if (at != results.end()) {
      set_piece(node.results[r], at->second);
    } else if (!axis.whole_results) {
      lays_[index(node.results[r])].kind = Lay::Kind::sum;
    }
  }
  form.emit(with_operands(node, local), local, axis.sums);
}

void PartGraph::make_whole(ValueId id) {
  const ValueId local = whole(id);
  lays_[index(id)] = Lay();
  lays_[index(id)].id = local;
}

Graph PartGraph::finish() {
  place_ = Node();
  for (graph::Output& output : local_.outputs) {
    for (const Node& node : graph_.nodes) {
      if (std::find(node.results.begin(), node.results.end(), output.value) != node.results.end()) {
        begin(node);
      }
    }
    output.value = whole(output.value);
  }
  for (graph::Update& update : local_.updates) {
    const Lay& state = lay(update.state);
    update.value = state.kind == Lay::Kind::piece ? piece(update.value, state.shard) : whole(update.value);
  }
  if (told_ != nullptr) {
    for (size_t id = 0; id < lays_.size(); ++id) {
      if (lays_[id].kind == Lay::Kind::whole && lays_[id].id != kNoValue) {
        told_->whole_values.emplace(lays_[id].id, static_cast<ValueId>(id));
      }
    }
    for (const auto& [piece, whole] : wholes_) {
      told_->whole_values.emplace(whole, piece);
    }
  }
  return std::move(local_);
}

}  // namespace shardpipe::tensor
