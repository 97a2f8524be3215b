#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/fields.h"
#include "text/regex.h"

namespace shardpipe::text {

/// A part of the text on its way through the tokenizer: an added token that was found, or text still to be split.
struct Piece {
  static constexpr int64_t kText = -1;
  std::string text;
  int64_t id = kText;
  bool start = false;  // it begins with the first character of the whole text
};

/// Splits the text parts; added tokens pass.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void split(std::vector<Piece>& pieces) const = 0;
};

/// What becomes of the matches of a pattern that text is split by.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// Appends the parts of `text` to `out`; empty parts are dropped, the one at its beginning is marked as `start`.
void split_text(
    std::string_view text, const std::vector<Segment>& segments, SplitBehavior behavior, std::vector<Piece>& out);

/// The pre-tokenizer that a "pre_tokenizer" object describes. Throws Error(usage) for a type that is not supported,
/// Error(input) for bad fields.
std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const Fields& fields);

}  // namespace shardpipe::text
