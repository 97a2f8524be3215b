#include "text/word_piece.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace shardpipe::text {

WordPiece::WordPiece(const Fields& fields, TokenizerFile& file)
    : where_(fields.where()),
      vocabulary_(std::move(file.vocabulary)),
      unknown_(fields.string("unk_token")),
      prefix_(fields.string("continuing_subword_prefix")),
      max_chars_(fields.size("max_input_chars_per_word")) {
  if (!file.has_vocabulary) {
    throw_input("{} has no vocab", where_);
  }
}

bool WordPiece::find_parts(std::string_view word, std::vector<int64_t>& ids) const {
  std::string part;
  for (size_t begin = 0; begin < word.size();) {
    // No token is longer than the longest one.
    part = begin > 0 ? prefix_ : std::string();
    const size_t decoration = part.size();
    const size_t room = vocabulary_.longest() - std::min(vocabulary_.longest(), decoration);
    size_t end = std::min(word.size(), begin + room);
    while (end > begin && end < word.size() && (static_cast<unsigned char>(word[end]) & 0xC0) == 0x80) {
      --end;
    }
    part.append(word.substr(begin, end - begin));
    std::optional<uint32_t> found;
    while (end > begin && !(found = vocabulary_.find(part))) {
      end = last_char(word, end);
      part.resize(decoration + end - begin);
    }
    if (!found) {
      return false;
    }
    ids.push_back(*found);
    begin = end;
  }
  return true;
}

void WordPiece::tokenize(std::string_view piece, std::vector<int64_t>& ids) const {
  const auto chars = static_cast<uint64_t>(
      std::count_if(piece.begin(), piece.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
  const size_t before = ids.size();
  if (chars <= max_chars_ && find_parts(piece, ids)) {
    return;
  }
  ids.resize(before);
  const std::optional<uint32_t> unknown = vocabulary_.find(unknown_);
  if (!unknown) {
    throw_input("{}.unk_token {:?} is not in the vocabulary, but the text needs it", where_, unknown_);
  }
  ids.push_back(*unknown);
}

}  // namespace shardpipe::text
