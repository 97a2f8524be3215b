#include <random>

#include "frontend/pt2/exported.h"
#include "frontend/pt2/hand_made.h"
#include "frontend/pt2/run_exported.h"
#include "graph/fuzz.h"
#include "graph/text.h"
#include "support/errors.h"

namespace shardpipe::pt2 {
namespace {

using test::expect_error;
using test::HandMade;
using test::TestFile;

void expect_refused(const HandMade& made, const std::string& part) {
  const TestFile file(made.bytes());
  expect_error(ErrorCode::input, part, [&] { load_exported(file.path()); });
  expect_error(ErrorCode::input, file.path().string(), [&] { load_exported(file.path()); });
}

TEST(Load, ReadsTheProgram) {
  const TestFile file(HandMade().bytes());
  EXPECT_TRUE(is_exported(file.path()));
  EXPECT_FALSE(is_exported("/no/such.pt2"));
  const ExportedModel model = load_exported(file.path());
  EXPECT_EQ(graph::print(model.graph), R"(shardpipe-graph 1
dimension x_dim0
input %2 "x": float32[x_dim0, 2]
parameter %0 "layers.0.weight": float32[3, 2]
buffer %1 "b": float32[3]
module "layers.0" "Linear"
#0 %3: int = aten::sym_size.int(%2, 0) in ""
#1 %4: float32[x_dim0, 3] = aten::linear(%2, %0, %1) in "layers.0"
#2 %5: tensor = aten::add.Tensor(%4, 1, 1) in ""
output "y" %5
output "n" %3
)");
  ASSERT_EQ(model.inputs.size(), 1u);
  EXPECT_EQ(model.inputs[0].name, "x");
  EXPECT_EQ(model.inputs[0].value, 2);
  EXPECT_EQ(model.ranges.at("x_dim0").min, 2);
  EXPECT_EQ(model.ranges.at("x_dim0").max, 16);
  EXPECT_EQ(model.not_persistent, std::vector<std::string>{"b"});
  EXPECT_TRUE(model.without_data.empty());
  EXPECT_TRUE(model.frozen.empty());
  const test::ExportedRun run =
      test::run_exported(model.graph, {{"x", at::ones({4, 2})}}, test::load_tensors(model), true);
  EXPECT_TRUE(at::equal(run.outputs.at("y"), at::ones({4, 3})));
  EXPECT_EQ(run.outputs.at("n").item<int64_t>(), 4);
  EXPECT_TRUE(at::equal(run.gradients.at("layers.0.weight"), at::full({3, 2}, 4.0f)));
}

TEST(Load, RefusesWhatItDoesNotRun) {
  expect_error(ErrorCode::input, "/no/such.pt2", [] { load_exported("/no/such.pt2"); });
  HandMade made;
  made.program["schema_version"]["major"] = 9;
  expect_refused(made, "schema version 9, this program reads version 8; hint: export it with PyTorch");
  made = {};
  made.node(1)["target"] = "torch.ops.ours.twice.default";
  made.node(2)["target"] = "torch.ops.theirs.thrice.default";
  expect_refused(
      made,
      "LibTorch has no operator torch.ops.ours.twice.default (node linear of \"layers.0\"), "
      "torch.ops.theirs.thrice.default (node add of \"\"); hint: operators that Python registers");
  made = {};
  for (int i = 0; i < 7; ++i) {
    SortedJson node = made.node(1);
    node["target"] = "torch.ops.ours.op" + std::to_string(i) + ".default";
    made.graph()["nodes"].push_back(node);
  }
  expect_refused(made, "op4.default (node linear of \"layers.0\"), and 2 more");
  made = {};
  made.node(1)["target"] = "torch.ops.higher_order.while_loop";
  expect_refused(
      made,
      "a higher-order operator that this version does not run, in node linear "
      "(torch.ops.higher_order.while_loop) of \"layers.0\"");
  made = {};
  made.node(1)["inputs"][0]["arg"] = {{"as_custom_obj", {{"name", "x"}}}};
  expect_refused(made, "an argument of kind as_custom_obj, which this version does not run, in node linear");
  made = {};
  made.program["graph_module"]["signature"]["input_specs"][2] = {{"token", {{"arg", {{"name", "x"}}}}}};
  expect_refused(made, "an input of kind token, which this version does not run");
  made = {};
  made.program["graph_module"]["signature"]["input_specs"][2] =
      SortedJson::parse(R"({"user_input": {"arg": {"as_tensors": []}}})");
  expect_refused(made, "the input \"x\" is of kind as_tensors, which this version does not run");
  made = {};
  made.program["graph_module"]["signature"]["output_specs"][0] = {
      {"gradient_to_parameter", {{"arg", {{"name", "x"}}}}}};
  expect_refused(made, "an output of kind gradient_to_parameter, which this version does not run");
  made = {};
  made.node(2)["target"] = "torch.ops.aten.copy_.default";
  made.node(2)["inputs"] = SortedJson::parse(
      R"([{"name": "self", "arg": {"as_tensor": {"name": "p_w"}}}, {"name": "src", "arg": {"as_tensor": {"name": "x"}}}])");
  expect_refused(made, "the program writes to the parameter \"layers.0.weight\", which takes a gradient");
}

TEST(Load, RefusesWhatContradictsItself) {
  HandMade made;
  made.node(1)["inputs"][0]["arg"]["as_tensor"]["name"] = "nobody";
  expect_refused(made, "\"nobody\" is used before it is defined, in node linear (torch.ops.aten.linear.default)");
  made = {};
  made.node(1)["inputs"][0]["name"] = "inputs";
  expect_refused(made, "no argument \"inputs\" in LibTorch's aten::linear");
  made = {};
  made.node(1)["inputs"].erase(1);
  expect_refused(made, "no value for the argument \"weight\"");
  made = {};
  made.node(1)["outputs"].push_back(made.node(1)["outputs"][0]);
  expect_refused(made, "2 results, the operator has 1");
  made = {};
  made.node(1)["outputs"][0] = {{"as_custom_obj", {{"name", "x"}}}};
  expect_refused(made, "a result of kind as_custom_obj, which this version does not run");
  made = {};
  made.node(0)["target"] = "_operator.add";
  made.node(0)["inputs"].erase(1);
  expect_refused(made, "1 operands and 1 results");
  made = {};
  made.graph()["outputs"].erase(1);
  expect_refused(made, "1 outputs, the signature has 2");
  made = {};
  made.graph()["outputs"][0] = {{"as_ints", {1, 2}}};
  expect_refused(made, "a result that is neither a tensor nor a number");
  made = {};
  made.program["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = "other";
  expect_refused(made, "the archive lists no weight or constant \"other\"");
  made = {};
  made.program["graph_module"]["signature"]["output_specs"][0] =
      SortedJson::parse(R"({"buffer_mutation": {"arg": {"name": "add"}, "buffer_name": "c"}})");
  expect_refused(made, "the output 0 changes \"c\", which is no tensor of the program");
  made = {};
  made.node(1)["inputs"][0]["arg"] = {{"as_float", "many"}};
  expect_refused(made, "\"many\" is no float");
  made = {};
  made.node(1)["inputs"][0]["arg"] = {{"as_int", 1}, {"as_float", 1.0}};
  expect_refused(made, "an object with 2 keys where one key tells the kind");
  made = {};
  made.node(1)["inputs"][0]["arg"] = {{"as_scalar_type", 99}};
  expect_refused(made, "dtype number 99, which torch does not have");
  made.node(1)["inputs"][0]["arg"] = {{"as_layout", 99}};
  expect_refused(made, "layout number 99, which torch does not have");
  made.node(1)["inputs"][0]["arg"] = {{"as_memory_format", 99}};
  expect_refused(made, "memory format number 99, which torch does not have");
  made.node(1)["inputs"][0]["arg"] = {{"as_sym_int", {{"as_expr", 1}}}};
  expect_refused(made, "a number of kind as_expr, which this version does not know");
  made = {};
  made.program.erase("graph_module");
  expect_refused(made, "it is damaged: [json.exception.out_of_range.403] key 'graph_module' not found");
  made = {};
  made.node(1)["inputs"][1]["arg"] = {{"as_string", "w"}};
  expect_refused(made, "argument weight is no Tensor");
}

TEST(Load, RefusesHigherOrderOperatorsThatContradictThemselves) {
  const auto with = [](const std::string& target, const std::string& inputs) {
    HandMade made;
    made.node(1)["target"] = "torch.ops.higher_order." + target;
    made.node(1)["inputs"] = SortedJson::parse(inputs);
    return made;
  };
  const std::string sub =
      R"({"name": "", "arg": {"as_graph": {"name": "s", "graph": {"inputs": [{"as_tensor": {"name": "a"}}],
          "outputs": [{"as_tensor": {"name": "a"}}], "nodes": []}}}})";
  const std::string x = R"({"name": "", "arg": {"as_tensor": {"name": "x"}}})";
  const auto joined = [](std::initializer_list<std::string> parts) {
    std::string text = "[";
    for (const std::string& part : parts) {
      text += (text.size() > 1 ? "," : "") + part;
    }
    return text + "]";
  };
  const std::string yes = R"({"name": "", "arg": {"as_bool": true}})";
  expect_refused(with("wrap_with_set_grad_enabled", joined({sub, x})), "a gradient region without its flag");
  expect_refused(
      with("wrap_with_autocast", joined({yes, sub, x})), "an autocast region without device, dtype and flag");
  expect_refused(with("wrap_with_set_grad_enabled", joined({yes, sub})), "a sub-graph of 1 inputs is called with 0");
  HandMade made = with("wrap_with_set_grad_enabled", joined({yes, sub, x}));
  made.node(1)["outputs"].push_back({{"as_tensor", {{"name", "more"}}}});
  expect_refused(made, "a sub-graph of 1 outputs has 2 results");
  expect_refused(
      with("cond", joined({yes, sub, sub})), "a branch of 1 inputs and 1 outputs for 0 operands and 1 results");
  std::string writing = sub;
  writing.replace(
      writing.find(R"("nodes": [])"), 11,
      R"("nodes": [{"target": "torch.ops.aten.add_.Tensor", "name": "add_", "metadata": {},
      "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "a"}}}, {"name": "other", "arg": {"as_int": 1}}],
      "outputs": [{"as_tensor": {"name": "b"}}]}])");
  expect_refused(
      with("cond", joined({yes, writing, sub, x})), "a branch of cond in \"layers.0\" writes to a tensor from outside");
  const TestFile good(with("wrap_with_set_grad_enabled", joined({yes, sub, x})).bytes());
  EXPECT_EQ(load_exported(good.path()).graph.nodes.size(), 2u);
  // Branches in branches without end.
  std::string deep = sub;
  for (int i = 0; i < 20; ++i) {
    deep.insert(0, R"({"name": "", "arg": {"as_graph": {"name": "s", "graph": {"inputs": [{"as_tensor": {"name": "a"}}],
        "outputs": [{"as_tensor": {"name": "a"}}], "nodes": [{"target": "torch.ops.higher_order.cond", "name": "c",
        "metadata": {}, "outputs": [{"as_tensor": {"name": "a"}}], "inputs": [{"name": "", "arg": {"as_bool": true}},)");
    deep.append(",").append(sub).append(R"(, {"name": "", "arg": {"as_tensor": {"name": "a"}}}]}]}}}})");
  }
  expect_refused(with("cond", joined({yes, deep, sub, x})), "branches in branches more than 16 deep");
}

TEST(Load, ChecksInputs) {
  const auto refused = [](const HandMade& made, const test::Tensors& inputs, const std::string& part) {
    const TestFile file(made.bytes());
    const ExportedModel model = load_exported(file.path());
    expect_error(ErrorCode::usage, part, [&] { check_inputs(model, inputs); });
  };
  HandMade made;
  made.program["guards_code"] = {"L['x'].size()[0] == 4", "free text"};
  refused(
      made, {{"x", at::zeros({3, 2})}},
      "the program was exported for inputs with L['x'].size()[0] == 4; dimension 0 of x is 3");
  made = {};
  made.graph()["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = "Mul(Symbol('s0'), Symbol('s1'))";
  refused(
      made, {{"x", at::zeros({3, 2})}},
      "dimension 0 of the input \"x\" is 3, the program takes x_dim0_s0*x_dim0_s1, which no x_dim0_s0 gives");
  // An input that is a number in the program.
  made = {};
  made.program["graph_module"]["signature"]["input_specs"].push_back(
      {{"user_input", {{"arg", {{"as_sym_int", {{"as_name", "k"}}}}}}}});
  made.graph()["inputs"].push_back({{"as_sym_int", {{"as_name", "k"}}}});
  made.graph()["sym_int_values"]["k"] = {{"as_expr", {{"expr_str", "Symbol('s1')"}}}};
  made.program["range_constraints"]["s1"] = {{"min_val", 1}, {"max_val", 9}};
  refused(
      made, {{"x", at::zeros({3, 2})}, {"k", at::zeros({2}, at::kLong)}},
      "the input \"k\" is int64 [2], it must be one number");
  refused(
      made, {{"x", at::zeros({3, 2})}, {"k", at::zeros({})}}, "the input \"k\" is float32 [], it must be one number");
  refused(
      made, {{"x", at::zeros({3, 2})}, {"k", at::scalar_tensor(12, at::kLong)}},
      "the input \"k\" is 12, the program was exported for k from 1 to 9");
  const TestFile file(made.bytes());
  EXPECT_EQ(
      check_inputs(load_exported(file.path()), {{"x", at::zeros({3, 2})}, {"k", at::scalar_tensor(7, at::kLong)}}),
      (graph::Dimensions{{"k", 7}, {"x_dim0", 3}}));
}

TEST(Load, FindsWeightsWhereTheyAre) {
  HandMade made;
  made.weight_data.clear();
  const TestFile file(made.bytes());
  const ExportedModel model = load_exported(file.path());
  EXPECT_EQ(model.without_data, std::vector<std::string>{"layers.0.weight"});
  expect_error(
      ErrorCode::input,
      "has no data for 1 tensors: \"layers.0.weight\"; hint: it was exported without weights: "
      "give them with --weights DIR",
      [&] { find_weights(model, nullptr); });
  const auto archive = checkpoint::Checkpoint::open(file.path());
  expect_error(
      ErrorCode::input, "has no data for tensor \"layers.0.weight\"", [&] { archive->tensor("layers.0.weight"); });
  expect_error(ErrorCode::input, "give them with --weights DIR", [&] { archive->tensor("layers.0.weight"); });
  EXPECT_TRUE(at::equal(archive->tensor("b"), at::zeros({3})));

  HandMade other;
  const TestFile beside_file(other.bytes());
  const auto beside = checkpoint::Checkpoint::open(beside_file.path());
  const auto sources = find_weights(model, beside.get());
  EXPECT_TRUE(sources.at("layers.0.weight").beside);
  EXPECT_EQ(sources.at("layers.0.weight").name, "layers.0.weight");

  other.weights["config"] = SortedJson::object();
  const TestFile empty_file(other.bytes());
  const auto empty = checkpoint::Checkpoint::open(empty_file.path());
  expect_error(
      ErrorCode::input, "the weights must be those of the exported model", [&] { find_weights(model, empty.get()); });
  EXPECT_FALSE(find_weights(load_exported(beside_file.path()), nullptr).at("b").beside);

  made.constant_data.clear();
  const TestFile neither(made.bytes());
  other.weights = made.weights;
  other.constants["config"] = SortedJson::object();
  const TestFile without_buffer(other.bytes());
  expect_error(ErrorCode::input, "holds 1 tensors of the program: \"b\"; hint: non-persistent buffers", [&] {
    find_weights(load_exported(neither.path()), checkpoint::Checkpoint::open(without_buffer.path()).get());
  });
}

// Any JSON value, small and odd ones.
SortedJson wild(std::mt19937& random) {
  switch (test::draw(random, 10)) {
    case 0:
      return nullptr;
    case 1:
      return -1;
    case 2:
      return INT64_MAX;
    case 3:
      return 1e300;
    case 4:
      return true;
    case 5:
      return "s0";
    case 6:
      return SortedJson::array();
    case 7:
      return SortedJson::object();
    case 8:
      return static_cast<int64_t>(test::draw(random, 40));
    default:
      return {{"as_int", static_cast<int64_t>(test::draw(random, 4))}};
  }
}

// A random place of the document.
SortedJson* place(SortedJson& json, std::mt19937& random) {
  SortedJson* at = &json;
  while (at->is_structured() && !at->empty() && test::draw(random, 12) != 0) {
    auto child = at->begin();
    std::advance(child, static_cast<std::ptrdiff_t>(test::draw(random, at->size())));
    at = &*child;
  }
  return at;
}

TEST(Load, DamagedArchivesAreRefusedOrLoaded) {
  const TestFile file("");
  int accepted = 0;
  const int count = test::fuzz_count(3000);
  for (int seed = 0; seed < count; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(static_cast<uint32_t>(seed));
    HandMade made;
    std::string bytes;
    if (seed % 3 == 0) {  // bytes
      bytes = made.bytes();
      for (size_t edits = 1 + test::draw(random, 4); edits-- > 0;) {
        bytes[test::draw(random, bytes.size())] = static_cast<char>(test::draw(random, 256));
      }
      if (test::draw(random, 4) == 0) {
        bytes.resize(test::draw(random, bytes.size()));
      }
    } else {
      for (size_t edits = 1 + test::draw(random, 2); edits-- > 0;) {
        SortedJson& document = seed % 3 == 1                ? made.program
                               : test::draw(random, 2) == 0 ? made.weights
                                                            : made.constants;
        SortedJson* at = place(document, random);
        if (at->is_array() && !at->empty() && test::draw(random, 2) == 0) {
          at->push_back((*at)[test::draw(random, at->size())]);
        } else if (test::draw(random, 3) == 0) {
          *at = *place(document, random);
        } else {
          *at = wild(random);
        }
      }
      bytes = made.bytes();
    }
    file.write(bytes);
    try {
      const ExportedModel model = load_exported(file.path());
      const auto archive = checkpoint::Checkpoint::open(file.path());
      for (const std::string& name : archive->names()) {
        const at::Tensor tensor = archive->tensor(name);
        ASSERT_LE(tensor.nbytes(), 64u << 20);
        if (tensor.nbytes() < 1 << 16) {
          archive->load(name, at::kDouble);
        }
      }
      ASSERT_EQ(graph::print(graph::parse(graph::print(model.graph), "text")), graph::print(model.graph));
      find_weights(model, nullptr);
      ++accepted;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::input) << error.what();
    }
  }
  EXPECT_GT(accepted, count / 50);
  EXPECT_LT(accepted, count);
}

}  // namespace
}  // namespace shardpipe::pt2
