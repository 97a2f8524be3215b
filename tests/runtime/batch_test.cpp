// Batches cut into microbatches and joined again: rules, weights of losses, errors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include "support/errors.h"

#include "graph/text.h"
#include "graph/verify.h"
#include "runtime/batch_run.h"
#include "runtime/bundle.h"
#include "runtime/scalar_join.h"
#include "threads.h"

namespace shardpipe::runtime {
namespace {

using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

plan::Plan plan_of(const std::string& text, partition::CutPoints cuts = {}) {
  plan::Plan plan;
  plan.layout.pp = static_cast<int>(cuts.size()) + 1;
  plan.graph = graph::parse("shardpipe-graph 1\n" + text, "test");
  graph::verify(plan.graph, "test");
  plan.scalars = plan::describe_scalars(plan.graph);
  graph::verify(plan.graph, "describe_scalars");
  plan.cuts = std::move(cuts);
  plan.stages = partition::cut(plan.graph, plan.cuts);
  return plan;
}

BatchResult run(const plan::Plan& plan, const NamedTensors& inputs, const RunOptions& options = {}) {
  BatchResult answer;
  test::run_stages(plan, [&](Engine& engine) {
    BatchResult result = run_batch(engine, engine.rank() == 0 ? inputs : NamedTensors(), options);
    if (engine.rank() == (options.outputs_on_last ? plan.layout.pp - 1 : 0)) {
      answer = std::move(result);
    }
  });
  return answer;
}

const at::Tensor& of(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [known, tensor] : tensors) {
    if (known == name) {
      return tensor;
    }
  }
  throw_internal("no {}", name);
}

RunOptions chunks(int count) {
  RunOptions options;
  options.chunks = count;
  return options;
}

// A parameter with content: two rows of two.
constexpr const char* kWeight =
    "parameter %1 \"w\" content \"0000803f000000400000404000008040\": float32[2, 2]\n";  // 1 2 3 4

std::string linear(const std::string& tail) {
  return std::string("dimension n\ninput %0 \"x\": float32[n, 2]\n") + kWeight +
         "#0 %2: float32[n, 2] = aten::linear(%0, %1, none) in \"a\"\n" + tail;
}

TEST(Batch, JoinsUnevenMicrobatches) {
  const plan::Plan plan = plan_of(
      linear("#1 %3: float32[n, 2] = aten::relu(%2) in \"b\"\noutput \"y\" %3\noutput \"h\" %2\noutput \"w\" %1\n"),
      {1});
  const at::Tensor x = at::arange(14, at::kFloat).view({7, 2}) - 6;
  const at::Tensor expected = at::linear(x, at::tensor({1.F, 2.F, 3.F, 4.F}).view({2, 2}));
  for (const int count : {1, 2, 3, 5, 7}) {
    const BatchResult result = run(plan, {{"x", x}}, chunks(count));
    EXPECT_EQ(result.microbatches, count);
    EXPECT_TRUE(of(result.outputs, "y").equal(expected.relu()));
    EXPECT_TRUE(of(result.outputs, "h").equal(expected));  // computed by the first stage
    EXPECT_EQ(of(result.outputs, "w").dim(), 2);           // no batch in it: not repeated
    EXPECT_EQ(of(result.outputs, "w").size(0), 2);
  }
  RunOptions last = chunks(2);
  last.outputs_on_last = true;
  EXPECT_TRUE(of(run(plan, {{"x", x}}, last).outputs, "h").equal(expected));
}

TEST(Batch, IsLoweredToItsRows) {
  const plan::Plan plan = plan_of(linear("output \"y\" %2\n"));
  EXPECT_EQ(run(plan, {{"x", at::ones({3, 2})}}, chunks(100)).microbatches, 3);
  EXPECT_EQ(run(plan, {{"x", at::ones({0, 2})}}, chunks(4)).microbatches, 1);
  // Without a number: the stages are filled.
  EXPECT_EQ(
      run(plan_of(linear("#1 %3: float32[n, 2] = aten::relu(%2) in \"b\"\noutput \"y\" %3\n"), {1}),
          {{"x", at::ones({3, 2})}})
          .microbatches,
      2);
}

TEST(Batch, FollowsGivenRules) {
  const plan::Plan plan =
      plan_of(linear("#1 %3: float32[] = aten::amax(%2, ints[], false) in \"b\"\n"
                     "output \"y\" %2\noutput \"m\" %3\n"));
  const at::Tensor x = at::tensor({1.F, 0.F, 5.F, 0.F, 2.F, 0.F}).view({3, 2});
  RunOptions options = chunks(3);
  using Kind = MergeRule::Kind;
  for (const auto& [kind, expected] : {std::pair(Kind::sum, 24.0), {Kind::mean, 8.0}, {Kind::last, 6.0}}) {
    options.merge["m"] = {kind, 0};
    EXPECT_NEAR(of(run(plan, {{"x", x}}, options).outputs, "m").item<double>(), expected, 1e-5);
  }
  options.merge["m"] = {Kind::cat, 0};
  EXPECT_THAT(
      error_of([&] {
        run(plan, {{"x", x}}, options);
      }).message(),
      HasSubstr("\"m\" has shape []: no dimension 0"));
  options.merge = {{"y", {Kind::last, 0}}};
  EXPECT_EQ(of(run(plan, {{"x", x}}, options).outputs, "y").size(0), 1);
}

TEST(Batch, CutsOtherDimensionsAndMultiples) {
  const plan::Plan plan = plan_of(
      "dimension n\ndimension s\ninput %0 \"a\": float32[s, n]\ninput %1 \"b\": float32[n, 1]\n"
      "input %2 \"c\": float32[2*n, 1]\ninput %3 \"table\": float32[s, s]\n"
      "#0 %4: float32[s, n] = aten::matmul(%3, %0) in \"m\"\n"
      "#1 %5: tensor = aten::view(%2, ints[-1, 2]) in \"m\"\n"
      "#2 %6: tensor = aten::add.Tensor(%5, %1, 1) in \"m\"\noutput \"y\" %4\noutput \"z\" %6\n");
  // The first input's first dimension would be the batch: say which one is.
  RunOptions options = chunks(3);
  options.chunk = {{"a", 1}, {"b", 0}, {"c", 0}, {"table", std::nullopt}};
  options.merge = {{"y", {MergeRule::Kind::cat, 1}}};
  const NamedTensors inputs = {
      {"a", at::randn({3, 5})}, {"b", at::randn({5, 1})}, {"c", at::randn({10, 1})}, {"table", at::randn({3, 3})}};
  EXPECT_EQ(batch_dimension(plan.graph), "s");
  EXPECT_THAT(
      error_of([&] { run(plan, inputs, options); }).message(),
      HasSubstr("the batch is 5 in the input \"a\" and 10 in \"c\""));
  const plan::Plan named = plan_of(
      "dimension n\ndimension s\ninput %1 \"b\": float32[n, 1]\ninput %0 \"a\": float32[s, n]\n"
      "input %2 \"c\": float32[2*n, 1]\ninput %3 \"table\": float32[s, s]\n"
      "#0 %4: float32[s, n] = aten::matmul(%3, %0) in \"m\"\n"
      "#1 %5: tensor = aten::view(%2, ints[-1, 2]) in \"m\"\n"
      "#2 %6: tensor = aten::add.Tensor(%5, %1, 1) in \"m\"\noutput \"y\" %4\noutput \"z\" %6\n");
  const BatchResult result = run(named, inputs, chunks(3));
  EXPECT_TRUE(at::allclose(of(result.outputs, "y"), at::matmul(inputs[3].second, inputs[0].second)));
  EXPECT_TRUE(of(result.outputs, "z").equal(inputs[2].second.view({-1, 2}) + inputs[1].second));
}

struct BadCall {
  NamedTensors inputs;
  RunOptions options;
  const char* message;
};

TEST(Batch, RefusesWhatDoesNotFit) {
  const plan::Plan plan = plan_of(
      "dimension n\ninput %0 \"x\": float32[n, 2]\ninput %1 \"mask\": bool[n]\n"
      "#0 %2: float32[n, 2] = aten::mul.Tensor(%0, %0) in \"a\"\n"
      "#1 %3: bool[n] = aten::logical_not(%1) in \"a\"\noutput \"y\" %2\noutput \"z\" %3\n");
  const at::Tensor x = at::ones({4, 2});
  const at::Tensor mask = at::ones({4}, at::kBool);
  const NamedTensors good = {{"x", x}, {"mask", mask}};
  RunOptions chunk;
  chunk.chunk = {{"xs", 0}};
  RunOptions deep;
  deep.chunk = {{"x", 2}};
  RunOptions merge;
  merge.merge = {{"yy", {}}};
  RunOptions loss;
  loss.loss = "los";
  RunOptions wide;
  wide.loss = "y";
  const std::vector<BadCall> cases = {
      {{{"x", x}, {"msk", mask}}, {}, "no input \"msk\": it has x, mask; hint: the nearest is mask"},
      {{{"x", x}}, {}, "the input \"mask\" is missing: the model takes x, mask"},
      {{{"x", x}, {"x", x}, {"mask", mask}}, {}, "\"x\" is given twice"},
      {{{"x", at::Tensor()}, {"mask", mask}}, {}, "\"x\" is an undefined tensor"},
      {{{"x", x.to(at::kDouble)}, {"mask", mask}}, {}, "\"x\" is float64, the model takes float32"},
      {{{"x", x.view({8})}, {"mask", mask}}, {}, "\"x\" has shape [8], the model takes [n, 2]"},
      {{{"x", at::ones({4, 3})}, {"mask", mask}}, {}, "\"x\" has shape [4, 3], the model takes [n, 2]"},
      {{{"x", x}, {"mask", at::ones({5}, at::kBool)}}, {}, "the batch is 4 in the input \"x\" and 5 in \"mask\""},
      {good, chunk, "no input \"xs\""},
      {good, deep, "\"x\" has no dimension 2 to cut: it has 2"},
      {good, merge, "no output \"yy\""},
      {good, loss, "no output \"los\""},
      {good, wide, "the loss \"y\" is float32[n, 2], must be a floating-point tensor of one element"}};
  for (const BadCall& bad : cases) {
    const Error error = error_of([&] { run(plan, bad.inputs, bad.options); });
    EXPECT_EQ(error.code(), ErrorCode::usage) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(bad.message));
  }
  const plan::Plan fixed =
      plan_of("input %0 \"x\": float32[4, 2]\n#0 %1: float32[4, 2] = aten::relu(%0) in \"a\"\noutput \"y\" %1\n");
  EXPECT_EQ(run(fixed, {{"x", x}}).microbatches, 1);
  const Error cut = error_of([&] { run(fixed, {{"x", x}}, chunks(2)); });
  EXPECT_THAT(cut.message(), HasSubstr("shape [2, 2] in microbatch 0, the model takes [4, 2]"));
  EXPECT_THAT(cut.hint(), HasSubstr("a dynamic batch dimension"));
  const plan::Plan number = plan_of(
      "input %0 \"k\": int\ninput %1 \"x\": float32[2]\n"
      "#0 %2: float32[2] = aten::mul.Scalar(%1, %0) in \"a\"\noutput \"y\" %2\n");
  EXPECT_THAT(
      error_of([&] {
        run(number, {{"k", at::ones({2}, at::kLong)}, {"x", at::ones({2})}});
      }).message(),
      HasSubstr("\"k\" is a number, the tensor given has 2 elements"));
}

TEST(Batch, LossMustBeAScalarThatDependsOnParameters) {
  RunOptions options;
  options.loss = "y";
  const plan::Plan unknown = plan_of(linear("#1 %3: tensor = aten::relu(%2) in \"b\"\noutput \"y\" %3\n"));
  EXPECT_THAT(
      error_of([&] {
        run(unknown, {{"x", at::ones({3, 2})}}, options);
      }).message(),
      HasSubstr("the loss \"y\" has shape [3, 2], must have one element"));
  const plan::Plan free = plan_of(
      "dimension n\ninput %0 \"x\": float32[n]\n#0 %1: float32[] = aten::mean(%0, none) in \"a\"\noutput \"y\" %1\n");
  EXPECT_THAT(
      error_of([&] {
        run(free, {{"x", at::ones({3})}}, options);
      }).message(),
      HasSubstr("the loss \"y\" does not depend on any parameter"));
}

// The uncut batch's loss and gradient, whatever the microbatches.
TEST(Batch, LossIsThatOfTheUncutBatch) {
  const std::string head = "dimension n\ninput %0 \"x\": float32[n, 2]\ninput %9 \"t\": int64[n]\n" +
                           std::string(kWeight) +
                           "buffer %8 \"class_weight\" content \"0000003f00000040\": float32[2]\n"
                           "#0 %2: float32[n, 2] = aten::linear(%0, %1, none) in \"a\"\n";
  const std::vector<std::string> losses = {
      "#1 %3: float32[] = aten::cross_entropy_loss(%2, %9, none, 1, 1, 0.0) in \"l\"\noutput \"loss\" %3\n",
      "#1 %3: float32[] = aten::cross_entropy_loss(%2, %9, %8, 1, -100, 0.1) in \"l\"\noutput \"loss\" %3\n",
      "#1 %4: float32[n, 2] = aten::log_softmax.int(%2, 1, none) in \"l\"\n"
      "#2 %3: float32[] = aten::nll_loss_nd(%4, %9, %8, 1, 0) in \"l\"\noutput \"loss\" %3\n",
      "#1 %4: float32[n, 2] = aten::softmax.int(%0, 1, none) in \"l\"\n"
      "#2 %3: float32[] = aten::cross_entropy_loss(%2, %4, %8, 1, -100, 0.0) in \"l\"\noutput \"loss\" %3\n",
      "#1 %3: float32[] = aten::mse_loss(%2, %0, 2) in \"l\"\noutput \"loss\" %3\n",
      "#1 %3: float32[] = aten::mse_loss(%2, %0, 1) in \"l\"\n#2 %4: float32[] = aten::sum(%2, none) in \"l\"\n"
      "#3 %5: float32[] = aten::mul.Tensor(%1, %1) in \"l\"\n#4 %6: float32[] = aten::mean(%5, none) in \"l\"\n"
      "#5 %7: float32[] = aten::add.Tensor(%3, %4, 0.25) in \"l\"\n"
      "#6 %10: float32[] = aten::sub.Tensor(%7, %6, 2) in \"l\"\n#7 %11: float32[1] = aten::view(%10, ints[1]) in "
      "\"l\"\n"
      "output \"loss\" %11\n",
      "#1 %4: float32[] = aten::mean.dim(%2, ints[0, 1], false, none) in \"l\"\n"
      "#2 %3: float32[] = aten::div.Scalar(%4, 3) in \"l\"\n#3 %5: float32[] = aten::neg(%3) in \"l\"\n"
      "output \"loss\" %5\n"};
  at::manual_seed(5);
  const NamedTensors inputs = {{"x", at::randn({7, 2})}, {"t", at::tensor({1, 1, 0, 1, 0, 0, 1}, at::kLong)}};
  RunOptions options;
  options.loss = "loss";
  for (const std::string& loss : losses) {
    const plan::Plan plan = plan_of(head + loss);
    EXPECT_FALSE(plan.scalars.at(0).terms.empty()) << loss;
    options.chunks = 1;
    const BatchResult whole = run(plan, inputs, options);
    for (const int count : {2, 3, 7}) {
      options.chunks = count;
      for (const partition::CutPoints& cuts : {partition::CutPoints{}, partition::CutPoints{1}}) {
        const BatchResult parts = run(plan_of(head + loss, cuts), inputs, options);
        EXPECT_EQ(of(parts.outputs, "loss").sizes(), of(whole.outputs, "loss").sizes());
        EXPECT_TRUE(at::allclose(of(parts.outputs, "loss"), of(whole.outputs, "loss"), 1e-5, 1e-6)) << loss;
        EXPECT_TRUE(at::allclose(of(parts.gradients, "w"), of(whole.gradients, "w"), 1e-5, 1e-6)) << loss;
      }
    }
  }
}

TEST(Batch, OtherScalarsAreAveragedByRows) {
  const plan::Plan plan =
      plan_of(linear("#1 %3: float32[] = aten::amax(%2, ints[], false) in \"b\"\noutput \"y\" %3\n"));
  EXPECT_TRUE(plan.scalars.at(0).terms.empty());
  testing::internal::CaptureStderr();
  const at::Tensor x = at::tensor({1.F, 0.F, 5.F, 0.F, 2.F, 0.F}).view({3, 2});
  const BatchResult result = run(plan, {{"x", x}}, chunks(2));
  EXPECT_NEAR(of(result.outputs, "y").item<double>(), (15.0 * 2 + 6.0) / 3, 1e-5);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("\"y\" is no mean or sum that can be recognised"));
}

// A tied parameter has one gradient, under each name; a frozen one and one that is not used have none.
TEST(Batch, NamesOfGradients) {
  plan::Plan plan = plan_of(
      "dimension n\ninput %0 \"x\": float32[n, 2]\n"
      "parameter %1 \"in\" tied \"out\" content \"0000803f000000400000404000008040\": float32[2, 2]\n"
      "parameter %2 \"frozen\" content \"0000803f00000040\": float32[2]\n"
      "#0 %3: float32[n, 2] = aten::linear(%0, %1, %2) in \"a\"\n#1 %4: float32[n, 2] = aten::tanh(%3) in \"b\"\n"
      "#2 %5: float32[n, 2] = aten::linear(%4, %1, none) in \"c\"\n#3 %6: float32[] = aten::mean(%5, none) in \"c\"\n"
      "output \"loss\" %6\n",
      {1, 2});
  plan.frozen = {"frozen"};
  RunOptions options = chunks(2);
  options.loss = "loss";
  const BatchResult result = run(plan, {{"x", at::ones({2, 2})}}, options);
  ASSERT_EQ(result.gradients.size(), 2U);
  EXPECT_EQ(result.gradients[0].first, "in");
  EXPECT_EQ(result.gradients[1].first, "out");
  EXPECT_TRUE(result.gradients[0].second.equal(result.gradients[1].second));
}

// Statistics see the microbatches in order, once each, and go on from batch to batch.
TEST(Batch, StatesAreUpdatedInMicrobatchOrder) {
  const plan::Plan plan = plan_of(
      "dimension n\ninput %0 \"x\": float32[n, 1]\nstate %1 \"total\" shared content \"00000000\": float32[1]\n"
      "#0 %2: float32[1] = aten::sum.dim_IntList(%0, ints[0], false, none) in \"a\"\n"
      "#1 %3: float32[1] = aten::add_.Tensor(%1, %2, 1) in \"a\"\n"
      "#2 %4: float32[n, 1] = aten::mul.Tensor(%0, %3) in \"b\"\noutput \"y\" %4\noutput \"total\" %3\n");
  test::run_stages(plan, [](Engine& engine) {
    const NamedTensors inputs = {{"x", at::tensor({1.F, 2.F, 3.F}).view({3, 1})}};
    const at::Tensor first = of(run_batch(engine, inputs, chunks(3)).outputs, "y");
    EXPECT_TRUE(first.equal(at::tensor({1.F, 6.F, 18.F}).view({3, 1})));
    const BatchResult second = run_batch(engine, inputs, chunks(3));
    EXPECT_TRUE(of(second.outputs, "y").equal(at::tensor({7.F, 18.F, 36.F}).view({3, 1})));
    EXPECT_EQ(of(second.outputs, "total").item<double>(), 12);
    EXPECT_EQ(run_batch(engine, inputs, {}).microbatches, 1);  // statistics of the whole batch, unless asked otherwise
  });
}

TEST(Bundle, CarriesEveryKindOfValue) {
  const at::Tensor base = at::arange(48, at::kFloat).view({2, 4, 6});
  const std::vector<at::Tensor> tensors = {
      base,
      base.permute({2, 0, 1}),
      base.slice(1, 1, 3),
      base.select(2, 3),
      at::ones({3, 1}).expand({3, 5}),
      at::empty({0, 3}),
      at::scalar_tensor(2.5, at::kBFloat16),
      at::ones({2}, at::kBool),
      at::complex(at::ones({2}), at::ones({2})).conj(),
      base.unfold(2, 3, 2),
      at::randn({2, 3, 4, 4}).contiguous(at::MemoryFormat::ChannelsLast),
      at::arange(5, at::kLong),
      base.slice(2, 0, 6, 5)};
  test::run_threads(2, [&](int rank, const comm::Transport& transport) {
    if (rank == 0) {
      std::vector<c10::IValue> values(tensors.begin(), tensors.end());
      values.insert(values.end(), {int64_t{-7}, 0.1, true, c10::IValue(), at::Tensor()});
      values.emplace_back(at::ones({2}).requires_grad_());
      EXPECT_GT(send_bundle(transport, values, 1, 3), 0);
      EXPECT_EQ(send_bundle(transport, {}, 1, 3), 0);
      EXPECT_THAT(
          error_of([&] { send_bundle(transport, {std::string("text")}, 1, 3); }).message(),
          HasSubstr("cannot be sent"));
      EXPECT_THAT(
          error_of([&] {
            send_bundle(transport, {at::ones({2, 2}).to_sparse()}, 1, 3);
          }).message(),
          HasSubstr("a tensor of layout Sparse"));
      return;
    }
    const std::vector<Received> values = receive_bundle(transport, tensors.size() + 6, 0, 3);
    for (size_t i = 0; i < tensors.size(); ++i) {
      const at::Tensor tensor = values[i].value.toTensor();
      EXPECT_EQ(tensor.scalar_type(), tensors[i].scalar_type());
      EXPECT_TRUE(tensor.equal(tensors[i].resolve_conj())) << i;
      EXPECT_EQ(tensor.strides(), tensors[i].strides()) << i;
      EXPECT_FALSE(values[i].requires_grad);
    }
    const auto* rest = &values[tensors.size()];
    EXPECT_EQ(rest[0].value.toInt(), -7);
    EXPECT_EQ(rest[1].value.toDouble(), 0.1);
    EXPECT_TRUE(rest[2].value.toBool());
    EXPECT_TRUE(rest[3].value.isNone() && rest[4].value.isNone());
    EXPECT_TRUE(rest[5].requires_grad);
    EXPECT_TRUE(receive_bundle(transport, 0, 0, 3).empty());
  });
}

TEST(ScalarJoin, WeighsByCounts) {
  const ScalarValues values = {
      {"t", at::tensor({1.0, 4.0, std::nan("")}, at::kDouble)}, {"c", at::tensor({3.0, 1.0, 0.0}, at::kDouble)}};
  plan::ScalarTerm term{plan::ScalarTerm::Kind::mean, "t", "c", 2};
  EXPECT_THAT(term_weights(term, values, 3), ElementsAre(0.75, 0.25, 0));
  EXPECT_EQ(join_scalar({"y", {term}}, values, {1, 1, 1}), 3.5);
  EXPECT_THAT(row_weights({3, 1}), ElementsAre(0.75, 0.25));
  EXPECT_THAT(row_weights({0}), ElementsAre(1));
}

TEST(Request, SurvivesItsText) {
  const plan::Plan plan = plan_of(linear("output \"y\" %2\n"));
  const BatchRequest request = request_batch(plan, {{"x", at::ones({5, 2})}}, chunks(2));
  EXPECT_THAT(request.rows, ElementsAre(3, 2));
  const Json json = to_json(request);
  EXPECT_EQ(to_json(batch_request_from_json(json)), json);
}

}  // namespace
}  // namespace shardpipe::runtime
