#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"
#include "graph/line.h"
#include "graph/scalar.h"
#include "graph/text.h"

namespace shardpipe::graph {
namespace {

at::Tensor content(Line& line, const std::string& hex, const Value& value) {
  const auto constant = [](const Size& size) { return size.is_constant() && size.constant() >= 0; };
  if (!value.dtype || !value.shape || !std::all_of(value.shape->begin(), value.shape->end(), constant)) {
    line.fail("dtype and numbers as the shape of a buffer with content");
  }
  auto count = static_cast<int64_t>(c10::elementSize(*value.dtype));
  bool overflow = false;
  for (const Size& size : *value.shape) {
    overflow = overflow || __builtin_mul_overflow(count, size.constant(), &count);
  }
  if (overflow || hex.size() % 2 != 0 || hex.size() / 2 != static_cast<size_t>(count)) {
    line.fail(fmt::format(
        "the content of a {}{}, not {} digits", dtype_name(*value.dtype), to_string(*value.shape), hex.size()));
  }
  at::Tensor tensor;
  try {
    tensor = at::empty(evaluate(*value.shape, {}), at::TensorOptions(*value.dtype));
  } catch (const c10::Error&) {
    line.fail("a shape that a tensor can have");  // an empty one with huge extents
  }
  auto* bytes = static_cast<unsigned char*>(tensor.mutable_data_ptr());
  for (int64_t i = 0; i < count; ++i) {
    const char* digits = hex.data() + 2 * i;
    if (std::from_chars(digits, digits + 2, bytes[i], 16).ptr != digits + 2) {
      line.fail("hexadecimal content");
    }
  }
  return tensor;
}

class Parser {
 public:
  void parse(Line& line) {
    if (line.accept("#")) {
      node(line);
    } else if (line.accept("dimension")) {
      graph_.dimensions.emplace_back(line.word("_"));
    } else if (line.accept("input")) {
      graph_.inputs.push_back(declaration(line, ValueKind::input));
    } else if (line.accept("parameter")) {
      declaration(line, ValueKind::parameter);
    } else if (line.accept("buffer")) {
      declaration(line, ValueKind::buffer);
    } else if (line.accept("state")) {
      declaration(line, ValueKind::state);
    } else if (line.accept("module")) {
      std::string path = line.quoted();
      graph_.modules[std::move(path)] = line.quoted();
    } else if (line.accept("update")) {
      Update update;
      update.state = line.value_id();
      check_defined(line, update.state);
      update.value = line.value_id();
      check_defined(line, update.value);
      graph_.updates.push_back(update);
    } else {
      line.expect("output");
      Output output;
      output.name = line.quoted();
      output.value = line.value_id();
      check_defined(line, output.value);
      graph_.outputs.push_back(std::move(output));
    }
  }

  /// The last node is a cond that has not both of its branches yet.
  bool wants_branch() const { return !graph_.nodes.empty() && is_cond(graph_.nodes.back()) && missing() > 0; }
  void add_branch(Graph branch) {
    graph_.nodes.back().branches.push_back(std::make_shared<const Graph>(std::move(branch)));
  }

  Graph take() { return std::move(graph_); }

 private:
  static bool is_cond(const Node& node) { return !node.op && node.scalar == ScalarOperator::none; }
  size_t missing() const { return 2 - graph_.nodes.back().branches.size(); }

  ValueId declaration(Line& line, ValueKind kind) {
    Value value;
    value.kind = kind;
    const ValueId id = line.value_id();
    value.name = line.quoted();
    std::optional<std::string> hex;
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
      }
    }
    line.type(value);
    if (hex) {
      value.content = content(line, *hex, value);
    }
    define(line, id, std::move(value));
    return id;
  }

  void node(Line& line) {
    Node node;
    node.id = line.id(std::numeric_limits<int32_t>::max());
    std::vector<Value> results;
    while (line.peek() == '%') {
      node.results.push_back(line.value_id());
      line.expect(":");
      line.type(results.emplace_back());
    }
    line.expect("=");
    const std::string name(line.word("_:."));
    if (name.starts_with("scalar::")) {
      const auto scalar = parse_scalar_operator(std::string_view(name).substr(8));
      if (!scalar) {
        line.fail("a scalar operator, not " + name);
      }
      node.scalar = *scalar;
    } else if (name != "cond") {
      node.op = line.op(name);
    }
    line.expect("(");
    if (!line.accept(")")) {
      do {
        node.arguments.push_back(line.argument());
      } while (line.accept(","));
      line.expect(")");
    }
    node.grad_enabled = !line.accept("no_grad");
    if (line.accept("autocast(")) {
      node.autocast = line.autocast();
    }
    line.expect("in");
    node.module = line.quoted();
    for (const ValueId operand : Graph::operands(node)) {
      check_defined(line, operand);
    }
    for (size_t i = 0; i < results.size(); ++i) {
      define(line, node.results[i], std::move(results[i]));
    }
    graph_.nodes.push_back(std::move(node));
  }

  void define(Line& line, ValueId id, Value value) {
    const auto index = static_cast<size_t>(id);
    if (index >= graph_.values.size()) {
      graph_.values.resize(index + 1);
      defined_.resize(index + 1, false);
    }
    if (defined_[index]) {
      line.fail(fmt::format("%{} to be defined once", id));
    }
    defined_[index] = true;
    graph_.values[index] = std::move(value);
  }

  void check_defined(Line& line, ValueId id) const {
    if (static_cast<size_t>(id) >= defined_.size() || !defined_[static_cast<size_t>(id)]) {
      line.fail(fmt::format("%{} to be defined before its use", id));
    }
  }

  Graph graph_;
  std::vector<bool> defined_;
};

}  // namespace

Graph parse(std::string_view text, const std::string& where) {
  constexpr size_t kMaxDepth = 16;  // of branches in branches
  std::vector<Parser> parsers(1);   // the graph, and inside of it the branches that are open
  int number = 0;
  size_t at = 0;
  do {
    const size_t end = std::min(text.find('\n', at), text.size());
    Line line(text.substr(at, end - at), where, ++number);
    at = end + 1;
    if (number == 1) {
      line.expect("shardpipe-graph 1");
    } else if (parsers.back().wants_branch()) {
      line.expect("branch");
      if (parsers.size() > kMaxDepth) {
        line.fail(fmt::format("branches in branches at most {} deep", kMaxDepth));
      }
      parsers.emplace_back();
    } else if (parsers.size() > 1 && line.accept("end")) {
      Graph branch = parsers.back().take();
      parsers.pop_back();
      parsers.back().add_branch(std::move(branch));
    } else {
      parsers.back().parse(line);
    }
    if (!line.done()) {
      line.fail("the end of the line");
    }
    if (at >= text.size() && (parsers.size() > 1 || parsers.back().wants_branch())) {
      line.fail("the branches of cond to follow");
    }
  } while (at < text.size());
  return parsers.front().take();
}

}  // namespace shardpipe::graph
