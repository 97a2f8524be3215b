// Small readers of an archive's texts: extents, module stacks, call specifications, arguments, guards.
#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "frontend/pt2/arguments.h"
#include "frontend/pt2/guard.h"
#include "frontend/pt2/modules.h"
#include "frontend/pt2/symbols.h"
#include "frontend/pt2/targets.h"
#include "frontend/pt2/tree.h"
#include "support/errors.h"

namespace shardpipe::pt2 {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string size_text(const char* srepr) {
  const auto size = parse_srepr(srepr);
  return size ? size->str() : "none";
}

TEST(Symbols, ReadSreprAsPolynomials) {
  EXPECT_EQ(size_text("Integer(7)"), "7");
  EXPECT_EQ(size_text("Integer(-7)"), "-7");
  EXPECT_EQ(size_text("Symbol('s70', positive=True, integer=True)"), "s70");
  EXPECT_EQ(size_text("Mul(Integer(64), Symbol('s70', integer=True))"), "64*s70");
  EXPECT_EQ(size_text("Add(Mul(Integer(2), Symbol('a')), Symbol('b'), Integer(-1))"), "b+2*a-1");
  EXPECT_EQ(size_text("Pow(Symbol('a'), Integer(2))"), "a*a");
  EXPECT_EQ(size_text("Mul(Add(Symbol('a'), Integer(1)), Symbol('b'))"), "b+a*b");
  for (const char* other :
       {"", "Integer(x)", "Integer(7", "FloorDiv(Symbol('a'), Integer(2))", "Pow(Symbol('a'), Integer(-1))",
        "Pow(Symbol('a'), Symbol('b'))", "Pow(Symbol('a'), Integer(1000000000))", "Symbol('a b')", "Symbol('a",
        "Mul(Integer(9223372036854775807), Integer(2))", "Integer(7) x"}) {
    EXPECT_EQ(size_text(other), "none") << other;
  }
  std::string deep;
  for (int i = 0; i < 100000; ++i) {
    deep += "Add(";
  }
  EXPECT_EQ(size_text(deep.c_str()), "none");
  std::string sum = "Add(Integer(1)";
  for (int i = 0; i < 30; ++i) {
    sum += ", Symbol('a" + std::to_string(i) + "')";
  }
  EXPECT_EQ(size_text(("Pow(" + sum + "), Integer(8))").c_str()), "none");
  std::string tower = "Symbol('a')";  // to the power of 8^20
  for (int i = 0; i < 20; ++i) {
    tower.insert(0, "Pow(").append(", Integer(8))");
  }
  EXPECT_EQ(size_text(tower.c_str()), "none");
}

TEST(Symbols, AreCalledByWhereTheyComeFrom) {
  const auto extent = [](const std::string& srepr) { return Document{{"as_expr", {{"expr_str", srepr}}}}; };
  const Document s0 = extent("Symbol('s0')");
  Symbols symbols;
  symbols.name(s0, "batch.x_dim0");
  symbols.name(s0, "y_dim0");
  symbols.name(extent("Symbol('s1')"), "batch_x_dim0");
  symbols.name(extent("Add(Symbol('s2'), Integer(1))"), "z_dim0");
  symbols.name({{"as_int", 4}}, "w_dim0");
  EXPECT_THAT(symbols.dimensions(), ElementsAre("batch_x_dim0", "batch_x_dim0_2", "z_dim0_s2"));
  EXPECT_EQ(symbols.size(extent("Mul(Integer(2), Symbol('s1'))"))->str(), "2*batch_x_dim0_2");
  EXPECT_EQ(symbols.size(extent("Symbol('u0')")), std::nullopt);
  EXPECT_EQ(symbols.size({{"as_int", 4}})->constant(), 4);
  EXPECT_EQ(
      symbols.shape(Document::array({s0, {{"as_int", 3}}})), (graph::Shape{graph::Size::symbol("batch_x_dim0"), 3}));
  EXPECT_EQ(symbols.shape(Document::array({s0, extent("Symbol('u0')")})), std::nullopt);
  EXPECT_EQ(symbols.plain_size("2*s1 + 1")->str(), "2*batch_x_dim0_2+1");
  EXPECT_EQ(symbols.plain_size("s1//2"), std::nullopt);
}

TEST(Modules, ReadTheStack) {
  const auto stack = parse_module_stack(
      "L__self__,,m.Model;L__self__model,model,m.Inner;L__self__model.layers.2@1,model.layers.2@1.mlp,__main__.f.<"
      "locals>.Layer");
  ASSERT_EQ(stack.size(), 3u);
  EXPECT_EQ(stack[0].path, "");
  EXPECT_EQ(stack[2].path, "model.layers.2.mlp");
  EXPECT_EQ(stack[2].class_name, "Layer");
  EXPECT_TRUE(
      parse_module_stack("_empty_nn_module_stack_from_metadata_hook,_empty_nn_module_stack_from_metadata_hook,_e")
          .empty());
  EXPECT_TRUE(parse_module_stack("").empty());
  EXPECT_TRUE(parse_module_stack("one,two;;three").empty());
}

TEST(Modules, FillWhatIsNotKnown) {
  const std::optional<std::string> none;
  EXPECT_THAT(
      fill_paths({none, "a.b", none, none, "a.c", none, "ab", none}),
      ElementsAre("", "a.b", "a", "a", "a.c", "", "ab", ""));
  EXPECT_THAT(fill_paths({"a.b", none, "a.b.c"}), ElementsAre("a.b", "a.b", "a.b.c"));
  EXPECT_THAT(fill_paths({}), IsEmpty());
}

TEST(Tree, NamesLeaves) {
  const auto node = [](const std::string& type, const std::string& context, const std::string& children) {
    return R"({"type": ")" + type + R"(", "context": ")" + context + R"(", "children_spec": [)" + children + "]}";
  };
  const std::string leaf = R"({"type": null, "context": null, "children_spec": []})";
  const auto spec = [](const std::string& tree) { return "[1, " + tree + "]"; };
  EXPECT_THAT(output_names(spec(leaf)), ElementsAre("0"));
  EXPECT_THAT(
      output_names(spec(node(
          "transformers.modeling_outputs.X", R"([\"loss\", \"logits\"])",
          leaf + "," + node("builtins.tuple", "null", leaf + "," + leaf)))),
      ElementsAre("loss", "logits.0", "logits.1"));
  EXPECT_THAT(
      output_names(spec(node("m.Dataclass", R"([[\"a\", \"b\"], [\"c\"]])", leaf + "," + leaf))),
      ElementsAre("a", "b"));
  EXPECT_THAT(output_names(spec(node("builtins.dict", "[1, 2]", leaf + "," + leaf))), ElementsAre("1", "2"));
  EXPECT_THAT(output_names(spec(node("m.Odd", "free text", leaf + "," + leaf))), ElementsAre("0", "1"));
  EXPECT_THAT(output_names("[2, {}]"), IsEmpty());
  EXPECT_THAT(output_names("no json"), IsEmpty());
  // Many leaves below a long name.
  const std::string name = R"([\"a)" + std::string(5000, 'a') + R"(\"])";
  EXPECT_THAT(
      output_names(spec(node("builtins.dict", name, node("builtins.list", "null", leaf + "," + leaf)))), IsEmpty());
  const std::string call = spec(node(
      "builtins.tuple", "null",
      node("builtins.tuple", "null", leaf + "," + node("builtins.list", "null", leaf + "," + leaf)) + "," +
          node("builtins.dict", R"([\"k\"])", node("builtins.dict", R"([\"z\"])", leaf))));
  EXPECT_THAT(input_names(call, {"x", "l"}), ElementsAre("x", "l.0", "l.1", "k.z"));
  EXPECT_THAT(input_names(call, {"x"}), IsEmpty());
  EXPECT_THAT(input_names(spec(leaf), {"x"}), IsEmpty());
}

TEST(Arguments, FitTheirSchema) {
  const auto type = [](const char* op, size_t i) { return graph::find_operator(op).schema().arguments()[i].type(); };
  const c10::TypePtr ints = type("aten::sum.dim_IntList", 1);           // int[1]?
  const c10::TypePtr number = type("aten::dropout", 1);                 // float
  const c10::TypePtr flag = type("aten::dropout", 2);                   // bool
  const c10::TypePtr scales = type("aten::upsample_nearest2d.vec", 2);  // float[]?
  EXPECT_EQ(fit(3, *ints).toIntVector(), std::vector<int64_t>{3});
  EXPECT_TRUE(fit({}, *ints).isNone());
  EXPECT_EQ(fit(1, *number).toDouble(), 1.0);
  EXPECT_EQ(fit(1, *flag).toBool(), true);
  EXPECT_EQ(fit(true, *type("aten::softmax.int", 1)).toInt(), 1);
  EXPECT_EQ(fit(c10::List<int64_t>({1, 2}), *scales).toDoubleVector(), (std::vector<double>{1.0, 2.0}));
  EXPECT_EQ(fit(2, *scales).toDoubleVector(), std::vector<double>{2.0});
  const Scope scope = {{"x", graph::Argument::value(4)}};
  const auto plain = [&](Document json) { return plain_argument(json, scope); };
  EXPECT_TRUE(plain({{"as_float", "-Infinity"}}).as_constant()->toDouble() < 0);
  EXPECT_TRUE(std::isnan(plain({{"as_float", "NaN"}}).as_constant()->toDouble()));
  EXPECT_EQ(plain({{"as_scalar_type", 7}}).as_constant()->toInt(), static_cast<int64_t>(at::kFloat));
  EXPECT_EQ(plain({{"as_layout", 7}}).as_constant()->toInt(), static_cast<int64_t>(at::kStrided));
  EXPECT_EQ(plain({{"as_layout", 6}}).as_constant()->toInt(), static_cast<int64_t>(at::kMkldnn));
  EXPECT_EQ(
      plain({{"as_memory_format", 2}}).as_constant()->toInt(), static_cast<int64_t>(at::MemoryFormat::ChannelsLast));
  EXPECT_EQ(plain({{"as_device", {{"type", "cuda"}, {"index", 1}}}}).as_constant()->toDevice(), c10::Device(at::kCPU));
  EXPECT_EQ(plain({{"as_complex", {{"real", 1.0}, {"imag", 2.0}}}}).as_constant()->toComplexDouble().imag(), 2.0);
  EXPECT_TRUE(plain({{"as_optional_tensor", {{"as_none", true}}}}).as_constant()->isNone());
  EXPECT_EQ(*plain({{"as_optional_tensor", {{"as_tensor", {{"name", "x"}}}}}}).as_value(), 4);
  EXPECT_EQ(plain({{"as_strings", {"a", "b"}}}).as_constant()->toListRef().size(), 2u);
  EXPECT_EQ(plain({{"as_bools", {true}}}).as_constant()->toBoolList().size(), 1u);
  const graph::Argument holes =
      plain({{"as_optional_tensors", Document::array({{{"as_none", true}}, {{"as_tensor", {{"name", "x"}}}}})}});
  EXPECT_TRUE(holes.as_list()->front().as_constant()->isNone());
  EXPECT_EQ(*holes.as_list()->back().as_value(), 4);
  const Document sizes = {{"as_sym_ints", Document::array({{{"as_int", 2}}, {{"as_int", 3}}})}};
  EXPECT_EQ(typed_argument(sizes, scope, *ints).as_constant()->toIntVector(), (std::vector<int64_t>{2, 3}));
  const Document mixed = {{"as_sym_ints", Document::array({{{"as_int", 2}}, {{"as_name", "x"}}})}};
  EXPECT_EQ(typed_argument(mixed, scope, *ints).as_list()->size(), 2u);
  const Document empty = {{"as_tensors", Document::array()}};
  EXPECT_TRUE(typed_argument(empty, scope, *ints).as_constant()->isIntList());
}

TEST(Targets, AreOperatorsOfLibTorchOrOurs) {
  using Kind = Target::Kind;
  EXPECT_EQ(parse_target("torch.ops.aten.add.Tensor").name, "aten::add.Tensor");
  EXPECT_EQ(parse_target("torch.ops.aten.linear.default").name, "aten::linear");
  EXPECT_EQ(parse_target("torch.ops.aten.linear.default").kind, Kind::call);
  EXPECT_EQ(parse_target("torch.ops.aten._assert_tensor_metadata.default").kind, Kind::assertion);
  EXPECT_EQ(parse_target("torch.ops.aten.sym_constrain_range_for_size.default").kind, Kind::assertion);
  EXPECT_EQ(parse_target("_operator.truediv").scalar, graph::ScalarOperator::truediv);
  EXPECT_EQ(parse_target("torch.ops.higher_order.cond").kind, Kind::cond);
  EXPECT_EQ(parse_target("torch.ops.higher_order.wrap_with_autocast").kind, Kind::region);
  EXPECT_EQ(parse_target("torch.ops.higher_order.while_loop").kind, Kind::higher_order);
  for (const char* unknown :
       {"torch.ops.ours.twice.default", "torch.ops.aten", "os.system", "", "torch.ops..", "_operator.x"}) {
    EXPECT_EQ(parse_target(unknown).kind, Kind::unknown) << unknown;
  }
}

TEST(Guard, EvaluatesPython) {
  const std::map<std::string, at::Tensor> inputs = {
      {"x", at::zeros({3, 4})},
      {"d.k", at::zeros({6})},
      {"l.1", at::zeros({2})},
      {"n", at::scalar_tensor(5, at::kLong)}};
  const auto holds = [&](const char* text) {
    const auto result = evaluate_guard(text, inputs);
    return !result ? "unknown" : result->holds ? "true" : "false";
  };
  for (const char* text :
       {"L['x'].size()[0] == 3", "2*L['x'].size()[0] == L['d']['k'].size()[0]",
        "L['l'][1].size()[0] < L['x'].size()[1]", "1 <= L['x'].size()[0] <= 3 < 4", "not (L['x'].size()[0] == 4)",
        "L['x'].size()[0] % 2 == 1 and True", "False or L['x'].stride()[0] == 4", "L['n'] // 2 == 2",
        "L['n'] / 2 == 2.5", "2 ** L['x'].size()[0] == 8", "-2 ** 2 == -4", "max(L['n'], 7) == 7",
        "Mod(L['n'], 3) == 2", "Ne(L['n'], 3)", "L['x'].shape[1] != 3", "L['x'].dim() == 2 and L['x'].ndim >= 2",
        "L['x'].storage_offset() == 0", "(L['n'] - 1) - 1 == 3",
        "Eq(L['x'].size()[0]*L['x'].size()[1], 2*L['d']['k'].size()[0])"}) {
    EXPECT_STREQ(holds(text), "true") << text;
  }
  for (const char* text :
       {"L['x'].size()[0] == 4", "3 < L['x'].size()[0] < 2", "not True", "L['n'] > 5 or L['n'] < 5"}) {
    EXPECT_STREQ(holds(text), "false") << text;
  }
  for (const char* text :
       {"", "L['x']", "L['y'].size()[0] == 1", "L['x'].size()[9] == 1", "len(L['l']) == 2", "L['x'].dtype == 3",
        "L['n'] // 0 == 1", "L['n'] == 5 x", "L['n", "L['n'] == 1e5", "__import__('os')"}) {
    EXPECT_STREQ(holds(text), "unknown") << text;
  }
  std::string deep(100000, '(');
  EXPECT_STREQ(holds(deep.c_str()), "unknown");
  deep.assign(100000, '-');
  EXPECT_STREQ(holds(deep.c_str()), "unknown");
  const auto result = evaluate_guard("L['x'].size()[0] == L['d']['k'].size()[0]", inputs);
  ASSERT_EQ(result->seen.size(), 2u);
  EXPECT_EQ(result->seen[1].second, "dimension 0 of d.k is 6");
}

}  // namespace
}  // namespace shardpipe::pt2
