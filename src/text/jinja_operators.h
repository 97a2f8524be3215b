#pragma once

#include <string>
#include <string_view>

#include "text/jinja_value.h"

// What Python's operators, subscripts, attributes and calls do with the values of a template. All throw Error(input)
// where Python raises an exception.
namespace shardpipe::text::jinja {

/// `sign` is one of + - * / // % **.
Value arithmetic(std::string_view sign, const Value& left, const Value& right);
Value negate(const Value& value);
Value positive(const Value& value);
/// `sign` is one of == != < <= > >= in, "not in".
bool compare(std::string_view sign, const Value& left, const Value& right);

/// object.name: the attribute (a method) before the key. Undefined when there is neither.
Value get_attribute(const Value& object, const std::string& name);
/// object[key]: the key before the attribute.
Value get_item(const Value& object, const Value& key);
/// object[start:stop:step]; undefined bounds are absent.
Value get_slice(const Value& object, const Value& start, const Value& stop, const Value& step);
/// A bound method of str, list or dict; Undefined for no such method, nullopt for another type.
std::optional<Value> get_method(const Value& object, const std::string& name);

Value call(const Value& callee, Arguments& arguments);

/// text % arguments.
std::string format_percent(const std::string& text, const Value& arguments);
/// text.format(arguments).
std::string format_braces(const std::string& text, const Arguments& arguments);
/// format(value, spec): the part behind the colon.
std::string format_value(const Value& value, std::string_view spec);

/// Arguments matched to parameter names, as Python does it.
class Bound {
 public:
  /// The first `required` names must be given. Throws Error(input) for a missing, unknown, double or surplus argument.
  Bound(std::string_view function, Arguments& arguments, const std::vector<const char*>& names, size_t required = 0);

  bool has(size_t index) const { return values_[index] != nullptr; }
  const Value& operator[](size_t index) const { return *values_[index]; }
  Value get(size_t index, Value otherwise) const { return has(index) ? *values_[index] : std::move(otherwise); }
  /// Throws Error(input) for a value of another type.
  int64_t integer(size_t index, int64_t otherwise) const;
  bool truth(size_t index, bool otherwise) const { return has(index) ? truthy(*values_[index]) : otherwise; }
  const std::string& text(size_t index) const;
  /// None and absent: nullopt.
  std::optional<std::string> optional_text(size_t index) const;

 private:
  std::string function_;
  std::vector<const Value*> values_;
};

}  // namespace shardpipe::text::jinja
