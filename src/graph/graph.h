#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "graph/size.h"

namespace shardpipe::graph {

/// Index of a value in Graph::values. A sub-graph (a stage) keeps the ids of the graph it was cut from.
using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;

enum class ValueType { tensor, integer, number, boolean, string };

/// What a value is in the program. Everything but `result` has a name.
enum class ValueKind {
  result,     ///< of a node
  input,      ///< given by the caller at each run
  parameter,  ///< a weight of the checkpoint
  buffer,     ///< a constant tensor; carries its own content when the checkpoint does not hold it
  state,      ///< a tensor that the graph mutates
};

/// Whose a state tensor is.
enum class StateKind {
  shared,        ///< one per model (batch-norm statistics): updated in microbatch order
  per_sequence,  ///< one per lane (KV caches)
};

struct Value {
  ValueType type = ValueType::tensor;
  ValueKind kind = ValueKind::result;
  std::string name;                          ///< the checkpoint's or the caller's; empty for results
  std::optional<at::ScalarType> dtype = {};  ///< of a tensor, where known
  std::optional<Shape> shape = {};           ///< of a tensor, where known
  std::vector<std::string> tied_names = {};  ///< further names of the same parameter
  at::Tensor content = {};                   ///< of a buffer that no file holds
  StateKind state = StateKind::shared;       ///< for kind == state
};

struct Argument;
using ArgumentList = std::vector<Argument>;

/// An argument of a node: a constant, a value, or a list with values in it (None included as a constant).
struct Argument {
  std::variant<c10::IValue, ValueId, ArgumentList> is;

  Argument(c10::IValue constant) : is(std::move(constant)) {}  // NOLINT
  static Argument value(ValueId id) { return Argument(std::in_place_type<ValueId>, id); }
  static Argument list(ArgumentList items) { return Argument(std::in_place_type<ArgumentList>, std::move(items)); }

  const ValueId* as_value() const { return std::get_if<ValueId>(&is); }
  const c10::IValue* as_constant() const { return std::get_if<c10::IValue>(&is); }
  const ArgumentList* as_list() const { return std::get_if<ArgumentList>(&is); }
  ArgumentList* as_list() { return std::get_if<ArgumentList>(&is); }

 private:
  template <typename T, typename X>
  Argument(std::in_place_type_t<T> type, X&& x) : is(type, std::forward<X>(x)) {}
};

/// Arithmetic on sizes and what is computed from them, which the dispatcher has no operators for: Python's, on its int,
/// float and bool. See scalar.h.
enum class ScalarOperator {
  none,
  add,
  sub,
  mul,
  floordiv,
  mod,
  truediv,
  pow,
  min,
  max,
  eq,
  ne,
  lt,
  le,
  gt,
  ge,
  logical_and,
  logical_or,
  neg,
  absolute,
  logical_not,
  trunc,
  floor,
  ceil,
  round,
  sqrt,
  to_float,
  same,
  choose,
};

/// The autocast state that a node was recorded under.
struct Autocast {
  at::ScalarType dtype = at::kBFloat16;
  bool enabled = true;
  bool cache = true;   ///< casts of parameters are kept until the region ends
  int32_t region = 0;  ///< number of the outermost region, so that neighbouring ones share no casts
  bool operator==(const Autocast&) const = default;
};

struct Graph;

/// One operator call. Arguments follow the operator's schema, all of them, defaults included. Results follow its
/// returns; of an operator that returns one Tensor[] (split, linear_group) they are the items of the list.
/// A number (constant or value) where the schema says Tensor is a wrapped number, as in Python's `x + 1`: a tensor
/// without dimensions that does not take part in type promotion.
struct Node {
  int32_t id = 0;                              ///< fixed before any pass, survives them; unique in the graph
  std::optional<c10::OperatorHandle> op = {};  ///< resolved once; absent for a scalar operator and for cond
  ScalarOperator scalar = ScalarOperator::none;
  std::vector<Argument> arguments = {};
  std::vector<ValueId> results = {};
  std::string module = {};                ///< path of the module that called it: "model.layers.3.mlp"
  bool grad_enabled = true;               ///< false inside a no_grad region
  std::optional<Autocast> autocast = {};  ///< absent: the caller's
  /// Of cond: what runs when the first argument is true, and when it is false. The further arguments are the inputs of
  /// both, their outputs are the results.
  std::vector<std::shared_ptr<const Graph>> branches = {};

  /// "aten::add.Tensor", "scalar::mul" or "cond"
  std::string op_name() const;
  /// True when the operator returns one Tensor[], so that `results` are its items.
  bool returns_list() const;
};

struct Output {
  std::string name;
  ValueId value = kNoValue;
};

/// A state that becomes a value after all nodes have run: it is bound to the value, not overwritten, since the backward
/// pass may need what it was.
struct Update {
  ValueId state = kNoValue;
  ValueId value = kNoValue;
};

/// A program: named tensors, nodes in topological order, named outputs. A plain value: copying it is safe and passes
/// return a new one.
struct Graph {
  std::vector<std::string> dimensions;  ///< named dynamic dimensions, in the order of declaration
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<ValueId> inputs;  ///< in the order of the caller's signature
  std::vector<Output> outputs;
  std::vector<Update> updates;
  std::map<std::string, std::string> modules;  ///< module path -> class name, for policies that look for layers

  ValueId add_value(Value value);
  /// The input, parameter, buffer or state of that name, a tied name included; kNoValue when there is none.
  ValueId find(std::string_view name) const;
  /// The values a node (or one argument) reads, lists flattened, in argument order; with repetitions.
  static std::vector<ValueId> operands(const Node& node);
  static std::vector<ValueId> operands(const Argument& argument);
  /// Parameters, buffers and states that some node, output or update uses, in id order.
  std::vector<ValueId> used_tensors() const;
};

/// "aten::add.Tensor" -> its handle. Throws Error(input) naming an operator that the dispatcher does not know.
c10::OperatorHandle find_operator(const std::string& qualified_name);
/// "add", "floordiv", …; "none" for none. The reverse returns nullopt for an unknown name.
const char* to_string(ScalarOperator op);
std::optional<ScalarOperator> parse_scalar_operator(std::string_view name);
/// "float32", "int64", …: PyTorch's names. The reverse returns nullopt for an unknown name.
std::string dtype_name(at::ScalarType dtype);
std::optional<at::ScalarType> parse_dtype(std::string_view name);
/// Bytes of a tensor; throws as Size::evaluate.
int64_t size_bytes(const Value& value, const Dimensions& dimensions);

}  // namespace shardpipe::graph
