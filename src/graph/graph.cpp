#include "graph/graph.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"

namespace shardpipe::graph {
namespace {

constexpr std::array<std::pair<at::ScalarType, const char*>, 21> kDtypes = {{
    {at::kFloat, "float32"},
    {at::kDouble, "float64"},
    {at::kHalf, "float16"},
    {at::kBFloat16, "bfloat16"},
    {at::kLong, "int64"},
    {at::kInt, "int32"},
    {at::kShort, "int16"},
    {at::kChar, "int8"},
    {at::kByte, "uint8"},
    {at::kBool, "bool"},
    {at::kUInt16, "uint16"},
    {at::kUInt32, "uint32"},
    {at::kUInt64, "uint64"},
    {at::kFloat8_e4m3fn, "float8_e4m3fn"},
    {at::kFloat8_e5m2, "float8_e5m2"},
    {at::kFloat8_e4m3fnuz, "float8_e4m3fnuz"},
    {at::kFloat8_e5m2fnuz, "float8_e5m2fnuz"},
    {at::kFloat8_e8m0fnu, "float8_e8m0fnu"},
    {at::kComplexHalf, "complex32"},
    {at::kComplexFloat, "complex64"},
    {at::kComplexDouble, "complex128"},
}};

void collect(const Argument& argument, std::vector<ValueId>& ids) {
  if (const ValueId* id = argument.as_value()) {
    ids.push_back(*id);
  } else if (const ArgumentList* list = argument.as_list()) {
    for (const Argument& item : *list) {
      collect(item, ids);
    }
  }
}

}  // namespace

std::string Node::op_name() const {
  if (!op) {
    return branches.empty() ? std::string("scalar::") + to_string(scalar) : "cond";
  }
  const c10::OperatorName& name = op->operator_name();
  return name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
}

bool Node::returns_list() const {
  return op && op->schema().returns().size() == 1 &&
         op->schema().returns()[0].type()->isSubtypeOf(*c10::ListType::ofTensors());
}

ValueId Graph::add_value(Value value) {
  values.push_back(std::move(value));
  return static_cast<ValueId>(values.size() - 1);
}

ValueId Graph::find(std::string_view name) const {
  for (size_t id = 0; id < values.size(); ++id) {
    const Value& value = values[id];
    if (value.kind == ValueKind::result) {
      continue;
    }
    if (value.name == name ||
        std::find(value.tied_names.begin(), value.tied_names.end(), name) != value.tied_names.end()) {
      return static_cast<ValueId>(id);
    }
  }
  return kNoValue;
}

std::vector<ValueId> Graph::operands(const Node& node) {
  std::vector<ValueId> ids;
  for (const Argument& argument : node.arguments) {
    collect(argument, ids);
  }
  return ids;
}

std::vector<ValueId> Graph::operands(const Argument& argument) {
  std::vector<ValueId> ids;
  collect(argument, ids);
  return ids;
}

std::vector<ValueId> Graph::used_tensors() const {
  std::vector<bool> used(values.size(), false);
  for (const Node& node : nodes) {
    for (const ValueId id : operands(node)) {
      used[static_cast<size_t>(id)] = true;
    }
  }
  for (const Output& output : outputs) {
    used[static_cast<size_t>(output.value)] = true;
  }
  for (const Update& update : updates) {
    used[static_cast<size_t>(update.state)] = true;
    used[static_cast<size_t>(update.value)] = true;
  }
  std::vector<ValueId> ids;
  for (size_t id = 0; id < values.size(); ++id) {
    const ValueKind kind = values[id].kind;
    if (used[id] && (kind == ValueKind::parameter || kind == ValueKind::buffer || kind == ValueKind::state)) {
      ids.push_back(static_cast<ValueId>(id));
    }
  }
  return ids;
}

c10::OperatorHandle find_operator(const std::string& qualified_name) {
  const size_t space = qualified_name.find("::");
  const size_t dot = qualified_name.find('.', space == std::string::npos ? 0 : space);
  const std::string name = qualified_name.substr(0, dot);
  const std::string overload = dot == std::string::npos ? "" : qualified_name.substr(dot + 1);
  const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!handle) {
    throw_input("unknown operator {}", qualified_name);
  }
  return *handle;
}

std::string dtype_name(at::ScalarType dtype) {
  for (const auto& [which, name] : kDtypes) {
    if (which == dtype) {
      return name;
    }
  }
  return c10::toString(dtype);
}

std::optional<at::ScalarType> parse_dtype(std::string_view name) {
  for (const auto& [which, text] : kDtypes) {
    if (name == text) {
      return which;
    }
  }
  return std::nullopt;
}

int64_t size_bytes(const Value& value, const Dimensions& dimensions) {
  int64_t bytes = value.dtype ? static_cast<int64_t>(c10::elementSize(*value.dtype)) : 0;
  if (value.shape) {
    for (const Size& size : *value.shape) {
      bytes *= size.evaluate(dimensions);
    }
  }
  return bytes;
}

}  // namespace shardpipe::graph
