#include "frontend/pt2/arguments.h"

#include "base/error.h"
#include "checkpoint/pt2_file.h"

namespace shardpipe::pt2 {
namespace {

using graph::Argument;
using graph::ArgumentList;

int64_t scalar_type(int64_t number) {
  const auto dtype = checkpoint::exported_dtype(number);
  if (!dtype) {
    throw_input("dtype number {}, which torch does not have", number);
  }
  return static_cast<int64_t>(*dtype);
}

// torch.export's numbers of layouts and memory formats (torch/_export/serde/schema.py) are not LibTorch's.
int64_t layout(int64_t number) {
  switch (number) {
    case 1:
      return static_cast<int64_t>(at::kSparse);
    case 2:
      return static_cast<int64_t>(at::kSparseCsr);
    case 3:
      return static_cast<int64_t>(at::kSparseCsc);
    case 4:
      return static_cast<int64_t>(at::kSparseBsr);
    case 5:
      return static_cast<int64_t>(at::kSparseBsc);
    case 6:
      return static_cast<int64_t>(at::kMkldnn);
    case 7:
      return static_cast<int64_t>(at::kStrided);
    default:
      throw_input("layout number {}, which torch does not have", number);
  }
}

int64_t memory_format(int64_t number) {
  switch (number) {
    case 1:
      return static_cast<int64_t>(at::MemoryFormat::Contiguous);
    case 2:
      return static_cast<int64_t>(at::MemoryFormat::ChannelsLast);
    case 3:
      return static_cast<int64_t>(at::MemoryFormat::ChannelsLast3d);
    case 4:
      return static_cast<int64_t>(at::MemoryFormat::Preserve);
    default:
      throw_input("memory format number {}, which torch does not have", number);
  }
}

Argument constant(c10::IValue value) {
  return {std::move(value)};
}

// {"as_name": …} or a constant, of as_sym_int and its like.
Argument symbolic(const Document& json, const Scope& scope) {
  const auto [kind, value] = union_of(json);
  if (kind == "as_name") {
    return lookup(scope, text_of(value));
  }
  if (kind == "as_int") {
    return constant(integer_of(value));
  }
  if (kind == "as_float") {
    return constant(float_of(value));
  }
  if (kind == "as_bool") {
    return constant(boolean_of(value));
  }
  throw_input("a number of kind {}, which this version does not know", kind);
}

Argument tensor(const Document& json, const Scope& scope) {
  return lookup(scope, text_of(json.at("name")));
}

Argument optional_tensor(const Document& json, const Scope& scope) {
  const auto [kind, value] = union_of(json);
  return kind == "as_tensor" ? tensor(value, scope) : constant({});
}

template <typename F>
Argument items(const Document& json, F item) {
  ArgumentList list;
  for (const Document& one : list_of(json)) {
    list.push_back(item(one));
  }
  return Argument::list(std::move(list));
}

template <typename T, typename F>
Argument constants(const Document& json, F item) {
  c10::List<T> list;
  for (const Document& one : list_of(json)) {
    list.push_back(item(one));
  }
  return constant(list);
}

bool is_list_of(const c10::Type& type, c10::TypeKind element) {
  return type.kind() == c10::TypeKind::ListType && type.containedType(0)->kind() == element;
}

}  // namespace

const Argument& lookup(const Scope& scope, const std::string& name) {
  const auto found = scope.find(name);
  if (found == scope.end()) {
    throw_input("\"{}\" is used before it is defined", name);
  }
  return found->second;
}

Argument plain_argument(const Document& json, const Scope& scope) {
  const auto [kind, value] = union_of(json);
  if (kind == "as_tensor") {
    return tensor(value, scope);
  }
  if (kind == "as_none") {
    return constant({});
  }
  if (kind == "as_int") {
    return constant(integer_of(value));
  }
  if (kind == "as_float") {
    return constant(float_of(value));
  }
  if (kind == "as_bool") {
    return constant(boolean_of(value));
  }
  if (kind == "as_string") {
    return constant(text_of(value));
  }
  if (kind == "as_sym_int" || kind == "as_sym_float" || kind == "as_sym_bool") {
    return symbolic(value, scope);
  }
  if (kind == "as_optional_tensor") {
    return optional_tensor(value, scope);
  }
  if (kind == "as_tensors") {
    return items(value, [&](const Document& item) { return tensor(item, scope); });
  }
  if (kind == "as_optional_tensors") {
    return items(value, [&](const Document& item) { return optional_tensor(item, scope); });
  }
  if (kind == "as_sym_ints" || kind == "as_sym_floats" || kind == "as_sym_bools") {
    return items(value, [&](const Document& item) { return symbolic(item, scope); });
  }
  if (kind == "as_ints") {
    return constants<int64_t>(value, integer_of);
  }
  if (kind == "as_floats") {
    return constants<double>(value, float_of);
  }
  if (kind == "as_bools") {
    return constants<bool>(value, boolean_of);
  }
  if (kind == "as_strings") {
    return constants<std::string>(value, text_of);
  }
  if (kind == "as_scalar_type") {
    return constant(scalar_type(integer_of(value)));
  }
  if (kind == "as_layout") {
    return constant(layout(integer_of(value)));
  }
  if (kind == "as_memory_format") {
    return constant(memory_format(integer_of(value)));
  }
  if (kind == "as_device") {
    return constant(c10::Device(at::kCPU));  // the program moves with its weights
  }
  if (kind == "as_complex") {
    return constant(c10::complex<double>(float_of(value.at("real")), float_of(value.at("imag"))));
  }
  throw_input("an argument of kind {}, which this version does not run", kind);
}

c10::IValue fit(const c10::IValue& constant, const c10::Type& type) {
  if (type.kind() == c10::TypeKind::OptionalType) {
    return constant.isNone() ? constant : fit(constant, *type.containedType(0));
  }
  if (type.kind() == c10::TypeKind::FloatType && (constant.isInt() || constant.isBool())) {
    return constant.toScalar().toDouble();
  }
  if (type.kind() == c10::TypeKind::IntType && constant.isBool()) {
    return static_cast<int64_t>(constant.toBool());
  }
  if (type.kind() == c10::TypeKind::BoolType && constant.isInt()) {
    return constant.toInt() != 0;
  }
  if (type.kind() != c10::TypeKind::ListType) {
    return constant;
  }
  if (constant.isList() && constant.toListRef().empty()) {
    return c10::impl::GenericList(type.containedType(0));
  }
  const bool floats = is_list_of(type, c10::TypeKind::FloatType);
  if (constant.isScalar() && !constant.isComplexDouble()) {  // "int[2] stride=1": one number for all
    return floats ? c10::IValue(c10::List<double>({constant.toScalar().toDouble()}))
                  : c10::IValue(c10::List<int64_t>({constant.toScalar().toLong()}));
  }
  if (floats && constant.isIntList()) {
    c10::List<double> list;
    for (const int64_t item : constant.toIntVector()) {
      list.push_back(static_cast<double>(item));
    }
    return list;
  }
  return constant;
}

Argument typed_argument(const Document& json, const Scope& scope, const c10::Type& type) {
  const Argument argument = plain_argument(json, scope);
  if (const c10::IValue* value = argument.as_constant()) {
    return fit(*value, type);
  }
  const ArgumentList* list = argument.as_list();
  if (list == nullptr) {
    return argument;
  }
  const c10::Type& list_type = type.kind() == c10::TypeKind::OptionalType ? *type.containedType(0) : type;
  if (list->empty() && list_type.kind() == c10::TypeKind::ListType) {
    return c10::IValue(c10::impl::GenericList(list_type.containedType(0)));
  }
  // A list of constants is a constant.
  c10::List<int64_t> integers;
  for (const Argument& item : *list) {
    const c10::IValue* value = item.as_constant();
    if (value == nullptr || !value->isInt()) {
      return argument;
    }
    integers.push_back(value->toInt());
  }
  return fit(integers, type);
}

}  // namespace shardpipe::pt2
