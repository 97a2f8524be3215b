#include "base/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace shardpipe {
namespace {

std::span<const std::byte> bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST(Hash, Fnv1aOfTheReference) {
  // Landon Curt Noll's test vectors.
  EXPECT_EQ(fnv1a(""), 0xcbf29ce484222325ULL);
  EXPECT_EQ(fnv1a("a"), 0xaf63dc4c8601ec8cULL);
  EXPECT_EQ(fnv1a("foobar"), 0x85944171f73967e8ULL);
}

TEST(Hash, ContentInPiecesAndChanges) {
  std::string text(1000, 'x');
  ContentHash whole;
  whole.add(bytes(text));
  ContentHash pieces;
  pieces.add(bytes(text.substr(0, 320)));
  pieces.add(bytes(text.substr(320)));
  EXPECT_EQ(whole.value(), pieces.value());
  for (size_t at = 0; at < text.size(); ++at) {
    for (const int bit : {0, 7}) {
      text[at] = static_cast<char>(text[at] ^ (1 << bit));
      ContentHash changed;
      changed.add(bytes(text));
      EXPECT_NE(changed.value(), whole.value());
      text[at] = static_cast<char>(text[at] ^ (1 << bit));
    }
  }
  // Zeros at the end are content.
  ContentHash longer;
  longer.add(bytes(text + std::string(1, '\0')));
  EXPECT_NE(longer.value(), whole.value());
}

}  // namespace
}  // namespace shardpipe
