#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/score_list.h"
#include "text/vocabulary.h"

namespace shardpipe::text {

/// The merges of a BPE model: pairs of tokens, in one string.
class MergeList {
 public:
  struct Pair {
    size_t begin;  // the left token is [begin, middle) of the characters
    size_t middle;
    size_t end;  // the right one is [middle, end), so both together are [begin, end)
  };
  void add(std::string_view left, std::string_view right);
  const std::vector<Pair>& pairs() const { return pairs_; }
  std::string_view left(const Pair& p) const { return view(p.begin, p.middle); }
  std::string_view right(const Pair& p) const { return view(p.middle, p.end); }
  std::string_view both(const Pair& p) const { return view(p.begin, p.end); }

 private:
  std::string_view view(size_t begin, size_t end) const { return {characters_.data() + begin, end - begin}; }
  std::string characters_;
  std::vector<Pair> pairs_;
};

/// A tokenizer.json, read but not yet understood. The two big tables of a model are taken out while the file is parsed,
/// since a JSON tree of them would cost more time than all the rest of loading.
struct TokenizerFile {
  std::string where;      // the path, for messages
  Json fields;            // all but model.vocab and model.merges
  Vocabulary vocabulary;  // model.vocab where it is an object
  ScoreList scores;       // model.vocab where it is an array
  MergeList merges;       // model.merges
  bool has_vocabulary = false;
  bool has_scores = false;
  bool has_merges = false;
};

/// Reads JSON text; `where` is for messages. Throws as read_tokenizer_file() does.
TokenizerFile parse_tokenizer_file(const std::string& text, const std::string& where);

/// Throws Error(input) when the file cannot be read, is no JSON (nesting at most 256 levels), or its vocabulary or
/// merges are not what they must be.
TokenizerFile read_tokenizer_file(const std::filesystem::path& path);

}  // namespace shardpipe::text
