#include "checkpoint/names.h"

#include <ATen/ATen.h>

#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_files.h"

namespace shardpipe::checkpoint {
namespace {

class Names : public ::testing::Test {
 protected:
  // A checkpoint of float tensors of shape [2] with these names.
  std::shared_ptr<const Checkpoint> make(const std::vector<std::string>& names) {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const std::string& name : names) {
      tensors.emplace_back(name, at::full({2}, static_cast<double>(tensors.size())));
    }
    write_safetensors(folder_ / "m.safetensors", tensors);
    return Checkpoint::open(folder_ / "m.safetensors");
  }
  static std::vector<WantedTensor> want(const std::vector<std::string>& names) {
    std::vector<WantedTensor> wanted;
    for (const std::string& name : names) {
      wanted.push_back({name, {2}});
    }
    return wanted;
  }
  TestFolder folder_;
};

using Strings = std::vector<std::string>;

TEST_F(Names, ExactNamesComeFirst) {
  const auto resolution = resolve_names(*make({"a", "model.a", "transformer.a"}), want({"model.a"}), {});
  EXPECT_EQ(resolution.source.at("model.a"), "model.a");
  EXPECT_EQ(resolution.surplus, (Strings{"a", "transformer.a"}));
}

TEST_F(Names, PrefixesAreAddedAndTakenOff) {
  const auto bare = make({"embed", "lm_head"});
  EXPECT_EQ(resolve_names(*bare, want({"model.embed", "lm_head"}), {}).source.at("model.embed"), "embed");
  const auto headed = make({"gpt_neox.embed"});
  NameRules rules;
  rules.prefixes = {"gpt_neox."};
  EXPECT_EQ(resolve_names(*headed, want({"embed"}), rules).source.at("embed"), "gpt_neox.embed");
  rules.prefixes = {};
  expect_error(ErrorCode::input, {R"("embed" is missing)", "prefixes tried: none"}, [&] {
    resolve_names(*headed, want({"embed"}), rules);
  });
}

// The encoder's norm must not be taken for the decoder's because one of them is missing.
TEST_F(Names, AWantedNameIsNotTakenThroughAPrefix) {
  const auto checkpoint = make({"norm"});
  expect_error(ErrorCode::input, {R"("model.norm" is missing)"}, [&] {
    resolve_names(*checkpoint, want({"norm", "model.norm"}), {});
  });
  expect_error(ErrorCode::input, {R"("norm")", R"("model.norm" and "transformer.norm")", "not tied", "m.saf"}, [&] {
    resolve_names(*checkpoint, want({"model.norm", "transformer.norm"}), {});
  });
}

TEST_F(Names, AnyTiedNameServesAll) {
  NameRules rules;
  rules.tied = {{"model.embed", "lm_head", "decoder.embed"}};
  const auto wanted = want({"lm_head", "model.embed", "decoder.embed"});
  for (const Strings& present : std::vector<Strings>{{"model.embed"}, {"embed"}, {"lm_head"}, {"decoder.embed"}}) {
    const auto resolution = resolve_names(*make(present), wanted, rules);
    EXPECT_EQ(resolution.source.size(), 3u);
    for (const auto& [name, source] : resolution.source) {
      EXPECT_EQ(source, present[0]) << name;
    }
    EXPECT_TRUE(resolution.surplus.empty());
  }
  // Twice present: the first of the group serves, also a part of the model that holds only the other; no surplus.
  const auto twice = make({"lm_head", "embed"});
  EXPECT_EQ(resolve_names(*twice, want({"lm_head"}), rules).source.at("lm_head"), "embed");
  EXPECT_TRUE(resolve_names(*twice, wanted, rules).surplus.empty());
  expect_error(ErrorCode::input, {R"("lm_head" is missing)", R"(tied names: "model.embed", "lm_head")"}, [&] {
    resolve_names(*make({"x"}), wanted, rules);
  });
}

TEST_F(Names, MissingTensorsNameTheNearest) {
  const auto checkpoint = make({"model.layers.0.q_proj", "model.layers.0.k_proj", "other"});
  expect_error(
      ErrorCode::input,
      {R"(weight "model.layers.0.v_proj" is missing)", "m.safetensors", R"(prefixes tried: "model.", "transformer.")",
       R"("model.layers.0.k_proj", "model.layers.0.q_proj")", "config.json"},
      [&] { resolve_names(*checkpoint, want({"model.layers.0.v_proj"}), {}); });
  expect_error(ErrorCode::input, {R"(buffer "running_mean" is missing)"}, [&] {
    resolve_names(*checkpoint, {{"running_mean", {2}, WantedKind::buffer}}, {});
  });
  expect_error(ErrorCode::input, {R"(weight "a" is missing)", "0 tensors include none"}, [&] {
    resolve_names(*make({}), want({"a"}), {});
  });
  const auto resolution = resolve_names(*checkpoint, {{"rotary.inv_freq", {2}, WantedKind::optional}}, {});
  EXPECT_EQ(resolution.absent, (Strings{"rotary.inv_freq"}));
}

TEST_F(Names, ShapesMustBeEqual) {
  const auto checkpoint = make({"w"});
  expect_error(ErrorCode::input, {R"("w" has shape [2])", "m.safetensors", R"("model.w" has shape [2, 1])"}, [&] {
    resolve_names(*checkpoint, {{"model.w", {2, 1}}}, {});
  });
}

TEST_F(Names, SurplusIsListedAndWarnedOfOnce) {
  NameRules rules;
  rules.ignored = {"*.attn.bias", "*.inv_freq"};
  const auto checkpoint =
      make({"h.0.attn.bias", "h.0.attn.c_attn.bias", "rotary.inv_freq", "s1", "s2", "s3", "s4", "s5", "w"});
  const auto resolution = resolve_names(*checkpoint, want({"w"}), rules);
  EXPECT_EQ(resolution.surplus, (Strings{"h.0.attn.c_attn.bias", "s1", "s2", "s3", "s4", "s5"}));
  testing::internal::CaptureStderr();
  warn_of_surplus(resolution, *checkpoint);
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("6 of 9 tensors"), std::string::npos) << text;
  EXPECT_NE(text.find("m.safetensors"), std::string::npos) << text;
  EXPECT_NE(text.find(R"("s3", "s4", and 1 more)"), std::string::npos) << text;
  testing::internal::CaptureStderr();
  warn_of_surplus({}, *checkpoint);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(Names, TiedByContentDropsDifferentCopies) {
  const at::Tensor values = at::arange(4, at::kFloat);
  write_safetensors(
      folder_ / "m.safetensors", {{"embed", values},
                                  {"head", values},
                                  {"other", values + 1},
                                  {"half", values.to(at::kHalf)},
                                  {"long", at::ones({9})}});
  const auto checkpoint = Checkpoint::open(folder_ / "m.safetensors");
  NameRules rules;
  rules.tied = {{"model.embed", "head", "other", "absent", "half"}, {"embed", "other"}, {"embed", "long"}, {"x", "y"}};
  EXPECT_EQ(
      tied_by_content(*checkpoint, rules),
      (std::vector<Strings>{{"model.embed", "head", "absent", "half"}, {"x", "y"}}));
}

TEST(Pattern, StarsMatchAnyText) {
  EXPECT_TRUE(matches_pattern("*.attn.bias", "transformer.h.0.attn.bias"));
  EXPECT_FALSE(matches_pattern("*.attn.bias", "h.0.attn.c_attn.bias"));
  EXPECT_FALSE(matches_pattern("*.attn.bias", "h.0.attn.bias.x"));
  EXPECT_TRUE(matches_pattern("a*b*c", "aXbbYc"));
  EXPECT_FALSE(matches_pattern("a*b*c", "aXc"));
  EXPECT_TRUE(matches_pattern("*", ""));
  EXPECT_TRUE(matches_pattern("", ""));
  EXPECT_FALSE(matches_pattern("", "a"));
  EXPECT_TRUE(matches_pattern("abc", "abc"));
  EXPECT_FALSE(matches_pattern(join({std::string(50, '*'), "b"}), std::string(5000, 'a')));  // no blow-up
}

}  // namespace
}  // namespace shardpipe::checkpoint
