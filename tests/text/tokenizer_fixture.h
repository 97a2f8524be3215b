#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "text/fields.h"
#include "text/tokenizer.h"

namespace shardpipe::text {

/// A folder that goes away with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "shardpipe-text-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::filesystem::path write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return path_ / name;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// A tokenizer.json with single letters, a few merges and nothing else: "l o w Ġ" and so on.
inline Json letters() {
  Json model = {{"type", "BPE"}, {"vocab", Json::object()}, {"merges", Json::array()}};
  int id = 0;
  for (const char* token : {"l", "o", "w", "e", "r", "s", "Ġ", "lo", "low", "er", "Ġlow", "ower"}) {
    model["vocab"][token] = id++;
  }
  for (const auto& [left, right] : {std::pair("l", "o"), {"lo", "w"}, {"e", "r"}, {"Ġ", "low"}, {"ow", "er"}}) {
    model["merges"].push_back({left, right});
  }
  model["merges"].erase(4);  // "ow" is no token
  return {{"version", "1.0"}, {"added_tokens", Json::array()}, {"model", model}};
}

inline Json added(const std::string& content, const Json& flags = Json::object()) {
  Json token = {{"id", 0},         {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", false}};
  token.update(flags);
  return token;
}

inline std::shared_ptr<const Tokenizer> load(const std::string& json) {
  const TemporaryFolder folder;
  return Tokenizer::from_file(folder.write("tokenizer.json", json));
}

inline std::shared_ptr<const Tokenizer> load(const Json& json) {
  return load(json.dump());
}

/// The tokens of a text, not the ids.
inline std::vector<std::string> tokens(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> out;
  for (const int64_t id : tokenizer.encode(text)) {
    out.push_back(tokenizer.id_to_token(id).value_or("?"));
  }
  return out;
}

/// Expects an Error of the code whose message holds the text.
template <typename Call>
void expect_error(ErrorCode code, const std::string& part, Call call) {
  try {
    call();
    ADD_FAILURE() << "no error, expected: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), std::string(to_string(code))) << error.what();
    EXPECT_THAT(error.what(), ::testing::HasSubstr(part));
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
  }
}

}  // namespace shardpipe::text
