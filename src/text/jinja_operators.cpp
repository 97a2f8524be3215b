#include "text/jinja_operators.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

void check_defined(const Value& value) {
  if (value.is_undefined()) {
    fail_undefined(value);
  }
}

[[noreturn]] void fail_operands(std::string_view sign, const Value& left, const Value& right) {
  throw_input("unsupported operand type(s) for {}: '{}' and '{}'", sign, type_name(left), type_name(right));
}

void check_overflow(bool overflow) {
  if (overflow) {
    throw_input("an integer of the chat template is beyond 64 bits");
  }
}

int64_t power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0) {
      check_overflow(__builtin_mul_overflow(result, base, &result));
    }
    // The last square is not used, so it may overflow.
    check_overflow(exponent > 1 && __builtin_mul_overflow(base, base, &base));
  }
  return result;
}

Value integers(std::string_view sign, int64_t a, int64_t b) {
  int64_t result = 0;
  if (sign == "+") {
    check_overflow(__builtin_add_overflow(a, b, &result));
    return result;
  }
  if (sign == "-") {
    check_overflow(__builtin_sub_overflow(a, b, &result));
    return result;
  }
  if (sign == "*") {
    check_overflow(__builtin_mul_overflow(a, b, &result));
    return result;
  }
  if (sign == "**") {
    if (b >= 0) {
      return power(a, b);
    }
    if (a == 0) {
      throw_input("0.0 cannot be raised to a negative power");
    }
    return std::pow(static_cast<double>(a), static_cast<double>(b));
  }
  if (b == 0) {
    throw_input("division by zero");
  }
  if (sign == "/") {
    return static_cast<double>(a) / static_cast<double>(b);
  }
  check_overflow(a == INT64_MIN && b == -1);
  // Python rounds towards minus infinity; the remainder has the divisor's sign.
  const int64_t remainder = a % b;
  const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
  return sign == "//" ? a / b - (adjust ? 1 : 0) : remainder + (adjust ? b : 0);
}

double python_mod(double a, double b) {
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    remainder += b;
  }
  return remainder == 0 ? std::copysign(0.0, b) : remainder;
}

Value reals(std::string_view sign, double a, double b) {
  if (sign == "+") {
    return a + b;
  }
  if (sign == "-") {
    return a - b;
  }
  if (sign == "*") {
    return a * b;
  }
  if (sign == "**") {
    if (a == 0 && b < 0) {
      throw_input("0.0 cannot be raised to a negative power");
    }
    if (a < 0 && b != std::floor(b)) {
      throw_input("a power that is a complex number is not supported");
    }
    const double result = std::pow(a, b);
    if (std::isinf(result) && !std::isinf(a) && !std::isinf(b)) {
      throw_input("numerical result out of range");
    }
    return result;
  }
  if (b == 0) {
    throw_input(
        "{}", sign == "/"   ? "float division by zero"
              : sign == "%" ? "float modulo"
                            : "float floor division by zero");
  }
  if (sign == "/") {
    return a / b;
  }
  if (sign == "%") {
    return python_mod(a, b);
  }
  // As CPython's float_floor_div: from the remainder, so that it agrees with %.
  const double quotient = (a - python_mod(a, b)) / b;
  return quotient == 0 ? std::copysign(0.0, a / b)
                       : std::floor(quotient) + (quotient - std::floor(quotient) > 0.5 ? 1 : 0);
}

bool is_list_or_tuple(const Value& value) {
  const Sequence* sequence = value.sequence();
  return sequence != nullptr &&
         (sequence->flavor == Sequence::Flavor::list || sequence->flavor == Sequence::Flavor::tuple);
}

Value add_texts(const Value& left, const Value& right) {
  charge_bytes(left.text()->size() + right.text()->size());
  const bool markup = left.is_markup() || right.is_markup();
  if (!markup) {
    return *left.text() + *right.text();
  }
  const auto escaped = [](const Value& value) {
    return value.is_markup() ? *value.text() : escape_html(*value.text());
  };
  return Value(escaped(left) + escaped(right), true);
}

Value add_sequences(const Value& left, const Value& right) {
  Values items = left.sequence()->items;
  items.insert(items.end(), right.sequence()->items.begin(), right.sequence()->items.end());
  return make_sequence(std::move(items), left.sequence()->flavor);
}

Value repeat_value(const Value& value, int64_t times) {
  if (value.text() != nullptr) {
    return Value(repeat(*value.text(), times), value.is_markup());
  }
  const Values& items = value.sequence()->items;
  Values out;
  for (int64_t i = 0; i < times && !items.empty(); ++i) {
    charge(2 * items.size());
    out.insert(out.end(), items.begin(), items.end());
  }
  return make_sequence(std::move(out), value.sequence()->flavor);
}

}  // namespace

Value arithmetic(std::string_view sign, const Value& left, const Value& right) {
  if (sign == "%" && left.text() != nullptr) {
    return Value(format_percent(*left.text(), right), left.is_markup());
  }
  check_defined(left);
  check_defined(right);
  if (left.number() && right.number()) {
    return left.real() != nullptr || right.real() != nullptr ? reals(sign, *left.number(), *right.number())
                                                             : integers(sign, *left.integer(), *right.integer());
  }
  if (sign == "+" && left.text() != nullptr && right.text() != nullptr) {
    return add_texts(left, right);
  }
  if (sign == "+" && is_list_or_tuple(left) && is_list_or_tuple(right) &&
      left.sequence()->flavor == right.sequence()->flavor) {
    return add_sequences(left, right);
  }
  const auto repeats = [](const Value& value) { return value.text() != nullptr || is_list_or_tuple(value); };
  if (sign == "*" && repeats(left) && right.integer()) {
    return repeat_value(left, *right.integer());
  }
  if (sign == "*" && repeats(right) && left.integer()) {
    return repeat_value(right, *left.integer());
  }
  fail_operands(sign == "**" ? "** or pow()" : sign, left, right);
}

Value negate(const Value& value) {
  check_defined(value);
  if (value.real() != nullptr) {
    return -*value.real();
  }
  if (!value.integer()) {
    throw_input("bad operand type for unary -: '{}'", type_name(value));
  }
  check_overflow(*value.integer() == INT64_MIN);
  return -*value.integer();
}

Value positive(const Value& value) {
  check_defined(value);
  if (!value.number()) {
    throw_input("bad operand type for unary +: '{}'", type_name(value));
  }
  return value.real() != nullptr ? value : Value(*value.integer());
}

bool compare(std::string_view sign, const Value& left, const Value& right) {
  if (sign == "==" || sign == "!=") {
    return equal(left, right) == (sign == "==");
  }
  if (sign == "in" || sign == "not in") {
    return contains(right, left) == (sign == "in");
  }
  // NaN is neither below nor equal, so <= is not the opposite of >.
  if (sign == "<") {
    return less(left, right, "<");
  }
  if (sign == ">") {
    return less(right, left, ">");
  }
  return sign == "<=" ? less(left, right, "<=") || equal(left, right) : less(right, left, ">=") || equal(left, right);
}

Value call(const Value& callee, Arguments& arguments) {
  if (const Callable* callable = callee.callable()) {
    return callable->function(arguments);
  }
  if (Loop* loop = callee.loop()) {
    if (!loop->recurse) {
      throw_input("The loop must have the 'recursive' marker to be called recursively.");
    }
    const Bound bound("loop", arguments, {"iterable"}, 1);
    return loop->recurse(bound[0], loop->depth0 + 1);
  }
  check_defined(callee);
  throw_input("'{}' object is not callable", type_name(callee));
}

Bound::Bound(std::string_view function, Arguments& arguments, const std::vector<const char*>& names, size_t required)
    : function_(function), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names.size()) {
    throw_input("{}() takes at most {} arguments ({} given)", function, names.size(), arguments.positional.size());
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found =
        std::find_if(names.begin(), names.end(), [&name = name](const char* each) { return name == each; });
    if (found == names.end()) {
      throw_input("{}() got an unexpected keyword argument '{}'", function, name);
    }
    const Value*& place = values_[static_cast<size_t>(found - names.begin())];
    if (place != nullptr) {
      throw_input("{}() got multiple values for argument '{}'", function, name);
    }
    place = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) {
      throw_input("{}() missing the required argument '{}'", function, names[i]);
    }
  }
}

int64_t Bound::integer(size_t index, int64_t otherwise) const {
  if (!has(index)) {
    return otherwise;
  }
  const Value& value = *values_[index];
  check_defined(value);
  if (!value.integer()) {
    throw_input("{}(): '{}' object cannot be interpreted as an integer", function_, type_name(value));
  }
  return *value.integer();
}

const std::string& Bound::text(size_t index) const {
  if (values_[index]->text() == nullptr) {
    throw_input("{}() argument must be str, not {}", function_, type_name(*values_[index]));
  }
  return *values_[index]->text();
}

std::optional<std::string> Bound::optional_text(size_t index) const {
  return !has(index) || values_[index]->is_none() ? std::nullopt : std::optional(text(index));
}

}  // namespace shardpipe::text::jinja
