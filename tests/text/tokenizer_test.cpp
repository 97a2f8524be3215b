#include "text/tokenizer.h"

#include <thread>

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

using ::testing::ElementsAre;

Json with_template() {
  Json json = letters();
  json["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"e", 3}}, {"sep", {"r", 4}}};
  return json;
}

TEST(Tokenizer, AddsSpecialTokensUnlessTold) {
  const auto tokenizer = load(with_template());
  EXPECT_THAT(tokenizer->encode("low"), ElementsAre(3, 8, 4));
  EXPECT_THAT(tokenizer->encode("low", false), ElementsAre(8));
  EXPECT_THAT(tokenizer->encode(""), ElementsAre(3, 4));
}

TEST(Tokenizer, TakesInvalidBytesForReplacementCharacters) {
  Json json = letters();
  json["model"]["vocab"]["\uFFFD"] = 70;
  EXPECT_THAT(load(json)->encode("l\xFF\xF0\x9F\x98o"), ElementsAre(0, 70, 70, 1));
}

TEST(Tokenizer, TakesNulForACharacter) {
  Json json = letters();
  json["model"]["vocab"][std::string(1, '\0')] = 70;
  EXPECT_THAT(load(json)->encode(std::string_view("l\0o", 3)), ElementsAre(0, 70, 1));
}

TEST(Tokenizer, ThreadsShareOne) {
  const auto tokenizer = load(with_template());
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 200; ++k) {
        good += tokenizer->encode("lower low") == tokenizer->encode("lower low") ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(good, 800);
}

// Expected values: the package's rules, see utils/truncation.rs; compared with it in tokenizer_reference.
TEST(Tokenizer, Truncates) {
  Json json = with_template();
  json["truncation"] = {{"direction", "Right"}, {"max_length", 4}, {"strategy", "LongestFirst"}, {"stride", 0}};
  EXPECT_THAT(load(json)->encode("wsl"), ElementsAre(3, 2, 5, 4));
  EXPECT_THAT(load(json)->encode("wslws", false), ElementsAre(2, 5, 0, 2));
  json["truncation"]["direction"] = "Left";
  EXPECT_THAT(load(json)->encode("wsl"), ElementsAre(3, 5, 0, 4));
  json["truncation"].erase("direction");  // right
  json["truncation"]["strategy"] = "OnlyFirst";
  EXPECT_THAT(load(json)->encode("wsl"), ElementsAre(3, 2, 5, 4));
  json["truncation"]["max_length"] = 2;
  EXPECT_THAT(load(json)->encode("wsl"), ElementsAre(3, 4));
}

TEST(Tokenizer, Pads) {
  Json json = letters();
  json["padding"] = {
      {"strategy", {{"Fixed", 4}}}, {"direction", "Left"}, {"pad_to_multiple_of", nullptr}, {"pad_id", 9}};
  EXPECT_THAT(load(json)->encode("ls"), ElementsAre(9, 9, 0, 5));
  EXPECT_THAT(load(json)->encode("lslsl"), ElementsAre(0, 5, 0, 5, 0));
  json["padding"]["strategy"] = "BatchLongest";
  json["padding"]["direction"] = "Right";
  EXPECT_THAT(load(json)->encode("ls"), ElementsAre(0, 5));
  json["padding"]["pad_to_multiple_of"] = 3;
  EXPECT_THAT(load(json)->encode("ls"), ElementsAre(0, 5, 9));
}

template <typename Change>
void refuses(const std::string& message, Change change, ErrorCode code = ErrorCode::input) {
  Json json = with_template();
  json["truncation"] = {{"direction", "Right"}, {"max_length", 4}, {"strategy", "LongestFirst"}, {"stride", 0}};
  json["padding"] = {{"strategy", "BatchLongest"}, {"direction", "Left"}, {"pad_id", 9}};
  change(json);
  expect_error(code, message, [&] { load(json)->encode("lsls"); });
}

TEST(TokenizerErrors, Refuses) {
  refuses(
      "has the unsupported version \"2.0\"", [](Json& j) { j["version"] = "2.0"; }, ErrorCode::usage);
  refuses("model must be an object, is number", [](Json& j) { j["model"] = 3; });
  refuses(".model must be given, is missing", [](Json& j) { j.erase("model"); });
  refuses("tokenizer.json must be an object, is array", [](Json& j) { j = Json::array(); });
  refuses("truncation.strategy \"Best\" is unknown", [](Json& j) { j["truncation"]["strategy"] = "Best"; });
  refuses("truncation.direction must be \"Left\" or \"Right\"", [](Json& j) { j["truncation"]["direction"] = "Up"; });
  refuses("truncation.strategy is OnlySecond, but there is no second text", [](Json& j) {
    j["truncation"]["strategy"] = "OnlySecond";
  });
  refuses("truncation.stride is 2, must be below the 2 tokens that are left", [](Json& j) {
    j["truncation"]["stride"] = 2;
  });
  refuses(
      "truncation.max_length is 1, but 2 special tokens are added", [](Json& j) { j["truncation"]["max_length"] = 1; });
  refuses("padding.strategy must be \"BatchLongest\" or {\"Fixed\": length}", [](Json& j) {
    j["padding"]["strategy"] = 1;
  });
  refuses("padding is above 1048576 tokens", [](Json& j) { j["padding"]["strategy"] = {{"Fixed", 1ULL << 60}}; });
  refuses("padding.direction must be a string, is missing", [](Json& j) { j["padding"].erase("direction"); });
}

TEST(TokenizerErrors, SurvivesDamage) {
  // Any cut or changed byte gives an error or a tokenizer, never a crash.
  const std::string whole = with_template().dump();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const std::string& text : {whole.substr(0, i), whole.substr(0, i) + "9" + whole.substr(i + 1)}) {
      try {
        load(text)->encode("lower");
      } catch (const Error& error) {
        EXPECT_TRUE(error.code() == ErrorCode::input || error.code() == ErrorCode::usage) << error.what();
      }
    }
  }
}

}  // namespace
}  // namespace shardpipe::text
