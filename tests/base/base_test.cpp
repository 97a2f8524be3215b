#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"
#include "support/errors.h"

namespace shardpipe {
namespace {

using test::error_of;
using ::testing::HasSubstr;

TEST(Bytes, ReadsUnits) {
  EXPECT_EQ(parse_bytes("300000", "n"), 300000);
  EXPECT_EQ(parse_bytes("512K", "n"), 512000);
  EXPECT_EQ(parse_bytes("1.5GiB", "n"), int64_t{3} << 29);
  EXPECT_EQ(parse_bytes("2Mi", "n"), 2 << 20);
  EXPECT_EQ(parse_bytes("1TB", "n"), 1'000'000'000'000);
  for (const char* text : {"", "K", "-1", "0", "1X", "1 K", "1KBB", "1e30T", "nan", "1Bi"}) {
    try {
      parse_bytes(text, "--memory");
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage);
      EXPECT_THAT(error.message(), HasSubstr("--memory is \"" + std::string(text) + "\", must be a number of bytes"));
    }
  }
}

class Folder : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "shardpipe-base-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(path_); }
  std::filesystem::path path_;
};

TEST(ErrorLine, HasCodeMessageAndHint) {
  Error error(ErrorCode::usage, "--pp is 0, must be at least 1", "use --pp 1");
  EXPECT_STREQ(error.what(), "error[usage]: --pp is 0, must be at least 1; hint: use --pp 1");
  error.add_context("rank 1");
  EXPECT_STREQ(error.what(), "error[usage]: --pp is 0, must be at least 1, rank 1; hint: use --pp 1");
}

TEST(ErrorLine, IsOneLineWithoutControlCharacters) {
  EXPECT_STREQ(Error(ErrorCode::input, "a\tb\x1b[31m\nsecond line").what(), "error[input]: a b [31m second line");
}

TEST(ErrorCode, HasTheExitStatusOfTheContract) {
  EXPECT_EQ(exit_status(ErrorCode::internal), 1);
  EXPECT_EQ(exit_status(ErrorCode::io), 1);
  EXPECT_EQ(exit_status(ErrorCode::usage), 2);
  EXPECT_EQ(exit_status(ErrorCode::input), 3);
  EXPECT_EQ(exit_status(ErrorCode::rank), 4);
}

TEST(CurrentError, WrapsForeignExceptions) {
  try {
    throw std::runtime_error("first\nsecond");
  } catch (...) {
    EXPECT_STREQ(current_error().what(), "error[internal]: first");
  }
  try {
    throw 3;
  } catch (...) {
    EXPECT_EQ(current_error().code(), ErrorCode::internal);
  }
}

TEST_F(Folder, WriteReplacesWholeFiles) {
  const auto file = path_ / "a.txt";
  write_file(file, "one");
  write_file(file, std::string(1 << 20, 'x'));
  EXPECT_EQ(read_file(file), std::string(1 << 20, 'x'));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path_), {}), 1);
}

TEST_F(Folder, ReadRefusesWhatIsNoFile) {
  EXPECT_THAT(error_of([&] { read_file(path_ / "none"); }).message(), HasSubstr("No such file"));
  EXPECT_THAT(error_of([&] { read_file(path_); }).message(), HasSubstr("not a regular file"));
  EXPECT_EQ(error_of([&] { MappedFile::open(path_ / "none"); }).code(), ErrorCode::input);
}

TEST_F(Folder, WriteNamesTheFileItCannotMake) {
  const Error error = error_of([&] { write_file(path_ / "no" / "a.txt", "x"); });
  EXPECT_EQ(error.code(), ErrorCode::io);
  EXPECT_THAT(error.message(), HasSubstr("a.txt"));
}

TEST_F(Folder, MapsFilesAndEmptyFiles) {
  write_file(path_ / "a", "abc");
  write_file(path_ / "empty", "");
  const auto mapped = MappedFile::open(path_ / "a");
  EXPECT_EQ(mapped->size_bytes(), 3U);
  EXPECT_EQ(static_cast<char>(mapped->bytes()[1]), 'b');
  EXPECT_EQ(MappedFile::open(path_ / "empty")->size_bytes(), 0U);
}

TEST(JsonReader, RefusesHostileText) {
  EXPECT_THAT(error_of([] { parse_json("{\"a\":", "f.json"); }).message(), HasSubstr("bad JSON in f.json"));
  EXPECT_THAT(error_of([] { parse_json("\"\xff\"", "f.json"); }).message(), HasSubstr("bad JSON"));
  const std::string deep(100000, '[');
  EXPECT_THAT(error_of([&] { parse_json(deep, "f.json"); }).message(), HasSubstr("nested deeper than 256"));
  const std::string deep_object = [] {
    std::string text;
    for (int i = 0; i < 300; ++i) {
      text += "{\"a\":";
    }
    return text;
  }();
  EXPECT_THAT(
      error_of([&] { parse_json(deep_object, "f.json", {.refuse_duplicate_keys = true}); }).message(),
      HasSubstr("nested deeper than 256"));
  EXPECT_THAT(
      error_of([] { parse_json(R"({"a":1,"b":{"a":1},"a":2})", "f.json", {.refuse_duplicate_keys = true}); }).message(),
      HasSubstr("key \"a\" appears twice"));
}

TEST(JsonReader, ReadsVeryManyKeysInOrderAndWithoutDelay) {
  constexpr int kCount = 300'000;  // pairs of keys to compare: minutes of work
  std::string text = "{";
  for (int i = 0; i < kCount; ++i) {
    text += fmt::format("\"k{}\": {}, ", i, i);
  }
  text += "\"k7\": \"again\", \"k100000\": \"again\"}";
  const Json json = parse_json(text, "f");
  ASSERT_EQ(json.size(), kCount);
  int i = 0;
  for (const auto& [key, value] : json.items()) {
    ASSERT_EQ(key, fmt::format("k{}", i));
    ASSERT_EQ(value, i == 7 || i == 100'000 ? Json("again") : Json(i));
    ++i;
  }
  EXPECT_THAT(
      error_of([&] { parse_json(text, "f", {.refuse_duplicate_keys = true}); }).message(),
      HasSubstr("\"k7\" appears twice"));
}

TEST(JsonReader, AcceptsBracketsInTextAndCommentsOnRequest) {
  EXPECT_EQ(parse_json(R"({"a":"[[[[{\"["})", "f").at("a"), "[[[[{\"[");
  EXPECT_EQ(parse_json("{/* one */ \"a\": 1}", "f", {.comments = true}).at("a"), 1);
  EXPECT_EQ(error_of([] { parse_json("{/* one */}", "f"); }).code(), ErrorCode::input);
}

}  // namespace
}  // namespace shardpipe
