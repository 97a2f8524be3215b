#include "text/model.h"

#include "base/error.h"
#include "text/bpe.h"
#include "text/fields.h"
#include "text/unigram.h"
#include "text/word_level.h"
#include "text/word_piece.h"

namespace shardpipe::text {
namespace {

// Files of early versions leave the type out; each model has fields that the others do not.
std::string model_type(const TokenizerFile& file, const Fields& fields) {
  if (fields.has("type")) {
    return fields.type();
  }
  return file.has_merges                                  ? "BPE"
         : fields.has("max_input_chars_per_word")         ? "WordPiece"
         : file.has_vocabulary && fields.has("unk_token") ? "WordLevel"
         : file.has_scores                                ? "Unigram"
                                                          : "(none)";
}

}  // namespace

std::unique_ptr<const Model> make_model(TokenizerFile& file) {
  const Fields fields(Fields(file.fields, file.where).get("model"), file.where + ": model");
  const std::string type = model_type(file, fields);
  if (type == "BPE") {
    return std::make_unique<Bpe>(fields, file);
  }
  if (type == "WordPiece") {
    return std::make_unique<WordPiece>(fields, file);
  }
  if (type == "WordLevel") {
    return std::make_unique<WordLevel>(fields, file);
  }
  if (type == "Unigram") {
    return std::make_unique<Unigram>(fields, file);
  }
  throw_usage("{} has the unsupported type {:?}", fields.where(), type);
}

}  // namespace shardpipe::text
