#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace shardpipe::text {

/// sentencepiece's precompiled table of replacements: a double-array trie (darts-clone) over what is replaced, and the
/// replacements in one string. Reads any bytes without harm.
class Charsmap {
 public:
  /// From the bytes of normalizer_spec.precompiled_charsmap. Throws Error(input) naming `where`.
  Charsmap(std::string_view bytes, const std::string& where);

  /// Replaces in valid UTF-8, cluster by cluster, as the tokenizers package does with this table.
  std::string normalize(std::string_view text) const;

 private:
  bool replacement(std::string_view text, std::string& out) const;
  std::vector<uint32_t> units_;
  std::string replacements_;  // each ends with a zero
};

/// The bytes of base64 (RFC 4648, padded). Throws Error(input) naming `where`.
std::string decode_base64(std::string_view text, const std::string& where);

}  // namespace shardpipe::text
