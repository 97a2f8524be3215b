// What cannot be traced is an Error(usage) that names the operator and the module.
#include <gtest/gtest.h>

#include <fstream>

#include "frontend/trace/module_scope.h"
#include "frontend/trace/replay.h"
#include "frontend/trace/trace.h"
#include "support/errors.h"

namespace shardpipe::trace {
namespace {

using graph::Size;
using test::expect_error;
using test::Tensors;

const Size kBatch = Size::symbol("batch");
const Size kSeq = Size::symbol("seq");

using Forward = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& w)>;

// Traces a model with input x [batch, seq, 8] and parameter w [8, 8].
graph::Graph trace_one(const Forward& forward) {
  const at::Tensor w = at::empty({8, 8}, at::kMeta);
  Program program{{{"x", at::kFloat, {kBatch, kSeq, 8}}}, {}, {{"w", w}}, {}};
  program.forward = [&](const Tensors& in, const Tensors&) -> NamedOutputs {
    const ModuleScope scope("model.layers.3", "Layer");
    return {{"y", forward(in[0], w)}};
  };
  return trace(program);
}

void expect_refused(const std::string& message, const Forward& forward) {
  expect_error(ErrorCode::usage, message, [&] { trace_one(forward); });
}

TEST(Refusals, ReadingValues) {
  const auto reads = [](const std::string& op) {
    return "operator " + op +
           " in \"model.layers.3\" reads the values of a tensor, which have none while a model is "
           "traced; hint: compute with tensors, or make the value an input";
  };
  expect_refused(reads("aten::item"), [](auto& x, auto&) { return x * x.sum().item(); });
  expect_refused(reads("aten::item"), [](auto& x, auto&) { return x.sum().template item<float>() > 0 ? x : -x; });
  expect_refused(reads("aten::nonzero"), [](auto& x, auto&) { return x.nonzero(); });
  expect_refused(reads("aten::nonzero"), [](auto& x, auto&) { return x.index({x > 0}); });  // called by index
  expect_refused(reads("aten::masked_select"), [](auto& x, auto&) { return x.masked_select(x > 0); });
  expect_refused(reads("aten::_unique2"), [](auto& x, auto&) { return std::get<0>(at::_unique2(x)); });
  expect_refused(reads("aten::equal"), [](auto& x, auto& w) { return w.equal(w + 1) ? x : -x; });
  expect_refused(reads("aten::allclose"), [](auto& x, auto& w) { return at::allclose(w, w + 1) ? x : -x; });
  expect_refused(reads("aten::item"), [](auto& x, auto&) { return x.sum().is_nonzero() ? x : -x; });
}

TEST(Refusals, IndexWithoutMasksIsTraced) {
  const auto graph = trace_one([](auto& x, auto&) { return x.index({at::arange(3), at::indexing::Slice()}); });
  EXPECT_EQ(test::op_names(graph).back(), "aten::index.Tensor");
}

TEST(Refusals, RawDataHasNoValues) {
  expect_refused(
      "the model failed while it was traced, after operator aten::relu in \"model.layers.3\": ", [](auto& x, auto&) {
        const at::Tensor y = x.relu();
        return y.template const_data_ptr<float>()[0] > 0 ? y : -y;
      });
}

TEST(Refusals, ControlFlowOnSizes) {
  const std::string start = "control flow depends on the sizes of the inputs, at operator ";
  expect_refused(start + "aten::relu in \"model.layers.3\"", [](auto& x, auto&) {
    return x.size(0) % 2 == 0 ? x.sigmoid() : x.relu();
  });
  expect_refused(start + "aten::neg in \"model.layers.3\"", [](auto& x, auto&) {
    at::Tensor y = x;
    for (int64_t i = 0; i < x.size(0); ++i) {
      y = y.neg();
    }
    return y;
  });
  expect_refused(start + "aten::unbind.int", [](auto& x, auto&) { return at::stack(x.unbind(0), 1); });
  expect_refused(start + "aten::relu", [](auto& x, auto&) {
    const ModuleScope scope(x.size(1) % 2 == 0 ? "even" : "odd", "Layer");
    return x.relu();
  });
  expect_refused(start + "aten::relu", [](auto& x, auto&) {
    const c10::AutoGradMode grad(x.size(1) % 2 == 0);
    return x.relu();
  });
  expect_refused(
      "which tensor is used depends on the sizes of the inputs, at operator aten::relu in",
      [](auto& x, auto& w) { return (x.size(0) % 2 == 0 ? x : w).relu(); });
  expect_refused(
      "the length of a list depends on the sizes of the inputs, at operator aten::cat in",
      [](auto& x, auto&) { return at::cat(Tensors(static_cast<size_t>(x.size(0)), x), 0); });
  expect_refused(
      "the length of a list depends on the sizes of the inputs, at operator aten::zeros in",
      [](auto& x, auto&) { return at::zeros(std::vector<int64_t>(static_cast<size_t>(x.size(0)), 1)); });
  expect_refused(
      "the kind of an argument depends on the sizes of the inputs, at operator aten::clamp in",
      [](auto& x, auto&) { return x.clamp(x.size(0) % 2 == 0 ? std::optional<at::Scalar>(0.0) : std::nullopt, 1.0); });
  expect_refused("the outputs of the traced program depend on the sizes", [](auto& x, auto&) {
    const at::Tensor a = x.relu();
    const at::Tensor b = x.neg();
    return x.size(0) % 2 == 0 ? a : b;
  });
}

TEST(Refusals, ArgumentsThatAreNoPolynomial) {
  expect_refused(
      "an argument that is no integer depends on the sizes of the inputs, at operator aten::mul.Scalar in "
      "\"model.layers.3\"",
      [](auto& x, auto&) { return x * (1.0 / static_cast<double>(x.size(1))); });
  expect_refused("an integer is no polynomial of the named dimensions (the traced runs give ", [](auto& x, auto&) {
    return x.narrow(1, 0, x.size(1) / 2);
  });
}

TEST(Refusals, TensorsAndConstantsOfNoOne) {
  const at::Tensor stranger = at::empty({8}, at::kMeta);
  expect_refused(
      "a tensor of shape [8] used in \"model.layers.3\" is neither an input nor a registered parameter or buffer",
      [&](auto& x, auto&) { return x + stranger; });
  std::vector<float> data(1000, 1.0f);
  expect_refused("a constant of shape [7] depends on the sizes of the inputs", [&](auto& x, auto&) {
    return x.sum({1, 2}) + at::from_blob(data.data(), {x.size(0)});
  });
  const Tensors two = {at::zeros({8}), at::ones({8})};
  expect_refused("a constant of shape [8] depends on the sizes of the inputs", [&](auto& x, auto&) {
    return x + two[static_cast<size_t>(x.size(0) % 2)];
  });
}

TEST(Refusals, Writes) {
  const std::string rule = "which is no state of the model; hint: write to a copy, or declare the tensor a state";
  expect_refused("operator aten::add_.Scalar in \"model.layers.3\" writes to \"x\", " + rule, [](auto& x, auto&) {
    return x.narrow(0, 0, 1).add_(1);
  });
  expect_refused("operator aten::zero_ in \"model.layers.3\" writes to \"w\", ", [](auto& x, auto& w) {
    const at::NoGradGuard no_grad;
    w.t().zero_();
    return x.relu();
  });
  const at::Tensor constant = at::ones({8});
  expect_refused("operator aten::add_.Scalar in \"model.layers.3\" writes to \"constant.0\", ", [&](auto& x, auto&) {
    constant.add_(1);
    return x + constant;
  });
  EXPECT_TRUE(constant.equal(at::ones({8})));  // nor was it written
}

TEST(Refusals, OperatorsThatFail) {
  expect_refused("operator aten::mm in \"model.layers.3\" failed while a model is traced: ", [](auto& x, auto& w) {
    return at::mm(x.select(0, 0).t(), w);
  });
}

void define_operators() {
  static torch::Library library(torch::Library::DEF, "trace_test", std::nullopt, __FILE__, __LINE__);
  static const bool defined = [] {
    library.def("on(Tensor x, Device where) -> Tensor", [](const at::Tensor& x, at::Device) { return x + 1; });
    library.def("named(Tensor x) -> (Tensor, str)", [](const at::Tensor& x) {
      return std::make_tuple(x + 1, std::string("a"));
    });
    library.def("counted(Tensor x) -> (Tensor, int, float, bool)", [](const at::Tensor& x) {
      return std::make_tuple(x + 1, x.dim(), 0.5, true);
    });
    library.def("nothing(Tensor x) -> ()", [](const at::Tensor&) {});
    library.def(
        "draw(Tensor x, Generator? generator) -> Tensor",
        [](const at::Tensor& x, std::optional<at::Generator>) { return x + 1; });
    return true;
  }();
  static_cast<void>(defined);
}

template <typename... Args>
torch::jit::Stack call(const std::string& name, Args&&... args) {
  torch::jit::Stack stack;
  (stack.emplace_back(std::forward<Args>(args)), ...);
  graph::find_operator(name).callBoxed(stack);
  return stack;
}

TEST(Refusals, KindsThatAGraphDoesNotHold) {
  define_operators();
  expect_refused(
      "operator trace_test::on in \"model.layers.3\" needs a device, which a graph does not name",
      [](auto& x, auto&) { return call("trace_test::on", x, c10::Device(at::kCPU)).at(0).toTensor(); });
  expect_refused(
      "operator trace_test::named in \"model.layers.3\" returns a value of kind String, which cannot be traced",
      [](auto& x, auto&) { return call("trace_test::named", x).at(0).toTensor(); });
  expect_refused("an argument of kind Generator in \"model.layers.3\" cannot be traced", [](auto& x, auto&) {
    return call("trace_test::draw", x, at::Generator()).at(0).toTensor();
  });
}

TEST(Refusals, NumbersBesideTensorsAndNoResultAreTraced) {
  define_operators();
  const auto graph = trace_one([](auto& x, auto&) {
    call("trace_test::nothing", x);
    return call("trace_test::counted", x).at(0).toTensor();
  });
  ASSERT_EQ(graph.nodes.size(), 2u);
  EXPECT_EQ(graph.nodes[0].results.size(), 0u);
  ASSERT_EQ(graph.nodes[1].results.size(), 4u);
  const auto type = [&](size_t i) { return graph.values[static_cast<size_t>(graph.nodes[1].results[i])].type; };
  EXPECT_EQ(type(0), graph::ValueType::tensor);
  EXPECT_EQ(type(1), graph::ValueType::integer);
  EXPECT_EQ(type(2), graph::ValueType::number);
  EXPECT_EQ(type(3), graph::ValueType::boolean);
}

TEST(Refusals, OutputsAndDimensions) {
  expect_refused(
      "output \"y\" of the traced program is not a tensor it computed", [](auto&, auto&) { return at::Tensor(); });
  Program program{{{"x", at::kFloat, {Size(2) * kBatch}}}, {}, {}, {}};
  program.forward = [](const Tensors& in, const Tensors&) -> NamedOutputs {
    return {{"y", in[0].view({in[0].size(0) / 2, 2})}};
  };
  expect_error(
      ErrorCode::usage, "dimension batch is not itself an extent of an input or state", [&] { trace(program); });
}

}  // namespace
}  // namespace shardpipe::trace
