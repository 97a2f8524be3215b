#include "graph/scalar.h"

#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace shardpipe::graph {
namespace {

struct Row {
  ScalarOperator op;
  const char* name;
  size_t num_arguments;
};

constexpr std::array kRows = {
    Row{ScalarOperator::add, "add", 2},       Row{ScalarOperator::sub, "sub", 2},
    Row{ScalarOperator::mul, "mul", 2},       Row{ScalarOperator::floordiv, "floordiv", 2},
    Row{ScalarOperator::mod, "mod", 2},       Row{ScalarOperator::truediv, "truediv", 2},
    Row{ScalarOperator::pow, "pow", 2},       Row{ScalarOperator::min, "min", 2},
    Row{ScalarOperator::max, "max", 2},       Row{ScalarOperator::eq, "eq", 2},
    Row{ScalarOperator::ne, "ne", 2},         Row{ScalarOperator::lt, "lt", 2},
    Row{ScalarOperator::le, "le", 2},         Row{ScalarOperator::gt, "gt", 2},
    Row{ScalarOperator::ge, "ge", 2},         Row{ScalarOperator::logical_and, "and", 2},
    Row{ScalarOperator::logical_or, "or", 2}, Row{ScalarOperator::neg, "neg", 1},
    Row{ScalarOperator::absolute, "abs", 1},  Row{ScalarOperator::logical_not, "not", 1},
    Row{ScalarOperator::trunc, "trunc", 1},   Row{ScalarOperator::floor, "floor", 1},
    Row{ScalarOperator::ceil, "ceil", 1},     Row{ScalarOperator::round, "round", 1},
    Row{ScalarOperator::sqrt, "sqrt", 1},     Row{ScalarOperator::to_float, "float", 1},
    Row{ScalarOperator::same, "same", 1},     Row{ScalarOperator::choose, "choose", 3},
};

std::string text(const c10::IValue& value) {
  return value.isInt()      ? std::to_string(value.toInt())
         : value.isDouble() ? fmt::format("{}", value.toDouble())
         : value.isBool()   ? (value.toBool() ? "true" : "false")
                            : std::string("a ") + value.tagKind();
}

double as_float(const c10::IValue& value) {
  return value.isDouble() ? value.toDouble() : static_cast<double>(value.isBool() ? value.toBool() : value.toInt());
}

int64_t as_int(const c10::IValue& value) {
  return value.isBool() ? static_cast<int64_t>(value.toBool()) : value.toInt();
}

bool as_bool(const c10::IValue& value) {
  return value.isDouble() ? value.toDouble() != 0 : as_int(value) != 0;
}

[[noreturn]] void out_of_range(ScalarOperator op, std::span<const c10::IValue> arguments) {
  throw_internal("{} of {} and {} exceeds 64 bits", to_string(op), text(arguments[0]), text(arguments.back()));
}

// A float whose whole part fits into 64 bits.
int64_t to_int(ScalarOperator op, double value, std::span<const c10::IValue> arguments) {
  constexpr double kLimit = 9223372036854775808.0;
  if (!(value >= -kLimit && value < kLimit)) {  // NaN too
    out_of_range(op, arguments);
  }
  return static_cast<int64_t>(value);
}

int64_t integer(ScalarOperator op, int64_t a, int64_t b, std::span<const c10::IValue> arguments) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case ScalarOperator::add:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case ScalarOperator::sub:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case ScalarOperator::mul:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case ScalarOperator::floordiv:
    case ScalarOperator::mod: {
      if (b == 0) {
        throw_internal("division of {} by zero", a);
      }
      if (b == -1) {  // a % -1 overflows in C++ for the smallest a
        overflow = op == ScalarOperator::floordiv && __builtin_sub_overflow(int64_t{0}, a, &result);
        break;
      }
      const bool down = a % b != 0 && (a < 0) != (b < 0);
      result = op == ScalarOperator::floordiv ? a / b - (down ? 1 : 0) : a % b + (down ? b : 0);
      break;
    }
    case ScalarOperator::pow:
      result = 1;
      for (int64_t factor = a; b > 0 && !overflow; b /= 2) {
        overflow = b % 2 != 0 && __builtin_mul_overflow(result, factor, &result);
        overflow = overflow || (b > 1 && __builtin_mul_overflow(factor, factor, &factor));
      }
      break;
    case ScalarOperator::min:
      result = std::min(a, b);
      break;
    case ScalarOperator::max:
      result = std::max(a, b);
      break;
    default:
      throw_internal("{} is no operator on integers", to_string(op));
  }
  if (overflow) {
    out_of_range(op, arguments);
  }
  return result;
}

double floating(ScalarOperator op, double a, double b) {
  switch (op) {
    case ScalarOperator::add:
      return a + b;
    case ScalarOperator::sub:
      return a - b;
    case ScalarOperator::mul:
      return a * b;
    case ScalarOperator::truediv:
    case ScalarOperator::floordiv:
    case ScalarOperator::mod: {
      if (b == 0) {
        throw_internal("division of {} by zero", a);
      }
      if (op == ScalarOperator::truediv) {
        return a / b;
      }
      // CPython's float_divmod.
      double remainder = std::fmod(a, b);
      double quotient = (a - remainder) / b;
      if (remainder != 0 && (b < 0) != (remainder < 0)) {
        remainder += b;
        quotient -= 1;
      }
      if (op == ScalarOperator::mod) {
        return remainder != 0 ? remainder : std::copysign(0.0, b);
      }
      const double floored = std::floor(quotient);
      return quotient == 0 ? std::copysign(0.0, a / b) : floored + (quotient - floored > 0.5 ? 1 : 0);
    }
    case ScalarOperator::pow:
      return std::pow(a, b);
    case ScalarOperator::min:
      return std::min(a, b);
    case ScalarOperator::max:
      return std::max(a, b);
    default:
      throw_internal("{} is no operator on floats", to_string(op));
  }
}

template <typename T>
bool compare(ScalarOperator op, T a, T b) {
  switch (op) {
    case ScalarOperator::eq:
      return a == b;
    case ScalarOperator::ne:
      return a != b;
    case ScalarOperator::lt:
      return a < b;
    case ScalarOperator::le:
      return a <= b;
    case ScalarOperator::gt:
      return a > b;
    default:
      return a >= b;
  }
}

c10::IValue unary(ScalarOperator op, const c10::IValue& a, std::span<const c10::IValue> arguments) {
  switch (op) {
    case ScalarOperator::same:
      return a;
    case ScalarOperator::logical_not:
      return !as_bool(a);
    case ScalarOperator::to_float:
      return as_float(a);
    case ScalarOperator::sqrt:
      if (as_float(a) < 0) {
        throw_internal("square root of {}", text(a));
      }
      return std::sqrt(as_float(a));
    case ScalarOperator::neg:
      return a.isDouble() ? c10::IValue(-a.toDouble()) : integer(ScalarOperator::sub, 0, as_int(a), arguments);
    case ScalarOperator::absolute:
      return a.isDouble()    ? c10::IValue(std::abs(a.toDouble()))
             : as_int(a) < 0 ? integer(ScalarOperator::sub, 0, as_int(a), arguments)
                             : as_int(a);
    case ScalarOperator::trunc:
      return a.isDouble() ? to_int(op, std::trunc(a.toDouble()), arguments) : as_int(a);
    case ScalarOperator::floor:
      return a.isDouble() ? to_int(op, std::floor(a.toDouble()), arguments) : as_int(a);
    case ScalarOperator::ceil:
      return a.isDouble() ? to_int(op, std::ceil(a.toDouble()), arguments) : as_int(a);
    case ScalarOperator::round:
      return a.isDouble() ? to_int(op, std::nearbyint(a.toDouble()), arguments) : as_int(a);
    default:
      throw_internal("a node without an operator");
  }
}

}  // namespace

const char* to_string(ScalarOperator op) {
  for (const Row& row : kRows) {
    if (row.op == op) {
      return row.name;
    }
  }
  return "none";
}

std::optional<ScalarOperator> parse_scalar_operator(std::string_view name) {
  for (const Row& row : kRows) {
    if (name == row.name) {
      return row.op;
    }
  }
  return std::nullopt;
}

size_t num_arguments(ScalarOperator op) {
  for (const Row& row : kRows) {
    if (row.op == op) {
      return row.num_arguments;
    }
  }
  return 0;
}

c10::IValue compute(ScalarOperator op, std::span<const c10::IValue> arguments) {
  if (op == ScalarOperator::none || arguments.size() != num_arguments(op)) {
    throw_internal("a node without an operator, or with {} arguments for {}", arguments.size(), to_string(op));
  }
  for (const c10::IValue& argument : arguments) {
    if (!argument.isInt() && !argument.isDouble() && !argument.isBool()) {
      throw_internal("{} of {}, which is no number", to_string(op), text(argument));
    }
  }
  const c10::IValue& a = arguments[0];
  if (arguments.size() == 1) {
    return unary(op, a, arguments);
  }
  if (op == ScalarOperator::choose) {
    return as_bool(a) ? arguments[1] : arguments[2];
  }
  const c10::IValue& b = arguments[1];
  const bool floats = a.isDouble() || b.isDouble();
  switch (op) {
    case ScalarOperator::logical_and:
      return as_bool(a) && as_bool(b);
    case ScalarOperator::logical_or:
      return as_bool(a) || as_bool(b);
    case ScalarOperator::eq:
    case ScalarOperator::ne:
    case ScalarOperator::lt:
    case ScalarOperator::le:
    case ScalarOperator::gt:
    case ScalarOperator::ge:
      return floats ? compare(op, as_float(a), as_float(b)) : compare(op, as_int(a), as_int(b));
    case ScalarOperator::truediv:
      return floating(op, as_float(a), as_float(b));
    case ScalarOperator::pow:
      if (!floats && as_int(b) < 0) {
        return floating(op, as_float(a), as_float(b));
      }
      break;
    default:
      break;
  }
  return floats ? c10::IValue(floating(op, as_float(a), as_float(b)))
                : c10::IValue(integer(op, as_int(a), as_int(b), arguments));
}

}  // namespace shardpipe::graph
