#include "text/decoder.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

using ::testing::ElementsAre;

// The texts that a stream yields for tokens one by one, and what finish() adds.
std::vector<std::string> stream(const Json& decoder, const std::vector<std::string>& list) {
  Json json = letters();
  json["decoder"] = decoder;
  std::vector<int64_t> ids;
  for (const std::string& token : list) {
    json["model"]["vocab"][token] = 100 + ids.size();
    ids.push_back(static_cast<int64_t>(100 + ids.size()));
  }
  const auto tokenizer = load(json);
  StreamDecoder decode(tokenizer);
  std::vector<std::string> out;
  std::string all;
  for (const int64_t id : ids) {
    out.push_back(decode.push(id));
    all += out.back();
  }
  out.push_back(decode.finish());
  EXPECT_EQ(tokenizer->decode(ids), all + out.back());
  return out;
}

const Json kBytes = {{"type", "ByteLevel"}};
const Json kFuse = {{"type", "Fuse"}};

Json replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

Json strip(const char* content, int start, int stop) {
  return {{"type", "Strip"}, {"content", content}, {"start", start}, {"stop", stop}};
}

Json chain(const std::vector<Json>& list) {
  return {{"type", "Sequence"}, {"decoders", list}};
}

TEST(Decoder, JoinsBySpacesWithoutADecoder) {
  EXPECT_THAT(stream(nullptr, {"a", "", "b"}), ElementsAre("a", " ", " b", ""));
}

TEST(Decoder, ByteLevelHoldsUnfinishedCharacters) {
  EXPECT_THAT(stream(kBytes, {"Ġa", "Ã", "©b", "ð", "Ł"}), ElementsAre(" a", "", "éb", "", "", "\uFFFD"));
  EXPECT_THAT(stream(kBytes, {"Ã", "a"}), ElementsAre("", "\uFFFDa", ""));
  EXPECT_THAT(stream(kBytes, {"Ġ漢"}), ElementsAre("Ġ漢", ""));  // no byte character: the token as it is
}

TEST(Decoder, ByteFallbackHoldsRuns) {
  const Json json = {{"type", "ByteFallback"}};
  EXPECT_THAT(stream(json, {"<0xC3>", "<0xA9>", "a", "<0x41>"}), ElementsAre("", "", "éa", "", "A"));
  EXPECT_THAT(stream(json, {"<0xC3>", "<0xC4>", "<0xG1>"}), ElementsAre("", "", "\uFFFD\uFFFD<0xG1>", ""));
}

TEST(Decoder, ReplaceAndStripWorkOnEachToken) {
  EXPECT_THAT(stream(replace("▁", " "), {"▁a▁", "b"}), ElementsAre(" a ", "b", ""));
  EXPECT_THAT(stream(strip("_", 1, 2), {"__a___", "_", "b_"}), ElementsAre("_a_", "", "b", ""));
}

TEST(Decoder, LlamaStreamsBehindTheFirstSpace) {
  const Json json = chain({replace("▁", " "), {{"type", "ByteFallback"}}, kFuse, strip(" ", 1, 0)});
  EXPECT_THAT(
      stream(json, {"▁▁a", "▁b", "<0xE2>", "<0x82>", "<0xAC>", "c"}), ElementsAre(" a", " b", "", "", "", "€c", ""));
}

TEST(Decoder, WaitsWhereTheRestCanChangeTheText) {
  EXPECT_THAT(stream(chain({kFuse, replace("ab", "x")}), {"a", "b"}), ElementsAre("", "", "x"));
  EXPECT_THAT(stream(chain({kFuse, strip("_", 0, 1)}), {"a_", "b_"}), ElementsAre("", "", "a_b"));
  EXPECT_THAT(stream(chain({}), {"a", "b"}), ElementsAre("a", "b", ""));
}

TEST(Decoder, LeavesOutIdsThatNameNoToken) {
  Json json = letters();
  json["decoder"] = kFuse;
  EXPECT_EQ(load(json)->decode(std::vector<int64_t>{0, 999, -1, int64_t{1} << 40, 1}), "lo");
}

TEST(Decoder, WordPieceJoinsAndCleansUp) {
  const Json json = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  EXPECT_THAT(stream(json, {"low", "##er", ".", "n't"}), ElementsAre("low", "er", ".", "n't", ""));
  EXPECT_THAT(
      stream({{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", false}}, {"low", "."}),
      ElementsAre("low", " .", ""));
}

TEST(Decoder, MetaspaceDropsThePrependedSpace) {
  const Json json = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}};
  EXPECT_THAT(stream(json, {"▁a▁b", "▁c"}), ElementsAre("ab", " c", ""));
  EXPECT_THAT(
      stream({{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "never"}}, {"▁a"}),
      ElementsAre(" a", ""));
}

TEST(Decoder, WordSuffixWaitsForTheNextToken) {
  EXPECT_THAT(
      stream({{"type", "BPEDecoder"}, {"suffix", "</w>"}}, {"lo", "w</w>", "x</w>"}), ElementsAre("", "lo", "w ", "x"));
}

TEST(Decoder, CtcDropsRepeatsAndBlanks) {
  const Json json = {{"type", "CTC"}, {"pad_token", "<pad>"}, {"word_delimiter_token", "|"}, {"cleanup", true}};
  Json file = letters();
  file["decoder"] = json;
  file["model"]["vocab"] = {{"<pad>", 0}, {"a", 1}, {"|", 2}};
  file["model"]["merges"] = Json::array();
  EXPECT_EQ(load(file)->decode(std::vector<int64_t>{1, 1, 0, 1, 2, 2, 1}), "aa a");
}

TEST(DecoderErrors, Refuses) {
  expect_error(ErrorCode::input, "decoder.prepend_scheme \"last\" is unknown", [] {
    make_decoder({{{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}}, "decoder"});
  });
  expect_error(ErrorCode::input, "decoder.add_prefix_space is false, but prepend_scheme is \"first\"", [] {
    const Json json = {
        {"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "first"}, {"add_prefix_space", false}};
    make_decoder({json, "decoder"});
  });
  expect_error(ErrorCode::usage, "decoder has the unsupported type \"Magic\"", [] {
    make_decoder({{{"type", "Magic"}}, "decoder"});
  });
  for (const char* content : {"", "ab", "éa"}) {
    expect_error(ErrorCode::input, "decoder.content must be one character", [&] {
      make_decoder({strip(content, 1, 0), "decoder"});
    });
  }
  expect_error(ErrorCode::input, "decoder.start must be an integer of at least 0, is -1", [] {
    make_decoder({strip("a", -1, 0), "decoder"});
  });
}

}  // namespace
}  // namespace shardpipe::text
