// Rotary parameters: both spellings, and what must be refused. The values are compared through transformers' logits.
#include "frontend/hf/rotary.h"

#include <ATen/ATen.h>

#include "model_folder.h"

namespace shardpipe::hf {
namespace {

using test::expect_error;

RotaryFrequencies frequencies(const char* json) {
  return rotary_frequencies(Config(Json::parse(json), "config.json"), 12, 128);
}

void refused(const char* json, ErrorCode code, const std::vector<std::string>& parts) {
  SCOPED_TRACE(json);
  expect_error(code, parts, [&] { frequencies(json); });
}

TEST(Rotary, Spellings) {
  const auto same = [](const char* a, const char* b) {
    EXPECT_TRUE(at::equal(frequencies(a).inv_freq, frequencies(b).inv_freq)) << a << " and " << b;
  };
  same("{}", R"({"rope_theta": 10000})");
  same("{}", R"({"rope_scaling": null})");
  same(R"({"rope_theta": 500.0})", R"({"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}})");
  // The inner value wins, and so does the old object where both are there.
  same(R"({"rope_theta": 500.0})", R"({"rope_theta": 7.0, "rope_parameters": {"rope_theta": 500.0}})");
  same(
      R"({"rope_scaling": {"type": "linear", "factor": 2.0}})",
      R"({"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "linear", "factor": 2}})");
  // transformers prefers the outer original_max_position_embeddings.
  same(
      R"({"original_max_position_embeddings": 32,
          "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}})",
      R"({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}})");
  same(
      R"({"rope_scaling": {"type": "yarn", "factor": null, "original_max_position_embeddings": 32}})",
      R"({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}})");
}

TEST(Rotary, Values) {
  const at::Tensor plain = frequencies("{}").inv_freq;
  EXPECT_EQ(plain.scalar_type(), at::kFloat);
  for (int64_t i = 0; i < 6; ++i) {
    const double expected = std::pow(10000.0, -2.0 * static_cast<double>(i) / 12.0);
    EXPECT_NEAR(plain[i].item<double>(), expected, expected * 8 * std::ldexp(1.0, -24));
  }
  EXPECT_TRUE(at::equal(frequencies(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})").inv_freq * 4, plain));
}

TEST(Rotary, EndPosition) {
  EXPECT_EQ(frequencies(R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})").end_position, 128);
  EXPECT_EQ(
      frequencies(R"({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1], "factor": 2.0,
                      "original_max_position_embeddings": 64}})")
          .end_position,
      64);
  EXPECT_EQ(frequencies("{}").end_position, std::nullopt);
}

TEST(Rotary, Errors) {
  refused(
      R"({"rope_scaling": {"type": "mrope", "factor": 2.0}})", ErrorCode::usage,
      {"\"type\" in \"rope_scaling\" of config.json is \"mrope\": known rotary types are default, linear, dynamic, "
       "yarn"});
  refused(
      R"({"rope_parameters": {"rope_type": "foo"}})", ErrorCode::usage,
      {"\"rope_type\" in \"rope_parameters\" of config.json is \"foo\""});
  refused(
      R"({"rope_parameters": {"full_attention": {"rope_theta": 5}}})", ErrorCode::usage,
      {"\"full_attention\" in \"rope_parameters\" of config.json is {\"rope_theta\":5}: rotary parameters by layer "
       "type"});
  refused(
      R"({"partial_rotary_factor": 0.5})", ErrorCode::usage,
      {"\"partial_rotary_factor\" in config.json is 0.5: partial rotary embeddings are not supported yet"});
  refused(
      R"({"rope_scaling": "linear"})", ErrorCode::input, {"\"rope_scaling\" in config.json is \"linear\"; an object"});
  refused(R"({"rope_scaling": {"type": "linear"}})", ErrorCode::input, {"\"factor\" is missing in \"rope_scaling\""});
  refused(R"({"rope_scaling": {"type": "yarn"}})", ErrorCode::input, {"\"factor\" is missing"});
  refused(
      R"({"rope_scaling": {"type": "linear", "factor": 0}})", ErrorCode::input, {"\"factor\"", "is 0; a number from"});
  refused(R"({"rope_theta": -1.0})", ErrorCode::input, {"\"rope_theta\" in config.json is -1.0; a number from 1 to"});
  refused(
      R"({"rope_scaling": {"type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}})",
      ErrorCode::input, {"\"high_freq_factor\"", "is 1.0; a number above low_freq_factor, 4, is expected"});
  refused(
      R"({"rope_scaling": {"type": "longrope", "short_factor": [1.0]}})", ErrorCode::input,
      {"\"short_factor\"", "is [1.0]; a list of 6 numbers from"});
  refused(R"({"rope_scaling": {"type": "longrope"}})", ErrorCode::input, {"\"short_factor\" is missing"});
}

}  // namespace
}  // namespace shardpipe::hf
