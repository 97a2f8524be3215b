#pragma once

#include <string>
#include <utility>
#include <vector>

#include "text/fields.h"
#include "text/model.h"

namespace shardpipe::text {

/// Byte pair encoding (https://aclanthology.org/P16-1162): starts from the characters of a piece and joins, again and
/// again, the neighbours whose merge has the lowest rank, leftmost first.
class Bpe : public Model {
 public:
  /// Takes the file's vocabulary. Throws Error(input) when a merge names a token outside of it.
  Bpe(const Fields& fields, TokenizerFile& file);

  void tokenize(std::string_view piece, std::vector<int64_t>& ids) const override;
  std::optional<uint32_t> token_to_id(std::string_view token) const override { return vocabulary_.find(token); }
  std::optional<std::string_view> id_to_token(int64_t id) const override { return vocabulary_.token(id); }
  size_t size() const override { return vocabulary_.size(); }

 private:
  struct Merge {
    uint32_t rank;
    uint32_t id;
  };

  /// Pairs of ids to merges: open addressing, a power of two long, at most half full.
  class Merges {
   public:
    explicit Merges(size_t count);
    /// A pair that is there already gets the new merge.
    void set(uint32_t left, uint32_t right, Merge merge);
    const Merge* find(uint32_t left, uint32_t right) const;

   private:
    struct Slot {
      uint64_t key;
      Merge merge;
      bool used;
    };
    size_t slot(uint64_t key) const;
    std::vector<Slot> slots_;
    int shift_;
  };

  /// A token on its way through the merges; a list by index, so that joining two takes no copying.
  struct Symbol {
    uint32_t id;
    int64_t previous;
    int64_t next;
    bool joined;  // to the one before it, so gone
  };

  static Merges make_merges(
      const Vocabulary& vocabulary, const MergeList& list, size_t prefix_size, const Fields& fields);
  std::vector<Symbol> symbols(std::string_view piece) const;
  bool byte_symbols(std::string_view character, std::vector<uint32_t>& ids) const;
  void merge(std::vector<Symbol>& symbols) const;

  std::string where_;
  Vocabulary vocabulary_;
  std::string prefix_;  // of every character but a piece's first
  std::string suffix_;  // of a piece's last character
  std::optional<std::string> unknown_;
  bool fuse_unknown_;
  bool byte_fallback_;
  bool ignore_merges_;
  Merges merges_;
};

}  // namespace shardpipe::text
