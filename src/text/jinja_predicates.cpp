// What may follow `is`.
#include <cmath>

#include "base/error.h"
#include "text/jinja_filters.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

template <auto accepts>
bool unary(const Value& subject, Arguments& arguments) {
  const Bound bound("test", arguments, {});
  return accepts(subject);
}

template <auto accepts>
bool binary(const Value& subject, Arguments& arguments) {
  const Bound bound("test", arguments, {"other"}, 1);
  return accepts(subject, bound[0]);
}

bool is_sequence(const Value& value) {
  const Sequence* sequence = value.sequence();
  return value.text() != nullptr || value.dict() != nullptr || value.is_undefined() ||
         (sequence != nullptr && sequence->flavor <= Sequence::Flavor::range);
}

bool divides(const Value& value, const Value& divisor) {
  return equal(arithmetic("%", value, divisor), Value(0));
}

const std::map<std::string_view, Test>& tests() {
  using V = const Value&;
  static const Test kEqual = binary<equal>;
  static const Test kUnequal = binary<[](V a, V b) { return !equal(a, b); }>;
  static const Test kLess = binary<[](V a, V b) { return compare("<", a, b); }>;
  static const Test kLessEqual = binary<[](V a, V b) { return compare("<=", a, b); }>;
  static const Test kGreater = binary<[](V a, V b) { return compare(">", a, b); }>;
  static const Test kGreaterEqual = binary<[](V a, V b) { return compare(">=", a, b); }>;
  static const std::map<std::string_view, Test> kTests = {
      {"!=", kUnequal},
      {"<", kLess},
      {"<=", kLessEqual},
      {"==", kEqual},
      {">", kGreater},
      {">=", kGreaterEqual},
      {"boolean", unary<[](V value) { return value.boolean() != nullptr; }>},
      {"callable",
       unary<[](V value) { return value.callable() != nullptr || value.loop() != nullptr || value.is_undefined(); }>},
      {"defined", unary<[](V value) { return !value.is_undefined(); }>},
      {"divisibleby", binary<divides>},
      {"eq", kEqual},
      {"equalto", kEqual},
      {"escaped", unary<[](V value) { return value.is_markup(); }>},
      {"even", unary<[](V value) { return divides(value, Value(2)); }>},
      {"false", unary<[](V value) { return value.boolean() != nullptr && !*value.boolean(); }>},
      {"filter", unary<[](V value) { return value.text() != nullptr && find_filter(*value.text()) != nullptr; }>},
      {"float", unary<[](V value) { return value.real() != nullptr; }>},
      {"ge", kGreaterEqual},
      {"greaterthan", kGreater},
      {"gt", kGreater},
      {"in", binary<[](V item, V container) { return contains(container, item); }>},
      {"integer", unary<[](V value) { return value.is_integer(); }>},
      {"iterable", unary<[](V value) { return value.loop() != nullptr || try_iterate(value) != nullptr; }>},
      {"le", kLessEqual},
      {"lessthan", kLess},
      {"lower", unary<[](V value) { return is_cased(to_text(value), false); }>},
      {"lt", kLess},
      {"mapping", unary<[](V value) { return value.dict() != nullptr; }>},
      {"ne", kUnequal},
      {"none", unary<[](V value) { return value.is_none(); }>},
      {"number", unary<[](V value) { return value.number().has_value(); }>},
      {"odd", unary<[](V value) { return equal(arithmetic("%", value, Value(2)), Value(1)); }>},
      {"sameas", binary<[](V a, V b) { return a.is(b); }>},
      {"sequence", unary<is_sequence>},
      {"string", unary<[](V value) { return value.text() != nullptr; }>},
      {"test", unary<[](V value) { return value.text() != nullptr && find_test(*value.text()) != nullptr; }>},
      {"true", unary<[](V value) { return value.boolean() != nullptr && *value.boolean(); }>},
      {"undefined", unary<[](V value) { return value.is_undefined(); }>},
      {"upper", unary<[](V value) { return is_cased(to_text(value), true); }>}};
  return kTests;
}

}  // namespace

Test find_test(std::string_view name) {
  const auto found = tests().find(name);
  return found == tests().end() ? nullptr : found->second;
}

}  // namespace shardpipe::text::jinja
