#include "text/post_processor.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

using Ids = std::vector<int64_t>;

Encoding encoded(const Json& json, const std::vector<Ids>& texts, bool add = true) {
  std::vector<Encoding> encodings;
  for (const Ids& ids : texts) {
    encodings.push_back(Encoding::of(ids, static_cast<int64_t>(encodings.size()), false));
  }
  Encoding out;
  for (const Encoding& part : make_post_processor({json, "post_processor"})->process(std::move(encodings), add)) {
    out.append(part);
  }
  return out;
}

Ids processed(const Json& json, const std::vector<Ids>& texts, bool add = true) {
  return encoded(json, texts, add).ids;
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
  EXPECT_EQ(processed(example(), {{7, 8}}), (Ids{1, 7, 8, 2, 3}));
  EXPECT_EQ(processed(example(), {{7, 8}}, false), (Ids{7, 8}));
  EXPECT_EQ(processed(example(), {{7}, {8}}), (Ids{8, 2, 3, 7}));
  const auto processor = make_post_processor({example(), "x"});
  EXPECT_EQ(processor->added_tokens(false), 3U);
  EXPECT_EQ(processor->added_tokens(true), 2U);
}

TEST(PostProcessor, BertAndRoberta) {
  const Json bert = {{"type", "BertProcessing"}, {"cls", {"[CLS]", 1}}, {"sep", {"[SEP]", 2}}};
  EXPECT_EQ(processed(bert, {{7}}), (Ids{1, 7, 2}));
  EXPECT_EQ(processed(bert, {{7}, {8}}), (Ids{1, 7, 2, 8, 2}));
  EXPECT_EQ(processed(bert, {{7}}, false), (Ids{7}));
  const Json roberta = {{"type", "RobertaProcessing"}, {"cls", {"<s>", 1}}, {"sep", {"</s>", 2}}};
  EXPECT_EQ(processed(roberta, {{7}, {8}}), (Ids{1, 7, 2, 2, 8, 2}));
  EXPECT_EQ(make_post_processor({roberta, "x"})->added_tokens(true), 4U);
  EXPECT_EQ(make_post_processor({bert, "x"})->added_tokens(false), 2U);
}

TEST(PostProcessor, TypesAndMasks) {
  const Json bert = {{"type", "BertProcessing"}, {"cls", {"[CLS]", 1}}, {"sep", {"[SEP]", 2}}};
  const Encoding pair = encoded(bert, {{7}, {8, 9}});
  EXPECT_EQ(pair.type_ids, (Ids{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(pair.special_tokens_mask, (Ids{1, 0, 1, 0, 0, 1}));
  EXPECT_EQ(pair.attention_mask, Ids(6, 1));
  Json json = example();
  json["pair"][0]["Sequence"]["type_id"] = 5;
  EXPECT_EQ(encoded(json, {{7}, {8, 9}}).type_ids, (Ids{5, 5, 0, 0, 0}));
  const Json roberta = {{"type", "RobertaProcessing"}, {"cls", {"<s>", 1}}, {"sep", {"</s>", 2}}};
  EXPECT_EQ(encoded(roberta, {{7}, {8}}, false).type_ids, (Ids{0, 0}));
}

TEST(PostProcessor, Sequences) {
  const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}};
  const Json json = {{"type", "Sequence"}, {"processors", {bytes, example()}}};
  EXPECT_EQ(processed(json, {{7}}), (Ids{1, 7, 2, 3}));
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
  refuses("p.single[0].SpecialToken.type_id must be an integer from 0", [](Json& j) {
    j["single"][0]["SpecialToken"]["type_id"] = -1;
  });
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
