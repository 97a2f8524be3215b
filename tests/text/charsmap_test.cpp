#include "text/charsmap.h"

#include "tokenizer_fixture.h"

namespace shardpipe::text {
namespace {

// The trie of "a" -> "xy" and nothing else: root 0, its child at 1 ^ 'a', the value next to that.
std::string example() {
  std::vector<uint32_t> units(256, 0);
  units[0] = 1U << 10;
  const uint32_t child = 1 ^ 'a';
  const uint32_t leaf = 200;
  units[child] = (child ^ leaf) << 10 | 1U << 8 | 'a';
  units[leaf] = 1U << 31 | 1;
  std::string out;
  const auto append = [&](uint32_t value) {
    for (int i = 0; i < 4; ++i) {
      out.push_back(static_cast<char>(static_cast<unsigned char>(value >> (8 * i))));
    }
  };
  append(4 * 256);
  for (const uint32_t unit : units) {
    append(unit);
  }
  return out + std::string("\0xy\0", 4);
}

TEST(Charsmap, ReplacesByCluster) {
  const Charsmap map(example(), "a test");
  EXPECT_EQ(map.normalize("bab"), "bxyb");
  // As in the package a short cluster goes as a whole, even where only its beginning is in the table.
  EXPECT_EQ(map.normalize("ba\u0301b"), "bxyb");
  EXPECT_EQ(map.normalize("a\u0301\u0301\u0301"), "xy\u0301\u0301\u0301");
  EXPECT_EQ(map.normalize(""), "");
}

TEST(Charsmap, SurvivesDamage) {
  const std::string whole = example();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const char byte : {'\xFF', '\x00', 'a'}) {
      for (std::string bytes : {whole.substr(0, i), whole}) {
        if (i < bytes.size()) {
          bytes[i] = byte;
        }
        try {
          EXPECT_TRUE(shardpipe::text::Charsmap(bytes, "a test").normalize("aba\u0301zé").size() < 100);
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::input) << error.what();
        }
      }
    }
  }
}

TEST(Charsmap, Base64) {
  EXPECT_EQ(decode_base64("", "x"), "");
  EXPECT_EQ(decode_base64("TQ==", "x"), "M");
  EXPECT_EQ(decode_base64("TWE=", "x"), "Ma");
  EXPECT_EQ(decode_base64("TWFu/+8=", "x"), "Man\xFF\xEF");
}

TEST(CharsmapErrors, Refuses) {
  expect_error(ErrorCode::input, "x is damaged: a trie of 0 bytes in 3 bytes", [] { Charsmap("abc", "x"); });
  expect_error(ErrorCode::input, "x is damaged: a trie of 8 bytes in 5 bytes", [] {
    Charsmap(std::string("\x08\0\0\0a", 5), "x");
  });
  expect_error(ErrorCode::input, "x is damaged: its replacements are no UTF-8", [] {
    Charsmap(std::string("\0\0\0\0\xFF", 5), "x");
  });
  for (const char* text : {"TQ=", "T", "TQ=a", "===="}) {
    expect_error(ErrorCode::input, "x is no base64", [&] { decode_base64(text, "x"); });
  }
  expect_error(ErrorCode::input, "x is no base64: byte 1 of it is '?'", [] { decode_base64("T?==", "x"); });
}

}  // namespace
}  // namespace shardpipe::text
