#include "text/chat_template.h"

#include <cstdint>
#include <filesystem>

#include "base/file.h"
#include "jinja_support.h"

namespace shardpipe::text {
namespace {

class ChatFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ("chat_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) { write_file(folder_ / name, text); }
  void expect_failure(const std::string& message, ErrorCode code) {
    try {
      ChatTemplate::from_folder(folder_);
      ADD_FAILURE() << "expected: " << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_NE(error.message().find(message), std::string::npos) << error.what();
    }
  }

  std::filesystem::path folder_;
};

const Json kMessages = Json::parse(R"([{"role": "user", "content": "hi"}])");

}  // namespace

TEST_F(ChatFolder, ReadsTemplateAndTokens) {
  write(
      "tokenizer_config.json",
      R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null,
            "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}"})");
  EXPECT_EQ(ChatTemplate::from_folder(folder_).apply(kMessages, true), "<s>hi</s>");
  write("special_tokens_map.json", R"({"eos_token": {"content": "<e>"}})");
  EXPECT_EQ(ChatTemplate::from_folder(folder_).apply(kMessages, true), "<s>hi<e>");
  write("chat_template.jinja", "{{ add_generation_prompt }}{{ tools }}");
  EXPECT_EQ(ChatTemplate::from_folder(folder_).apply(kMessages, true), "TrueNone");
}

TEST_F(ChatFolder, ChoosesAmongNamedTemplates) {
  write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]})");
  const auto chat = ChatTemplate::from_folder(folder_);
  EXPECT_EQ(chat.apply(kMessages, true), "D");
  EXPECT_EQ(chat.apply(kMessages, true, {{"tools", Json::array()}}), "T");
  write("tokenizer_config.json", R"({"chat_template": {"tool_use": "T"}})");
  try {
    ChatTemplate::from_folder(folder_).apply(kMessages, true);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
    EXPECT_EQ(error.message(), "the model has a chat template for conversations with tools only");
  }
}

TEST_F(ChatFolder, NamesWhatIsWrongWithTheFiles) {
  expect_failure("no chat template in " + folder_.string(), ErrorCode::usage);
  write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  expect_failure("no chat template named \"default\" in", ErrorCode::usage);
  write("tokenizer_config.json", "[]");
  expect_failure("tokenizer_config.json is not a JSON object", ErrorCode::input);
  write("tokenizer_config.json", R"({"chat_template": 5})");
  expect_failure("is neither a text nor a list of templates", ErrorCode::input);
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default"}]})");
  expect_failure("an entry of the list lacks \"name\" or \"template\"", ErrorCode::input);
  write("tokenizer_config.json", R"({"chat_template": {"default": 1}})");
  expect_failure("the template \"default\" is not a text", ErrorCode::input);
  write("chat_template.jinja", "a\n{% if %}");
  expect_failure("line 2 of the chat template, " + folder_.string(), ErrorCode::input);
  write("chat_template.jinja", "\xff");
  expect_failure("the chat template is not valid UTF-8", ErrorCode::input);
}

TEST(ChatTemplate, RefusesMessagesOfAnotherShape) {
  const auto chat = ChatTemplate::from_source("x");
  for (const Json& messages : {Json("text"), Json::array({"text"})}) {
    try {
      chat.apply(messages, false);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage);
      EXPECT_NE(
          error.message().find(
              messages.is_array() ? "message 0 of the chat is not an object" : "a chat is a list of messages"),
          std::string::npos);
    }
  }
  Json deep = "x";
  for (int i = 0; i < 600; ++i) {
    deep = Json::array({deep});
  }
  EXPECT_THROW(chat.apply(kMessages, false, {{"deep", deep}}), Error);
  EXPECT_THROW(chat.apply(kMessages, false, {{"n", UINT64_MAX}}), Error);
}

TEST(ChatTemplate, RaiseExceptionIsARefusalOfTheRequest) {
  expect_failures({
      {"a\n{{ raise_exception('Only ' ~ s) }}",
       "the chat template refuses the conversation: Only Hello, line 2 of the chat template", ErrorCode::usage},
  });
}

// A template comes from a downloaded folder: none may run or grow without bound, nor end the process.
TEST(ChatTemplate, HostileTemplatesEndInAnError) {
  const std::string spent = "its budget of 20000000 steps is spent";
  expect_failures({
      {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", spent},
      {"{{ 'a' * 9000000000000000000 }}", spent},
      {"{{ [1] * 9000000000000000000 }}", spent},
      {"{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", spent},
      {"{% set ns = namespace(x=[1, 2]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
       spent},
      {"{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = "
       "[ns.y, ns.y] %}{% endfor %}"
       "{{ ns.x == ns.y }}",
       spent},
      {"{{ ('a' * 9999999).replace('a', 'b' * 999999) }}", spent},
      {"{{ '%9999999999d' % 1 }}", spent},
      {"{{ 'a'|center(99999999999) }}", spent},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself deeper than 1500 levels"},
      {"{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", "calls itself deeper than 1500 levels"},
      {"{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}",
       "nested deeper than 500 levels"},
      {"{% set ns = namespace(x=l) %}{% for i in range(9999) %}{% set ns.x = ns.x|map('string') %}{% endfor %}",
       "nested deeper than 500 levels"},
      {"{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", "cannot print a value nested deeper than 500 levels"},
      {"{{ range(100001) }}", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000)."},
      {"{{ 9223372036854775807 + 1 }}", "an integer of the chat template is beyond 64 bits"},
      {"{{ '%.999f' % 1.5 }}", "a precision of 999 digits is beyond the limit of 300"},
  });
}

}  // namespace shardpipe::text
