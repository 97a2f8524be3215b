#include "graph/line.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>

#include "base/error.h"

namespace shardpipe::graph {
namespace {

// Far more than any model has; they keep a hostile file from asking for memory or stack.
constexpr ValueId kMaxValueId = 1'000'000;
constexpr int kMaxDepth = 8;

}  // namespace

void Line::fail(const std::string& expected) const {
  throw_input("bad graph text in {}, line {}, column {}: expected {}", where_, number_, at_ + 1, expected);
}

void Line::skip_spaces() {
  while (at_ < text_.size() && text_[at_] == ' ') {
    ++at_;
  }
}

bool Line::done() {
  skip_spaces();
  return at_ >= text_.size();
}

char Line::peek() {
  skip_spaces();
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool Line::accept(std::string_view token) {
  skip_spaces();
  if (text_.substr(at_, token.size()) != token) {
    return false;
  }
  at_ += token.size();
  return true;
}

void Line::expect(std::string_view token) {
  if (!accept(token)) {
    fail("\"" + std::string(token) + "\"");
  }
}

std::string_view Line::word(std::string_view also) {
  skip_spaces();
  const auto belongs = [&](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || also.find(c) != std::string_view::npos;
  };
  const size_t start = at_;
  while (at_ < text_.size() && belongs(text_[at_])) {
    ++at_;
  }
  if (at_ == start) {
    fail("a word");
  }
  return text_.substr(start, at_ - start);
}

std::string Line::quoted() {
  expect("\"");
  std::string out;
  while (at_ < text_.size() && text_[at_] != '"') {
    if (text_[at_] == '\\' && ++at_ < text_.size() && text_[at_] == 'x') {
      unsigned code = 0;
      const char* digits = text_.data() + at_ + 1;
      if (at_ + 2 >= text_.size() || std::from_chars(digits, digits + 2, code, 16).ptr != digits + 2) {
        fail("two hexadecimal digits");
      }
      out += static_cast<char>(code);
      at_ += 3;
    } else if (at_ < text_.size()) {
      out += text_[at_++];
    }
  }
  expect("\"");
  return out;
}

int64_t Line::integer() {
  skip_spaces();
  int64_t value = 0;
  const auto [rest, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  if (error != std::errc()) {
    fail("an integer of 64 bits");
  }
  at_ = static_cast<size_t>(rest - text_.data());
  return value;
}

int32_t Line::id(int32_t limit) {
  const int64_t number = integer();
  if (number < 0 || number > limit) {
    fail(fmt::format("an id from 0 to {}, not {}", limit, number));
  }
  return static_cast<int32_t>(number);
}

ValueId Line::value_id() {
  expect("%");
  return id(kMaxValueId);
}

bool Line::boolean() {
  if (accept("true")) {
    return true;
  }
  expect("false");
  return false;
}

c10::IValue Line::number() {
  if (accept("inf")) {
    return std::numeric_limits<double>::infinity();
  }
  if (accept("-inf")) {
    return -std::numeric_limits<double>::infinity();
  }
  if (accept("nan")) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  const size_t end = std::min(text_.find_first_not_of("+-0123456789.e", at_), text_.size());
  const std::string_view token = text_.substr(at_, end - at_);
  if (token.find_first_of(".e") == std::string_view::npos) {
    return integer();
  }
  double value = 0;
  const auto [rest, error] = std::from_chars(token.data(), token.data() + token.size(), value);
  if (error != std::errc() || rest != token.data() + token.size()) {
    fail("a number");
  }
  at_ = end;
  return value;
}

double Line::floating() {
  const c10::IValue value = number();
  if (!value.isDouble()) {
    fail("a number with a point");
  }
  return value.toDouble();
}

template <typename F>
void Line::list(F item) {
  expect("[");
  if (accept("]")) {
    return;
  }
  do {
    item();
  } while (accept(","));
  expect("]");
}

Argument Line::argument(int depth) {
  if (depth > kMaxDepth) {
    fail(fmt::format("lists in lists at most {} deep", kMaxDepth));
  }
  switch (peek()) {
    case '%':
      return Argument::value(value_id());
    case '"':
      return Argument(c10::IValue(quoted()));
    case '[': {
      ArgumentList items;
      list([&] { items.push_back(argument(depth + 1)); });
      return Argument::list(std::move(items));
    }
    default:
      break;
  }
  if (accept("ints")) {
    c10::List<int64_t> items;
    list([&] { items.push_back(integer()); });
    return Argument(c10::IValue(items));
  }
  if (accept("floats")) {
    c10::List<double> items;
    list([&] { items.push_back(floating()); });
    return Argument(c10::IValue(items));
  }
  if (accept("bools")) {
    c10::List<bool> items;
    list([&] { items.push_back(boolean()); });
    return Argument(c10::IValue(items));
  }
  if (accept("strings")) {
    c10::List<std::string> items;
    list([&] { items.push_back(quoted()); });
    return Argument(c10::IValue(items));
  }
  if (accept("none")) {
    return Argument(c10::IValue());
  }
  if (peek() == 't' || peek() == 'f') {
    return Argument(c10::IValue(boolean()));
  }
  if (accept("complex(")) {
    const double real = floating();
    expect(",");
    const double imaginary = floating();
    expect(")");
    return Argument(c10::IValue(c10::complex<double>(real, imaginary)));
  }
  if (accept("device(")) {
    const std::string name = quoted();
    expect(")");
    try {
      return Argument(c10::IValue(c10::Device(name)));
    } catch (const c10::Error&) {
      fail("a device, not \"" + name + "\"");
    }
  }
  return Argument(number());
}

Autocast Line::autocast() {
  Autocast region;
  const std::string name(word("_"));
  const auto dtype = parse_dtype(name);
  if (!dtype) {
    fail("a dtype, not \"" + name + "\"");
  }
  region.dtype = *dtype;
  expect(",");
  region.enabled = boolean();
  expect(",");
  region.cache = boolean();
  expect(",");
  region.region = id(std::numeric_limits<int32_t>::max());
  expect(")");
  return region;
}

Size Line::size() {
  const std::string_view text = word("_*+-");
  try {
    return Size::parse(text);
  } catch (const Error&) {
    fail("a size, not \"" + std::string(text) + "\"");
  }
}

c10::OperatorHandle Line::op(const std::string& name) {
  try {
    return find_operator(name);
  } catch (const Error&) {
    fail("an operator, not " + name);
  }
}

void Line::type(Value& value) {
  const std::string_view name = word("_");
  if (name == "int") {
    value.type = ValueType::integer;
  } else if (name == "float") {
    value.type = ValueType::number;
  } else if (name == "bool_value") {
    value.type = ValueType::boolean;
  } else if (name == "string") {
    value.type = ValueType::string;
  } else if (name != "tensor") {
    value.dtype = parse_dtype(name);
    if (!value.dtype) {
      fail("a dtype, not \"" + std::string(name) + "\"");
    }
  }
  if (peek() == '[') {
    Shape shape;
    list([&] { shape.push_back(size()); });
    value.shape = std::move(shape);
  }
}

}  // namespace shardpipe::graph
