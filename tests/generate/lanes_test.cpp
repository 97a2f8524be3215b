#include "generate/lanes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "generate/sampler.h"
#include "graph/text.h"
#include "support/errors.h"

namespace shardpipe::generation {
namespace {

using ::testing::ElementsAre;

std::vector<int64_t> numbers(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
}

std::vector<Row> rows_of(const std::vector<std::vector<int64_t>>& prompts) {
  std::vector<Row> rows;
  for (const auto& prompt : prompts) {
    rows.emplace_back().prompt = &prompt;
  }
  return rows;
}

TEST(Lane, PacksPromptsThenOneTokenARow) {
  const std::vector<std::vector<int64_t>> prompts = {{5, 6, 7}, {8}, {9, 10}};
  Lane lane(rows_of(prompts), false);
  EXPECT_THAT(numbers(lane.input("input_ids")), ElementsAre(5, 6, 7, 8, 9, 10));
  EXPECT_THAT(numbers(lane.input("positions")), ElementsAre(0, 1, 2, 0, 0, 1));
  EXPECT_THAT(numbers(lane.input("slots")), ElementsAre(0, 0, 0, 1, 2, 2));
  EXPECT_THAT(numbers(lane.input("selected")), ElementsAre(2, 3, 5));
  EXPECT_EQ(lane.dimensions().at("tokens"), 6);
  EXPECT_EQ(lane.dimensions().at("outputs"), 3);

  lane.set_choices({{20, FinishReason::none, 0}, {21, FinishReason::eos, 0}, {22, FinishReason::none, 0}});
  std::vector<std::pair<size_t, int64_t>> seen;
  lane.advance([&](size_t slot, const Choice& choice) { seen.emplace_back(slot, choice.token); });
  EXPECT_THAT(seen, ElementsAre(std::pair(0, 20), std::pair(1, 21), std::pair(2, 22)));
  // The row that ended takes no further part; the others keep their slots.
  EXPECT_THAT(numbers(lane.input("input_ids")), ElementsAre(20, 22));
  EXPECT_THAT(numbers(lane.input("positions")), ElementsAre(3, 2));
  EXPECT_THAT(numbers(lane.input("slots")), ElementsAre(0, 2));
  EXPECT_THAT(numbers(lane.input("selected")), ElementsAre(0, 1));

  lane.set_choices({{30, FinishReason::length, 0}, {31, FinishReason::length, 0}});
  lane.advance([](size_t, const Choice&) {});
  EXPECT_FALSE(lane.active());
  EXPECT_THAT(lane.rows()[0].output.token_ids, ElementsAre(20, 30));
  EXPECT_THAT(lane.rows()[1].output.token_ids, ElementsAre(21));
  EXPECT_EQ(lane.rows()[1].output.finish_reason, FinishReason::eos);
}

TEST(Lane, GivesSourcesInTheFirstStepOnly) {
  const std::vector<std::vector<int64_t>> sources = {{5, 6, 7}, {8}};
  const std::vector<int64_t> start = {2};
  std::vector<Row> rows;
  for (const auto& source : sources) {
    rows.push_back({.prompt = &start, .source = &source});
  }
  Lane lane(std::move(rows), false);
  EXPECT_THAT(numbers(lane.input("input_ids")), ElementsAre(2, 2));
  EXPECT_THAT(numbers(lane.input("positions")), ElementsAre(0, 0));
  EXPECT_THAT(numbers(lane.input("source_ids")), ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(numbers(lane.input("source_positions")), ElementsAre(0, 1, 2, 0));
  EXPECT_THAT(numbers(lane.input("source_slots")), ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(numbers(lane.input("source_lengths")), ElementsAre(3, 1));
  EXPECT_EQ(lane.dimensions(), (graph::Dimensions{{"tokens", 2}, {"outputs", 2}, {"sources", 4}, {"slots", 2}}));

  lane.set_choices({{20, FinishReason::eos, 0}, {21, FinishReason::none, 0}});
  lane.advance([](size_t, const Choice&) {});
  EXPECT_THAT(numbers(lane.input("input_ids")), ElementsAre(21));
  EXPECT_THAT(numbers(lane.input("positions")), ElementsAre(1));
  EXPECT_THAT(numbers(lane.input("slots")), ElementsAre(1));
  EXPECT_THAT(numbers(lane.input("source_ids")), ElementsAre());
  EXPECT_THAT(numbers(lane.input("source_slots")), ElementsAre());
  EXPECT_THAT(numbers(lane.input("source_lengths")), ElementsAre(3, 1));
  EXPECT_EQ(lane.dimensions(), (graph::Dimensions{{"tokens", 1}, {"outputs", 1}, {"sources", 0}, {"slots", 2}}));
}

TEST(Lane, HasNoSourcesWithoutAnEncoder) {
  const std::vector<std::vector<int64_t>> prompts = {{1}};
  const Lane lane(rows_of(prompts), false);
  EXPECT_EQ(lane.dimensions(), (graph::Dimensions{{"tokens", 1}, {"outputs", 1}}));
  test::expect_error(ErrorCode::internal, {"no input \"source_ids\""}, [&] { lane.input("source_ids"); });
}

TEST(Lane, CarriesLogProbabilitiesExactly) {
  const std::vector<std::vector<int64_t>> prompts = {{1}};
  Lane lane(rows_of(prompts), true);
  lane.set_choices({{2, FinishReason::none, -0.1234567890123}});
  EXPECT_EQ(lane.choices().nbytes(), 24U);
  lane.advance([](size_t, const Choice&) {});
  EXPECT_THAT(lane.rows()[0].output.logprobs, ElementsAre(-0.1234567890123));
}

// torch.tensor_split: 503 rows in 5 are 101, 101, 101, 100, 100.
TEST(SplitRows, GivesTheFirstLanesOneMore) {
  std::vector<size_t> sizes;
  for (const auto& lane : split_rows(std::vector<Row>(503), 5)) {
    sizes.push_back(lane.size());
  }
  EXPECT_THAT(sizes, ElementsAre(101, 101, 101, 100, 100));
}

TEST(Sampler, TakesTheFirstOfEqualLogits) {
  const std::vector<int64_t> prompt = {1};
  Row row;
  row.prompt = &prompt;
  const Sampler sampler({.max_new_tokens = 5}, nullptr);
  const at::Tensor logits = at::tensor({0.F, 3.F, 3.F, 1.F}).unsqueeze(0);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    EXPECT_EQ(sampler.choose(logits.to(dtype), {&row})[0].token, 1);
  }
}

TEST(Sampler, EndsAtEosAndAtLengthButNotBeforeTheMinimum) {
  const std::vector<int64_t> prompt = {1};
  Row row;
  row.prompt = &prompt;
  const at::Tensor logits = at::tensor({0.F, 2.F, 9.F, 1.F}).unsqueeze(0);
  const at::Tensor before = logits.clone();
  EXPECT_EQ(
      Sampler({.max_new_tokens = 5, .eos_token_ids = {0, 2}}, nullptr).choose(logits, {&row})[0].finish_reason,
      FinishReason::eos);
  EXPECT_EQ(Sampler({.max_new_tokens = 1}, nullptr).choose(logits, {&row})[0].finish_reason, FinishReason::length);
  const Sampler sampler({.max_new_tokens = 5, .min_new_tokens = 1, .eos_token_ids = {2, 99}}, nullptr);
  const Choice choice = sampler.choose(logits, {&row})[0];
  EXPECT_EQ(choice.token, 1);
  EXPECT_EQ(choice.finish_reason, FinishReason::none);
  EXPECT_TRUE(logits.equal(before)) << "the model's output must not be written";
}

TEST(Sampler, GivesTheLogProbabilityOfTheToken) {
  const std::vector<int64_t> prompt = {1};
  Row row;
  row.prompt = &prompt;
  const at::Tensor logits = at::tensor({1.F, 2.F}).unsqueeze(0);
  const Choice choice = Sampler({.max_new_tokens = 5, .logprobs = true}, nullptr).choose(logits, {&row})[0];
  EXPECT_NEAR(choice.logprob, -std::log1p(std::exp(-1.0)), 1e-6);
}

TEST(StepExample, IsAStepOfTheProgram) {
  const graph::Graph decoder = graph::parse(
      "shardpipe-graph 1\ndimension tokens\ninput %0 \"input_ids\": int64[tokens]\n"
      "input %1 \"positions\": int64[tokens]\noutput \"logits\" %0\n",
      "test");
  const StepExample step = step_example(decoder);
  EXPECT_EQ(step.inputs.size(), 2U);
  EXPECT_EQ(step.inputs.at("input_ids").numel(), 1);
  EXPECT_EQ(step.sizes.at("tokens"), 1);
  EXPECT_EQ(step.sizes.count("sources"), 0U);
  const graph::Graph encoder_decoder = graph::parse(
      "shardpipe-graph 1\ndimension sources\ninput %0 \"source_ids\": int64[sources]\noutput \"logits\" %0\n", "test");
  EXPECT_EQ(
      step_example(encoder_decoder).inputs.at("source_ids").numel(), step_example(encoder_decoder).sizes.at("sources"));
}

}  // namespace
}  // namespace shardpipe::generation
