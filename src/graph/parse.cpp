#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "graph/text.h"

namespace shardpipe::graph {
namespace {

// One line's reader. Every failure names the line and the column.
class Line {
 public:
  Line(std::string_view text, const std::string& where, int number) : text_(text), where_(where), number_(number) {}

  [[noreturn]] void fail(const std::string& expected) const {
    throw_input("bad graph text in {}, line {}, column {}: expected {}", where_, number_, at_ + 1, expected);
  }
  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') {
      ++at_;
    }
  }
  bool done() {
    skip_spaces();
    return at_ >= text_.size();
  }
  bool accept(std::string_view token) {
    skip_spaces();
    if (text_.substr(at_, token.size()) != token) {
      return false;
    }
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!accept(token)) {
      fail("\"" + std::string(token) + "\"");
    }
  }
  char peek() {
    skip_spaces();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  // Letters, digits and the given further characters.
  std::string_view word(std::string_view also) {
    skip_spaces();
    const size_t start = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) || also.find(text_[at_]) != std::string_view::npos)) {
      ++at_;
    }
    if (at_ == start) {
      fail("a word");
    }
    return text_.substr(start, at_ - start);
  }
  int64_t integer() {
    skip_spaces();
    int64_t value = 0;
    const auto [rest, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error != std::errc()) {
      fail("an integer");
    }
    at_ = static_cast<size_t>(rest - text_.data());
    return value;
  }
  ValueId value_id() {
    expect("%");
    const int64_t id = integer();
    // A graph of this many values would not fit a plan; the limit keeps a hostile file from asking for the memory.
    if (id < 0 || id > 50'000'000) {
      fail("a value id from 0 to 50000000");
    }
    return static_cast<ValueId>(id);
  }
  std::string quoted() {
    expect("\"");
    std::string out;
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) {
        ++at_;
        if (text_[at_] == 'x') {
          int code = 0;
          if (at_ + 2 >= text_.size() ||
              std::from_chars(text_.data() + at_ + 1, text_.data() + at_ + 3, code, 16).ptr != text_.data() + at_ + 3) {
            fail("two hexadecimal digits");
          }
          out += static_cast<char>(code);
          at_ += 3;
          continue;
        }
      }
      out += text_[at_++];
    }
    expect("\"");
    return out;
  }

  c10::IValue number() {
    skip_spaces();
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

  template <typename F>
  void list(F item) {
    expect("[");
    if (accept("]")) {
      return;
    }
    do {
      item();
    } while (accept(","));
    expect("]");
  }

  Argument argument() {
    switch (peek()) {
      case '%':
        return Argument::value(value_id());
      case '"':
        return Argument(c10::IValue(quoted()));
      case '[': {
        ArgumentList items;
        list([&] { items.push_back(argument()); });
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
      list([&] { items.push_back(number().toDouble()); });
      return Argument(c10::IValue(items));
    }
    if (accept("bools")) {
      c10::List<bool> items;
      list([&] { items.push_back(boolean()); });
      return Argument(c10::IValue(items));
    }
    if (accept("none")) {
      return Argument(c10::IValue());
    }
    if (peek() == 't' || peek() == 'f') {
      return Argument(c10::IValue(boolean()));
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

  bool boolean() {
    if (accept("true")) {
      return true;
    }
    expect("false");
    return false;
  }

  void type(Value& value) {
    const std::string_view name = word("_");
    if (name == "tensors") {
      value.type = ValueType::tensor_list;
    } else if (name == "int") {
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
      list([&] { shape.push_back(Size::parse(word("_*+-"))); });
      value.shape = std::move(shape);
    }
  }

 private:
  std::string_view text_;
  const std::string& where_;
  int number_;
  size_t at_ = 0;
};

at::Tensor content(Line& line, const std::string& hex, const Value& value) {
  std::vector<int64_t> shape;
  int64_t count = value.dtype ? static_cast<int64_t>(c10::elementSize(*value.dtype)) : 0;
  if (!value.dtype || !value.shape) {
    line.fail("dtype and shape of a buffer with content");
  }
  for (const Size& size : *value.shape) {
    shape.push_back(size.constant());
    count *= shape.back();
  }
  if (static_cast<int64_t>(hex.size()) != 2 * count) {
    line.fail(fmt::format("content of {} bytes, not {}", count, hex.size() / 2));
  }
  at::Tensor tensor = at::empty(shape, at::TensorOptions(*value.dtype));
  auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
  for (int64_t i = 0; i < count; ++i) {
    const char* digits = hex.data() + 2 * i;
    if (std::from_chars(digits, digits + 2, bytes[i], 16).ptr != digits + 2) {
      line.fail("hexadecimal content");
    }
  }
  return tensor;
}

void declaration(Line& line, ValueKind kind, Graph& graph, const auto& define) {
  Value value;
  value.kind = kind;
  const ValueId id = line.value_id();
  value.name = line.quoted();
  std::string hex;
  bool has_content = false;
  while (!line.accept(":")) {
    if (line.accept("tied")) {
      value.tied_names.push_back(line.quoted());
    } else if (line.accept("per_sequence")) {
      value.state = StateKind::per_sequence;
    } else if (line.accept("shared")) {
      value.state = StateKind::shared;
    } else {
      line.expect("content");
      hex = line.quoted();
      has_content = true;
    }
  }
  line.type(value);
  if (has_content) {
    value.content = content(line, hex, value);
  }
  define(line, id, std::move(value));
  if (kind == ValueKind::input) {
    graph.inputs.push_back(id);
  }
}

}  // namespace

Graph parse(std::string_view text, const std::string& where) {
  Graph graph;
  std::vector<bool> defined;
  const auto define = [&](Line& line, ValueId id, Value value) {
    const auto index = static_cast<size_t>(id);
    if (index >= graph.values.size()) {
      graph.values.resize(index + 1);
      defined.resize(index + 1, false);
    }
    if (defined[index]) {
      line.fail(fmt::format("%{} to be defined once", id));
    }
    defined[index] = true;
    graph.values[index] = std::move(value);
  };
  int number = 0;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    Line line(text.substr(at, end - at), where, ++number);
    at = end + 1;
    if (number == 1) {
      line.expect("shardpipe-graph 1");
    } else if (line.accept("#")) {
      Node node;
      node.id = static_cast<int32_t>(line.integer());
      while (line.peek() == '%') {
        const ValueId id = line.value_id();
        node.results.push_back(id);
        line.expect(":");
        Value value;
        line.type(value);
        define(line, id, std::move(value));
      }
      line.expect("=");
      const std::string name(line.word("_:."));
      if (name.starts_with("scalar::")) {
        const auto scalar = parse_scalar_operator(std::string_view(name).substr(8));
        if (!scalar) {
          line.fail("a scalar operator, not " + name);
        }
        node.scalar = *scalar;
      } else {
        node.op = find_operator(name);
      }
      line.expect("(");
      if (!line.accept(")")) {
        do {
          node.arguments.push_back(line.argument());
        } while (line.accept(","));
        line.expect(")");
      }
      node.grad_enabled = !line.accept("no_grad");
      line.expect("in");
      node.module = line.quoted();
      graph.nodes.push_back(std::move(node));
    } else if (line.accept("dimension")) {
      graph.dimensions.emplace_back(line.word("_"));
    } else if (line.accept("input")) {
      declaration(line, ValueKind::input, graph, define);
    } else if (line.accept("parameter")) {
      declaration(line, ValueKind::parameter, graph, define);
    } else if (line.accept("buffer")) {
      declaration(line, ValueKind::buffer, graph, define);
    } else if (line.accept("state")) {
      declaration(line, ValueKind::state, graph, define);
    } else if (line.accept("module")) {
      std::string path = line.quoted();
      graph.modules[std::move(path)] = line.quoted();
    } else {
      line.expect("output");
      Output output;
      output.name = line.quoted();
      output.value = line.value_id();
      graph.outputs.push_back(std::move(output));
    }
    if (!line.done()) {
      line.fail("the end of the line");
    }
  }
  return graph;
}

}  // namespace shardpipe::graph
