#include "text/word_level.h"

#include "base/error.h"

namespace shardpipe::text {

WordLevel::WordLevel(const Fields& fields, TokenizerFile& file)
    : where_(fields.where()), vocabulary_(std::move(file.vocabulary)), unknown_(fields.string("unk_token")) {
  if (!file.has_vocabulary) {
    throw_input("{} has no vocab", where_);
  }
}

void WordLevel::tokenize(std::string_view piece, std::vector<int64_t>& ids) const {
  std::optional<uint32_t> found = vocabulary_.find(piece);
  if (!found) {
    found = vocabulary_.find(unknown_);
  }
  if (!found) {
    throw_input("{}.unk_token {:?} is not in the vocabulary, but the text needs it", where_, unknown_);
  }
  ids.push_back(*found);
}

}  // namespace shardpipe::text
