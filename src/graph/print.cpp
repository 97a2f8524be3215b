#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "graph/text.h"

namespace shardpipe::graph {
namespace {

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// Shortest text that reads back as the same double and cannot be taken for an integer.
std::string number(double value) {
  if (std::isnan(value)) {
    return "nan";
  }
  if (std::isinf(value)) {
    return value > 0 ? "inf" : "-inf";
  }
  std::string text = fmt::format("{}", value);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

template <typename Items, typename F>
std::string list(const Items& items, F text_of) {
  std::string text = "[";
  for (const auto& item : items) {
    text += (text.size() == 1 ? "" : ", ") + text_of(item);
  }
  return text + "]";
}

std::string constant(const c10::IValue& value) {
  if (value.isNone()) {
    return "none";
  }
  if (value.isBool()) {
    return value.toBool() ? "true" : "false";
  }
  if (value.isInt()) {
    return std::to_string(value.toInt());
  }
  if (value.isDouble()) {
    return number(value.toDouble());
  }
  if (value.isComplexDouble()) {
    const c10::complex<double> z = value.toComplexDouble();
    return "complex(" + number(z.real()) + ", " + number(z.imag()) + ")";
  }
  if (value.isString()) {
    return quote(value.toStringRef());
  }
  if (value.isDevice()) {
    return "device(" + quote(value.toDevice().str()) + ")";
  }
  if (value.isIntList()) {
    return "ints" + list(value.toIntVector(), [](int64_t item) { return std::to_string(item); });
  }
  if (value.isDoubleList()) {
    return "floats" + list(value.toDoubleVector(), number);
  }
  if (value.isBoolList()) {
    return "bools" + list(value.toBoolList().vec(), [](bool item) { return std::string(item ? "true" : "false"); });
  }
  if (value.isList() && value.toList().elementType()->kind() == c10::TypeKind::StringType) {
    return "strings" + list(value.toListRef(), [](const c10::IValue& item) { return quote(item.toStringRef()); });
  }
  throw_internal("an argument of kind {} cannot be printed", value.tagKind());
}

std::string argument(const Argument& arg) {
  if (const ValueId* id = arg.as_value()) {
    return fmt::format("%{}", *id);
  }
  if (const ArgumentList* items = arg.as_list()) {
    return list(*items, argument);
  }
  return constant(*arg.as_constant());
}

std::string type(const Value& value) {
  switch (value.type) {
    case ValueType::integer:
      return "int";
    case ValueType::number:
      return "float";
    case ValueType::boolean:
      return "bool_value";
    case ValueType::string:
      return "string";
    case ValueType::tensor:
      break;
  }
  const std::string dtype = value.dtype ? dtype_name(*value.dtype) : "tensor";
  return value.shape ? dtype + to_string(*value.shape) : dtype;
}

std::string content(const at::Tensor& tensor) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  const at::Tensor dense = tensor.cpu().contiguous();
  const auto* bytes = static_cast<const unsigned char*>(dense.const_data_ptr());
  std::string text(dense.nbytes() * 2, '\0');
  for (size_t i = 0; i < dense.nbytes(); ++i) {
    text[2 * i] = kDigits[bytes[i] >> 4];
    text[2 * i + 1] = kDigits[bytes[i] & 15];
  }
  return text;
}

std::string declaration(const Graph& graph, ValueId id) {
  const Value& value = graph.values[static_cast<size_t>(id)];
  std::string line;
  switch (value.kind) {
    case ValueKind::input:
      line = "input";
      break;
    case ValueKind::parameter:
      line = "parameter";
      break;
    case ValueKind::buffer:
      line = "buffer";
      break;
    case ValueKind::state:
      line = "state";
      break;
    case ValueKind::result:
      throw_internal("value %{} is a node's result, not a named tensor", id);
  }
  line += fmt::format(" %{} {}", id, quote(value.name));
  for (const std::string& name : value.tied_names) {
    line += " tied " + quote(name);
  }
  if (value.kind == ValueKind::state) {
    line += value.state == StateKind::per_sequence ? " per_sequence" : " shared";
  }
  if (value.content.defined()) {
    line += " content \"" + content(value.content) + "\"";
  }
  return line + ": " + type(value) + "\n";
}

// All lines but the first.
std::string body(const Graph& graph) {
  std::string text;
  for (const std::string& name : graph.dimensions) {
    text += "dimension " + name + "\n";
  }
  for (const ValueId id : graph.inputs) {
    text += declaration(graph, id);
  }
  for (const ValueId id : graph.used_tensors()) {
    text += declaration(graph, id);
  }
  for (const auto& [path, name] : graph.modules) {
    text += "module " + quote(path) + " " + quote(name) + "\n";
  }
  for (const Node& node : graph.nodes) {
    text += fmt::format("#{}", node.id);
    for (const ValueId id : node.results) {
      text += fmt::format(" %{}: {}", id, type(graph.values[static_cast<size_t>(id)]));
    }
    const std::string arguments = list(node.arguments, argument);
    text += " = " + node.op_name() + "(" + arguments.substr(1, arguments.size() - 2) + ")";
    if (!node.grad_enabled) {
      text += " no_grad";
    }
    if (node.autocast) {
      const Autocast& region = *node.autocast;
      text += fmt::format(
          " autocast({}, {}, {}, {})", dtype_name(region.dtype), region.enabled, region.cache, region.region);
    }
    text += " in " + quote(node.module) + "\n";
    for (const std::shared_ptr<const Graph>& branch : node.branches) {
      text += "branch\n" + body(*branch) + "end\n";
    }
  }
  for (const Output& output : graph.outputs) {
    text += fmt::format("output {} %{}\n", quote(output.name), output.value);
  }
  for (const Update& update : graph.updates) {
    text += fmt::format("update %{} %{}\n", update.state, update.value);
  }
  return text;
}

}  // namespace

std::string print(const Graph& graph) {
  return "shardpipe-graph 1\n" + body(graph);
}

}  // namespace shardpipe::graph
