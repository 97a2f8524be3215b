#include "text/pre_tokenizer.h"

#include <functional>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/metaspace.h"
#include "text/pattern_field.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

// Replaces each text piece by what `cut` appends for it, marking as `start` what begins where the piece does.
template <typename Cut>
void split_each(std::vector<Piece>& pieces, Cut cut) {
  std::vector<Piece> out;
  out.reserve(pieces.size());
  for (Piece& piece : pieces) {
    if (piece.id != Piece::kText) {
      out.push_back(std::move(piece));
      continue;
    }
    const size_t before = out.size();
    const bool start = piece.start;
    cut(std::move(piece), out);
    for (size_t i = before; i < out.size(); ++i) {
      out[i].start = out[i].start && start;
    }
  }
  pieces = std::move(out);
}

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(const Fields& fields) {
    for (const Fields& part : fields.objects("pretokenizers")) {
      parts_.push_back(make_pre_tokenizer(part));
    }
  }
  void split(std::vector<Piece>& pieces) const override {
    for (const auto& part : parts_) {
      part->split(pieces);
    }
  }

 private:
  std::vector<std::unique_ptr<const PreTokenizer>> parts_;
};

class ByteLevel : public PreTokenizer {
 public:
  explicit ByteLevel(const Fields& fields)
      : add_prefix_space_(fields.boolean("add_prefix_space")), use_regex_(fields.boolean("use_regex", true)) {
    fields.boolean("trim_offsets");  // offsets are not part of what we return, the field is still required
    if (use_regex_) {
      pattern_ = std::make_unique<Regex>(Regex::pattern(kGpt2Pattern, "GPT-2's pattern"));
    }
  }
  void split(std::vector<Piece>& pieces) const override {
    split_each(pieces, [&](Piece piece, std::vector<Piece>& out) {
      std::string& text = piece.text;
      if (add_prefix_space_ && !text.empty() && text.front() != ' ') {
        text.insert(text.begin(), ' ');
      }
      if (pattern_ == nullptr) {
        out.push_back({bytes_to_chars(text), Piece::kText, true});
        return;
      }
      for (const Segment& segment : pattern_->segments(text)) {
        const std::string_view part = std::string_view(text).substr(segment.begin, segment.end - segment.begin);
        out.push_back({bytes_to_chars(part), Piece::kText, segment.begin == 0});
      }
    });
  }

 private:
  bool add_prefix_space_;
  bool use_regex_;
  std::unique_ptr<const Regex> pattern_;
};

SplitBehavior split_behavior(const Fields& fields) {
  const std::string name = fields.string("behavior");
  if (name == "Removed") {
    return SplitBehavior::removed;
  }
  if (name == "Isolated") {
    return SplitBehavior::isolated;
  }
  if (name == "MergedWithPrevious") {
    return SplitBehavior::merged_with_previous;
  }
  if (name == "MergedWithNext") {
    return SplitBehavior::merged_with_next;
  }
  if (name == "Contiguous") {
    return SplitBehavior::contiguous;
  }
  throw_input("{}.behavior {:?} is unknown", fields.where(), name);
}

class Split : public PreTokenizer {
 public:
  explicit Split(const Fields& fields)
      : pattern_(pattern_field(fields)), behavior_(split_behavior(fields)), invert_(fields.boolean("invert")) {}
  void split(std::vector<Piece>& pieces) const override {
    split_each(pieces, [&](const Piece& piece, std::vector<Piece>& out) {
      std::vector<Segment> parts = pattern_.segments(piece.text);
      for (Segment& part : parts) {
        part.match = part.match != invert_;
      }
      split_text(piece.text, parts, behavior_, out);
    });
  }

 private:
  Regex pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Single characters of a kind: Digits, Punctuation, WhitespaceSplit, CharDelimiterSplit.
class SplitByChar : public PreTokenizer {
 public:
  SplitByChar(std::function<bool(char32_t)> predicate, SplitBehavior behavior)
      : predicate_(std::move(predicate)), behavior_(behavior) {}
  void split(std::vector<Piece>& pieces) const override {
    split_each(pieces, [&](const Piece& piece, std::vector<Piece>& out) {
      split_text(piece.text, segments(piece.text, predicate_), behavior_, out);
    });
  }

 private:
  std::function<bool(char32_t)> predicate_;
  SplitBehavior behavior_;
};

// Words without whitespace, punctuation by itself.
class Bert : public PreTokenizer {
 public:
  void split(std::vector<Piece>& pieces) const override {
    words_.split(pieces);
    punctuation_.split(pieces);
  }

 private:
  SplitByChar words_{is_whitespace, SplitBehavior::removed};
  SplitByChar punctuation_{is_punctuation, SplitBehavior::isolated};
};

class SplitBeforeSpaces : public PreTokenizer {
 public:
  explicit SplitBeforeSpaces(const Fields& fields) : metaspace_(make_metaspace(fields)) {
    if (metaspace_.split) {
      pattern_ = std::make_unique<Regex>(Regex::literal(metaspace_.replacement));
    }
  }
  void split(std::vector<Piece>& pieces) const override {
    split_each(pieces, [&](const Piece& piece, std::vector<Piece>& out) {
      std::string text = metaspace_.replace_spaces(piece.text);
      const bool prepend = metaspace_.prepend == Metaspace::Prepend::always ||
                           (metaspace_.prepend == Metaspace::Prepend::first && piece.start);
      if (prepend && !text.starts_with(metaspace_.replacement)) {
        text.insert(0, metaspace_.replacement);
      }
      if (pattern_ == nullptr) {
        out.push_back({std::move(text), Piece::kText, true});
      } else {
        split_text(text, pattern_->segments(text), SplitBehavior::merged_with_next, out);
      }
    });
  }

 private:
  Metaspace metaspace_;
  std::unique_ptr<const Regex> pattern_;
};

class FixedLength : public PreTokenizer {
 public:
  explicit FixedLength(const Fields& fields) : length_(fields.has("length") ? fields.size("length") : 5) {
    if (length_ == 0) {
      throw_input("{}.length is 0, must be at least 1", fields.where());
    }
  }
  void split(std::vector<Piece>& pieces) const override {
    split_each(pieces, [&](const Piece& piece, std::vector<Piece>& out) {
      const std::string& text = piece.text;
      for (size_t begin = 0; begin < text.size();) {
        size_t end = begin;
        for (uint64_t chars = 0; chars < length_ && end < text.size(); ++chars) {
          end += char_length(text[end]);
        }
        out.push_back({text.substr(begin, end - begin), Piece::kText, begin == 0});
        begin = end;
      }
    });
  }

 private:
  uint64_t length_;
};

// Words and runs of symbols; whitespace goes. The package takes \w from Rust's regex crate here.
class Whitespace : public PreTokenizer {
 public:
  Whitespace() : pattern_(Regex::pattern(kPattern, "the Whitespace pre-tokenizer")) {}
  void split(std::vector<Piece>& pieces) const override {
    split_each(pieces, [&](const Piece& piece, std::vector<Piece>& out) {
      std::vector<Segment> parts = pattern_.segments(piece.text);
      for (Segment& part : parts) {
        part.match = !part.match;
      }
      split_text(piece.text, parts, SplitBehavior::removed, out);
    });
  }

 private:
  static constexpr const char* kPattern =
      R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}\s]+)";
  Regex pattern_;
};

}  // namespace

std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const Fields& fields) {
  const std::string type = fields.type();
  if (type == "Sequence") {
    return std::make_unique<Sequence>(fields);
  }
  if (type == "ByteLevel") {
    return std::make_unique<ByteLevel>(fields);
  }
  if (type == "Split") {
    return std::make_unique<Split>(fields);
  }
  if (type == "Digits") {
    return std::make_unique<SplitByChar>(
        is_numeric, fields.boolean("individual_digits") ? SplitBehavior::isolated : SplitBehavior::contiguous);
  }
  if (type == "Punctuation") {
    return std::make_unique<SplitByChar>(
        is_punctuation, fields.has("behavior") ? split_behavior(fields) : SplitBehavior::isolated);
  }
  if (type == "Whitespace") {
    return std::make_unique<Whitespace>();
  }
  if (type == "WhitespaceSplit") {
    return std::make_unique<SplitByChar>(is_whitespace, SplitBehavior::removed);
  }
  if (type == "BertPreTokenizer") {
    return std::make_unique<Bert>();
  }
  if (type == "Metaspace") {
    return std::make_unique<SplitBeforeSpaces>(fields);
  }
  if (type == "CharDelimiterSplit") {
    const char32_t delimiter = code_point_at(char_field(fields, "delimiter"), 0);
    return std::make_unique<SplitByChar>([delimiter](char32_t c) { return c == delimiter; }, SplitBehavior::removed);
  }
  if (type == "FixedLength") {
    return std::make_unique<FixedLength>(fields);
  }
  throw_usage("{} has the unsupported type {:?}", fields.where(), type);
}

}  // namespace shardpipe::text
