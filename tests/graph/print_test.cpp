#include <gtest/gtest.h>

#include <limits>

#include "graph/text.h"
#include "support/errors.h"

namespace shardpipe::graph {
namespace {

using test::expect_error;

// A graph of one node with one argument.
Graph with(Argument argument) {
  Graph graph;
  graph.values.emplace_back();
  Node node;
  node.op = find_operator("aten::relu");
  node.results = {0};
  node.arguments = {std::move(argument)};
  graph.nodes.push_back(node);
  return graph;
}

// The argument's text, and the argument that the text reads back as.
std::pair<std::string, Argument> round_trip(const Argument& argument) {
  const std::string text = print(with(argument));
  const Graph parsed = parse(text, "test");
  EXPECT_EQ(print(parsed), text);
  const size_t start = text.find("relu(") + 5;
  return {text.substr(start, text.rfind(") in") - start), parsed.nodes.at(0).arguments.at(0)};
}

TEST(Print, EveryConstantReadsBack) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<c10::IValue, std::string>> cases = {
      {c10::IValue(), "none"},
      {true, "true"},
      {false, "false"},
      {int64_t{-7}, "-7"},
      {std::numeric_limits<int64_t>::min(), "-9223372036854775808"},
      {std::numeric_limits<int64_t>::max(), "9223372036854775807"},
      {1.0, "1.0"},
      {-0.0, "-0.0"},
      {1e-5, "1e-05"},
      {1e300, "1e+300"},
      {0.1, "0.1"},
      {std::numeric_limits<double>::denorm_min(), "5e-324"},
      {infinity, "inf"},
      {-infinity, "-inf"},
      {c10::complex<double>(1.5, -2), "complex(1.5, -2.0)"},
      {c10::complex<double>(infinity, 0), "complex(inf, 0.0)"},
      {"", "\"\""},
      {"a \"b\" \\ c\n\t\x01 %1] \xc3\xa9\xe6\xbc\xa2 #",
       "\"a \\\"b\\\" \\\\ c\\x0a\\x09\\x01 %1] \xc3\xa9\xe6\xbc\xa2 #\""},
      {std::string("a\0b", 3), "\"a\\x00b\""},
      {c10::Device("cuda:1"), "device(\"cuda:1\")"},
      {c10::Device(at::kCPU), "device(\"cpu\")"},
      {c10::List<int64_t>(), "ints[]"},
      {c10::List<int64_t>({1, -2}), "ints[1, -2]"},
      {c10::List<double>(), "floats[]"},
      {c10::List<double>({1, 0.5, infinity, -infinity}), "floats[1.0, 0.5, inf, -inf]"},
      {c10::List<bool>(), "bools[]"},
      {c10::List<bool>({true, false}), "bools[true, false]"},
  };
  for (const auto& [value, text] : cases) {
    const auto [printed, parsed] = round_trip(Argument(value));
    EXPECT_EQ(printed, text);
    ASSERT_NE(parsed.as_constant(), nullptr) << text;
    EXPECT_EQ(parsed.as_constant()->tagKind(), value.tagKind()) << text;
    EXPECT_TRUE(*parsed.as_constant() == value) << text;
  }
  const auto [printed, parsed] = round_trip(Argument(c10::IValue(std::nan(""))));
  EXPECT_EQ(printed, "nan");
  EXPECT_TRUE(std::isnan(parsed.as_constant()->toDouble()));
  EXPECT_TRUE(std::signbit(round_trip(Argument(c10::IValue(-0.0))).second.as_constant()->toDouble()));
}

TEST(Print, ListsMayHoldAnything) {
  Graph graph = with(Argument::list({}));
  graph.values.resize(3);
  graph.values[1] = {.kind = ValueKind::input, .name = "x"};
  graph.values[2] = {.kind = ValueKind::parameter, .name = "w"};
  graph.inputs = {1};
  graph.nodes[0].arguments = {
      Argument::list({}),
      Argument::list({Argument::value(1), Argument(c10::IValue()), Argument(c10::IValue(int64_t{3}))}),
      Argument::list({Argument::list({Argument::value(2)}), Argument(c10::IValue("]"))}),
  };
  const std::string text = print(graph);
  EXPECT_THAT(text, testing::HasSubstr("aten::relu([], [%1, none, 3], [[%2], \"]\"]) in \"\"\n"));
  EXPECT_EQ(print(parse(text, "test")), text);
}

TEST(Print, NamesStatesAndContentReadBack) {
  Graph graph;
  graph.dimensions = {"batch", "seq_1"};
  const Size batch = Size::symbol("batch");
  graph.add_value(
      {.kind = ValueKind::input, .name = "in \"put\"\n", .dtype = at::kLong, .shape = Shape{batch, batch * batch + 3}});
  graph.add_value(
      {.kind = ValueKind::parameter,
       .name = "w",
       .dtype = at::kBFloat16,
       .shape = Shape{},
       .tied_names = {"a", "b \\"}});
  graph.add_value({.kind = ValueKind::state, .name = "counter", .dtype = at::kLong, .state = StateKind::shared});
  graph.add_value({.kind = ValueKind::state, .name = "cache", .state = StateKind::per_sequence});
  graph.add_value({.type = ValueType::integer, .kind = ValueKind::input, .name = "count"});
  graph.add_value({.type = ValueType::number, .kind = ValueKind::input, .name = "rate"});
  graph.add_value({.type = ValueType::boolean, .kind = ValueKind::input, .name = "flag"});
  graph.add_value({.type = ValueType::string, .kind = ValueKind::input, .name = "mode"});
  graph.inputs = {0, 4, 5, 6, 7};
  const std::vector<at::Tensor> contents = {
      at::arange(-3, 3, at::kFloat).view({2, 3}).t(),  // not contiguous
      at::tensor({1.0, -0.0, std::nan("")}, at::kDouble),
      at::tensor({1.5, -2.0}, at::kFloat).to(at::kBFloat16),
      at::tensor({1, 0}, at::kInt).to(at::kBool),
      at::tensor({-1, 127}, at::kInt).to(at::kChar),
      at::empty({0, 4}, at::kHalf),
      at::scalar_tensor(7, at::kLong),
      at::complex(at::ones({1}), at::zeros({1})),
  };
  for (const at::Tensor& content : contents) {
    const at::IntArrayRef sizes = content.sizes();
    graph.add_value(
        {.kind = ValueKind::buffer,
         .name = "buffer." + std::to_string(graph.values.size()),
         .dtype = content.scalar_type(),
         .shape = Shape(sizes.begin(), sizes.end()),
         .content = content});
  }
  for (size_t id = 0; id < graph.values.size(); ++id) {
    graph.outputs.push_back({"out " + std::to_string(id), static_cast<ValueId>(id)});
  }
  graph.modules = {{"", "Model"}, {"layers.0", "Block<\"x\">"}};
  Node node;
  node.id = 12;
  node.scalar = ScalarOperator::floordiv;
  node.arguments = {Argument::value(4), Argument(c10::IValue(int64_t{2}))};
  node.results = {graph.add_value({.type = ValueType::integer})};
  node.module = "layers.0";
  node.grad_enabled = false;
  graph.nodes.push_back(node);

  const std::string text = print(graph);
  const Graph parsed = parse(text, "test");
  EXPECT_EQ(print(parsed), text);
  EXPECT_EQ(parsed.dimensions, graph.dimensions);
  EXPECT_EQ(parsed.inputs, graph.inputs);
  EXPECT_EQ(parsed.modules, graph.modules);
  ASSERT_EQ(parsed.values.size(), graph.values.size());
  for (size_t id = 0; id < graph.values.size(); ++id) {
    const Value& a = graph.values[id];
    const Value& b = parsed.values[id];
    EXPECT_EQ(a.type, b.type) << id;
    EXPECT_EQ(a.kind, b.kind) << id;
    EXPECT_EQ(a.name, b.name) << id;
    EXPECT_EQ(a.dtype, b.dtype) << id;
    EXPECT_EQ(a.shape, b.shape) << id;
    EXPECT_EQ(a.tied_names, b.tied_names) << id;
    EXPECT_EQ(a.state, b.state) << id;
    ASSERT_EQ(a.content.defined(), b.content.defined()) << id;
    if (a.content.defined()) {
      const at::Tensor content = a.content.contiguous();
      ASSERT_EQ(content.nbytes(), b.content.nbytes());
      EXPECT_EQ(std::memcmp(content.const_data_ptr(), b.content.const_data_ptr(), content.nbytes()), 0) << id;
    }
  }
  EXPECT_EQ(parsed.nodes.at(0).id, 12);
  EXPECT_EQ(parsed.nodes.at(0).scalar, ScalarOperator::floordiv);
  EXPECT_EQ(parsed.nodes.at(0).module, "layers.0");
  EXPECT_FALSE(parsed.nodes.at(0).grad_enabled);
}

TEST(Print, RefusesWhatTextCannotHold) {
  expect_error(ErrorCode::internal, "an argument of kind Generator cannot be printed", [] {
    print(with(Argument(c10::IValue(at::Generator()))));
  });
  Graph graph = with(Argument(c10::IValue()));
  graph.inputs = {0};
  expect_error(ErrorCode::internal, "value %0 is a node's result, not a named tensor", [&] { print(graph); });
}

}  // namespace
}  // namespace shardpipe::graph
