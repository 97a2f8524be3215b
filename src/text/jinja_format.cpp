// Python's two ways to format text: text % values and text.format(values).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

constexpr int64_t kMaxPrecision = 300;

int64_t read_count(std::string_view text, size_t& i) {
  int64_t count = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
    count = std::min<int64_t>(count * 10 + (text[i] - '0'), 1'000'000'000);
  }
  return count;
}

// A number without its sign, in the form that the letter asks for.
std::string digits(const Value& value, char letter, int64_t precision, bool alternate) {
  if (std::string_view("eEfFgG").find(letter) != std::string_view::npos) {
    if (precision > kMaxPrecision) {
      throw_input("a precision of {} digits is beyond the limit of {}", precision, kMaxPrecision);
    }
    const double size = std::fabs(*value.number());
    const std::string spec = fmt::format("{{:{}.{}{}}}", alternate ? "#" : "", precision < 0 ? 6 : precision, letter);
    return fmt::format(fmt::runtime(spec), size);
  }
  const auto integer = value.integer() ? *value.integer() : static_cast<int64_t>(*value.real());
  const uint64_t size = integer < 0 ? 0 - static_cast<uint64_t>(integer) : static_cast<uint64_t>(integer);
  std::string out = letter == 'x'   ? fmt::format("{:x}", size)
                    : letter == 'X' ? fmt::format("{:X}", size)
                    : letter == 'o' ? fmt::format("{:o}", size)
                    : letter == 'b' ? fmt::format("{:b}", size)
                                    : fmt::format("{}", size);
  if (alternate && letter != 'd') {
    out = std::string("0") + letter + out;
  }
  return out;
}

bool is_negative(const Value& value) {
  return value.real() != nullptr ? std::signbit(*value.real()) && !std::isnan(*value.real()) : *value.integer() < 0;
}

void group_thousands(std::string& number, char separator) {
  const size_t stop = std::min(number.find_first_not_of("0123456789"), number.size());
  for (size_t i = stop; i > 3; i -= 3) {
    number.insert(i - 3, 1, separator);
  }
}

struct Percent {
  std::string flags;
  int64_t width = 0, precision = -1;
  char letter = 's';
  bool has(char flag) const { return flags.find(flag) != std::string::npos; }
};

std::string percent_value(const Percent& spec, const Value& value) {
  std::string text;
  std::string sign;
  const char letter = spec.letter == 'i' || spec.letter == 'u' ? 'd' : spec.letter;
  if (letter == 's' || letter == 'r') {
    text = letter == 's' ? to_text(value) : repr(value);
    if (spec.precision >= 0) {
      text = *get_slice(Value(text), {}, Value(spec.precision), {}).text();
    }
  } else if (letter == 'c' && value.text() != nullptr && count_points(*value.text()) == 1) {
    text = *value.text();
  } else if (std::string_view("dxXoeEfFgG").find(letter) != std::string_view::npos) {
    const bool whole = std::string_view("xXo").find(letter) != std::string_view::npos;
    if (!value.number() || (whole && !value.integer())) {
      throw_input("%{} format: a {} is required, not {}", letter, whole ? "integer" : "real number", type_name(value));
    }
    text = digits(value, letter, spec.precision, spec.has('#'));
    if (letter == 'd' && spec.precision > static_cast<int64_t>(text.size())) {
      text = pad(text, spec.precision, Side::left, "0");
    }
    const bool real = std::string_view("eEfFgG").find(letter) != std::string_view::npos;
    const bool negative = is_negative(value) && (real || text.find_first_not_of('0') != std::string::npos);
    sign = negative ? "-" : spec.has('+') ? "+" : spec.has(' ') ? " " : "";
  } else {
    throw_input("unsupported format character '{}'", letter);
  }
  const bool number = letter != 's' && letter != 'r' && letter != 'c';
  if (spec.has('-')) {
    return pad(sign + text, spec.width, Side::right);
  }
  if (spec.has('0') && number) {
    return sign + pad(text, spec.width - static_cast<int64_t>(sign.size()), Side::left, "0");
  }
  return pad(sign + text, spec.width, Side::left);
}

}  // namespace

std::string format_percent(const std::string& text, const Value& arguments) {
  const Sequence* sequence = arguments.sequence();
  const bool tuple = sequence != nullptr && sequence->flavor == Sequence::Flavor::tuple;
  size_t used = 0;
  bool named = false;
  const auto next_argument = [&]() -> Value {
    if (used >= (tuple ? sequence->items.size() : 1)) {
      throw_input("not enough arguments for format string");
    }
    ++used;
    return tuple ? sequence->items[used - 1] : arguments;
  };
  charge_bytes(text.size());
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    ++i;
    Percent spec;
    std::optional<Value> value;
    if (i < text.size() && text[i] == '(') {
      const size_t close = text.find(')', i);
      if (arguments.dict() == nullptr || close == std::string::npos) {
        throw_input("format requires a mapping");
      }
      const std::string key = text.substr(i + 1, close - i - 1);
      const Value* found = arguments.dict()->find(std::string_view(key));
      if (found == nullptr) {
        throw_input("key '{}' of a format string is missing", key);
      }
      value = *found;
      named = true;
      i = close + 1;
    }
    for (; i < text.size() && std::string_view("-+ #0").find(text[i]) != std::string_view::npos; ++i) {
      spec.flags += text[i];
    }
    const auto count = [&] {
      if (i < text.size() && text[i] == '*') {
        ++i;
        Arguments argument{{next_argument()}, {}};
        return Bound("format", argument, {"width"}).integer(0, 0);
      }
      return read_count(text, i);
    };
    spec.width = count();
    if (i < text.size() && text[i] == '.') {
      ++i;
      spec.precision = count();
    }
    if (i >= text.size()) {
      throw_input("incomplete format");
    }
    spec.letter = text[i];
    if (spec.letter == '%') {
      out += '%';
      continue;
    }
    const std::string made = percent_value(spec, value ? *value : next_argument());
    charge_bytes(made.size());
    out += made;
  }
  // What can be subscripted counts as a mapping, of which the text may use any part.
  const bool mapping = arguments.dict() != nullptr || arguments.is_undefined() ||
                       (sequence != nullptr && sequence->flavor <= Sequence::Flavor::range);
  if (!named && (tuple ? used < sequence->items.size() : used == 0 && !mapping)) {
    throw_input("not all arguments converted during string formatting");
  }
  return out;
}

std::string format_value(const Value& value, std::string_view spec) {
  if (spec.empty()) {
    return to_text(value);
  }
  size_t i = 0;
  std::string fill = " ";
  char align = 0;
  const size_t first = point_bytes(spec, 0);
  constexpr std::string_view kAligns = "<>^=";
  if (first < spec.size() && kAligns.find(spec[first]) != std::string_view::npos) {
    fill = spec.substr(0, first);
    align = spec[first];
    i = first + 1;
  } else if (kAligns.find(spec[0]) != std::string_view::npos) {
    align = spec[i++];
  }
  const auto take = [&](std::string_view characters) {
    return i < spec.size() && characters.find(spec[i]) != std::string_view::npos ? spec[i++] : '\0';
  };
  const char sign = take("+- ");
  const bool alternate = take("#") != 0;
  if (take("0") != 0 && align == 0) {
    fill = "0";
    align = '=';
  }
  const int64_t width = read_count(spec, i);
  const char separator = take(",_");
  const int64_t precision = take(".") != 0 ? read_count(spec, i) : -1;
  const char letter = take("sdfFeEgGxXob%");
  const bool number = value.number() && value.boolean() == nullptr;
  const bool whole = std::string_view("dxXob").find(letter) != std::string_view::npos && letter != 0;
  if (i != spec.size() || (value.text() == nullptr && !number) ||
      (number ? letter == 's' : letter != 0 && letter != 's') || (whole && value.real() != nullptr) ||
      (!number && (sign != 0 || separator != 0))) {
    throw_input("unsupported format specification '{}' for a value of type {}", spec, type_name(value));
  }
  std::string text;
  std::string prefix;
  if (!number) {
    text = precision < 0 ? *value.text() : *get_slice(value, {}, Value(precision), {}).text();
  } else {
    prefix = is_negative(value) ? "-" : sign == '+' || sign == ' ' ? std::string(1, sign) : "";
    if (letter == '%') {
      text = digits(Value(*value.number() * 100), 'f', precision, false) + "%";
    } else if (letter == 0 && value.real() != nullptr) {
      text = precision < 0 ? float_text(std::fabs(*value.real())) : digits(value, 'g', precision, false);
    } else {
      text = digits(value, letter == 0 ? 'd' : letter, precision, alternate);
    }
    if (separator != 0) {
      group_thousands(text, separator);
    }
  }
  align = align != 0 ? align : number ? '>' : '<';
  const int64_t rest = width - static_cast<int64_t>(prefix.size());
  return align == '=' ? prefix + pad(text, rest, Side::left, fill)
      : align == '^'
      ? [&] {  // str.format puts the odd space on the right, str.center sometimes on the left
          const std::string whole_text = prefix + text;
          const int64_t missing = std::max<int64_t>(width - static_cast<int64_t>(count_points(whole_text)), 0);
          return repeat(fill, missing / 2) + whole_text + repeat(fill, missing - missing / 2);
        }()
      : pad(prefix + text, width, align == '<' ? Side::right : Side::left, fill);
}

namespace {

// The value of "name.attribute[item]..."; `automatic` counts the fields without a name.
Value field_value(const std::string& field, const Arguments& arguments, size_t& automatic) {
  size_t stop = field.find_first_of(".[");
  const std::string name = field.substr(0, stop);
  Value value;
  if (name.find_first_not_of("0123456789") == std::string::npos) {
    const size_t index = name.empty() ? automatic++ : static_cast<size_t>(*parse_integer(name, 10));
    if (index >= arguments.positional.size()) {
      throw_input("Replacement index {} out of range for positional args tuple", index);
    }
    value = arguments.positional[index];
  } else {
    const auto found = std::find_if(
        arguments.named.begin(), arguments.named.end(), [&](const auto& each) { return each.first == name; });
    if (found == arguments.named.end()) {
      throw_input("format field '{}' has no value", name);
    }
    value = found->second;
  }
  while (stop < field.size()) {
    const bool item = field[stop] == '[';
    const size_t end = item ? field.find(']', stop) : std::min(field.find_first_of(".[", stop + 1), field.size());
    if (end == std::string::npos) {
      throw_input("Missing ']' in format string");
    }
    const std::string part = field.substr(stop + 1, end - stop - 1);
    const auto index = item ? parse_integer(part, 10) : std::nullopt;
    value = !item ? get_attribute(value, part) : get_item(value, index ? Value(*index) : Value(part));
    stop = end + (item ? 1 : 0);
  }
  return value;
}

}  // namespace

std::string format_braces(const std::string& text, const Arguments& arguments) {
  charge_bytes(text.size());
  std::string out;
  size_t automatic = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] == '{' || text[i] == '}') && i + 1 < text.size() && text[i + 1] == text[i]) {
      out += text[i++];
      continue;
    }
    if (text[i] == '}') {
      throw_input("Single '}}' encountered in format string");
    }
    if (text[i] != '{') {
      out += text[i];
      continue;
    }
    const size_t close = text.find('}', i);
    if (close == std::string::npos) {
      throw_input("expected '}}' before end of string");
    }
    std::string field = text.substr(i + 1, close - i - 1);
    i = close;
    std::string spec;
    if (const size_t colon = field.find(':'); colon != std::string::npos) {
      spec = field.substr(colon + 1);
      field.resize(colon);
    }
    bool as_repr = false;
    if (const size_t mark = field.find('!'); mark != std::string::npos) {
      const std::string conversion = field.substr(mark + 1);
      if (conversion != "r" && conversion != "s") {
        throw_input("bad conversion '{}' in a format string", conversion);
      }
      as_repr = conversion == "r";
      field.resize(mark);
    }
    const Value value = field_value(field, arguments, automatic);
    const std::string made = format_value(as_repr ? Value(repr(value)) : value, spec);
    charge_bytes(made.size());
    out += made;
  }
  return out;
}

}  // namespace shardpipe::text::jinja
