#pragma once

#include <string>

#include "text/fields.h"
#include "text/model.h"

namespace shardpipe::text {

/// The tokens of highest total score (https://arxiv.org/abs/1804.10959), by Viterbi's algorithm. A character that no
/// token covers is unknown; neighbouring unknown ones are one token.
class Unigram : public Model {
 public:
  /// Takes the file's scores. Throws Error(input).
  Unigram(const Fields& fields, TokenizerFile& file);

  void tokenize(std::string_view piece, std::vector<int64_t>& ids) const override;
  std::optional<uint32_t> token_to_id(std::string_view token) const override { return ids_.find(token); }
  std::optional<std::string_view> id_to_token(int64_t id) const override;
  size_t size() const override { return scores_.size(); }

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFF;

  /// The best way to a position: the token that ends there and where it begins.
  struct Step {
    double score = 0.0;
    size_t begin = 0;
    uint32_t id = 0;
    bool reached = false;
  };

  std::vector<Step> best_steps(std::string_view piece) const;
  void append_part(std::string_view part, std::vector<int64_t>& ids) const;
  uint32_t unknown() const;

  std::string where_;
  ScoreList scores_;
  Vocabulary ids_;
  std::vector<uint32_t> sorted_;  // one id of each token, by the token's bytes: walked as a trie
  uint32_t unknown_ = kNone;
  double unknown_score_;
  bool byte_fallback_;
};

}  // namespace shardpipe::text
