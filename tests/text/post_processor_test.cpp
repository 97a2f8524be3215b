#include "text/post_processor.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

Encoding processed(const Json& json, std::vector<Encoding> texts, bool add = true) {
  Encoding out;
  for (const Encoding& part : make_post_processor({json, "post_processor"})->process(std::move(texts), add)) {
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

Json special(const char* id) {
  return {{"SpecialToken", {{"id", id}, {"type_id", 0}}}};
}

Json text(const char* id) {
  return {{"Sequence", {{"id", id}, {"type_id", 0}}}};
}

Json example() {
  return {
      {"type", "TemplateProcessing"},
      {"single", {special("[CLS]"), text("A"), special("[SEP]")}},
      {"pair", {text("B"), special("[SEP]"), text("A")}},
      {"special_tokens",
       {{"[CLS]", {{"id", "[CLS]"}, {"ids", {1}}, {"tokens", {"[CLS]"}}}},
        {"[SEP]", {{"id", "[SEP]"}, {"ids", {2, 3}}, {"tokens", {"[SEP]", "!"}}}}}}};
}

TEST(PostProcessor, Templates) {
  EXPECT_EQ(processed(example(), {{7, 8}}), (Encoding{1, 7, 8, 2, 3}));
  EXPECT_EQ(processed(example(), {{7, 8}}, false), (Encoding{7, 8}));
  EXPECT_EQ(processed(example(), {{7}, {8}}), (Encoding{8, 2, 3, 7}));
  const auto processor = make_post_processor({example(), "x"});
  EXPECT_EQ(processor->added_tokens(false), 3U);
  EXPECT_EQ(processor->added_tokens(true), 2U);
}

TEST(PostProcessor, BertAndRoberta) {
  const Json bert = {{"type", "BertProcessing"}, {"cls", {"[CLS]", 1}}, {"sep", {"[SEP]", 2}}};
  EXPECT_EQ(processed(bert, {{7}}), (Encoding{1, 7, 2}));
  EXPECT_EQ(processed(bert, {{7}, {8}}), (Encoding{1, 7, 2, 8, 2}));
  EXPECT_EQ(processed(bert, {{7}}, false), (Encoding{7}));
  const Json roberta = {{"type", "RobertaProcessing"}, {"cls", {"<s>", 1}}, {"sep", {"</s>", 2}}};
  EXPECT_EQ(processed(roberta, {{7}, {8}}), (Encoding{1, 7, 2, 2, 8, 2}));
  EXPECT_EQ(make_post_processor({roberta, "x"})->added_tokens(true), 4U);
  EXPECT_EQ(make_post_processor({bert, "x"})->added_tokens(false), 2U);
}

TEST(PostProcessor, Sequences) {
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}};
  const Json json = {{"type", "Sequence"}, {"processors", {bytes, example()}}};
  EXPECT_EQ(processed(json, {{7}}), (Encoding{1, 7, 2, 3}));
  EXPECT_EQ(make_post_processor({json, "x"})->added_tokens(false), 3U);
}

template <typename Change>
void refuses(const std::string& message, Change change) {
  Json json = example();
  change(json);
  expect_error(ErrorCode::input, message, [&] { make_post_processor({json, "p"}); });
}

TEST(PostProcessorErrors, Refuses) {
  refuses("p.special_tokens.[CLS].ids must be integers from 0", [](Json& j) {
    j["special_tokens"]["[CLS]"]["ids"] = {-1};
  });
  refuses(
      "p.special_tokens.[CLS].ids must be integers from 0", [](Json& j) { j["special_tokens"]["[CLS]"]["ids"] = 1; });
  refuses("p.special_tokens.[CLS].ids must be given", [](Json& j) { j["special_tokens"]["[CLS]"].erase("ids"); });
  refuses("p.single[0].SpecialToken.id \"[MASK]\" is not among the special_tokens", [](Json& j) {
    j["single"][0] = special("[MASK]");
  });
  refuses("p.single[1].Sequence.id is \"B\", must be \"A\"", [](Json& j) { j["single"][1] = text("B"); });
  refuses("p.pair[0].Sequence.id is \"C\", must be \"A\" or \"B\"", [](Json& j) { j["pair"][0] = text("C"); });
  expect_error(ErrorCode::input, "p.sep must be [token, id], is [\"x\",-1]", [] {
    make_post_processor({{{"type", "BertProcessing"}, {"cls", {"x", 1}}, {"sep", {"x", -1}}}, "p"});
  });
  expect_error(ErrorCode::usage, "p has the unsupported type \"Magic\"", [] {
    make_post_processor({{{"type", "Magic"}}, "p"});
  });
  expect_error(ErrorCode::usage, "follows another template: it would get 3 parts, takes 1 or 2", [] {
    processed({{"type", "Sequence"}, {"processors", {example(), example()}}}, {{7}});
  });
}

}  // namespace
}  // namespace shardpipe::text
