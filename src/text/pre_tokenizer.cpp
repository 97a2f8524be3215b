#include "text/pre_tokenizer.h"

#include <functional>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/pattern_field.h"
#include "text/unicode.h"

namespace shardpipe::text {
namespace {

// Replaces each text piece by what `cut` appends for it.
template <typename Cut>
void split_each(std::vector<Piece>& pieces, Cut cut) {
  std::vector<Piece> out;
  out.reserve(pieces.size());
  for (Piece& piece : pieces) {
    if (piece.id == Piece::kText) {
      cut(std::move(piece.text), out);
    } else {
      out.push_back(std::move(piece));
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
    split_each(pieces, [&](std::string text, std::vector<Piece>& out) {
      if (add_prefix_space_ && !text.empty() && text.front() != ' ') {
        text.insert(text.begin(), ' ');
      }
      if (pattern_ == nullptr) {
        out.push_back({bytes_to_chars(text)});
        return;
      }
      for (const Segment& segment : pattern_->segments(text)) {
        out.push_back({bytes_to_chars(std::string_view(text).substr(segment.begin, segment.end - segment.begin))});
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
    split_each(pieces, [&](const std::string& text, std::vector<Piece>& out) {
      std::vector<Segment> parts = pattern_.segments(text);
      for (Segment& part : parts) {
        part.match = part.match != invert_;
      }
      split_text(text, parts, behavior_, out);
    });
  }

 private:
  Regex pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Digits, Punctuation and WhitespaceSplit: single characters of a kind.
class SplitByChar : public PreTokenizer {
 public:
  SplitByChar(bool (*predicate)(char32_t), SplitBehavior behavior) : predicate_(predicate), behavior_(behavior) {}
  void split(std::vector<Piece>& pieces) const override {
    split_each(pieces, [&](const std::string& text, std::vector<Piece>& out) {
      split_text(text, segments(text, predicate_), behavior_, out);
    });
  }

 private:
  bool (*predicate_)(char32_t);
  SplitBehavior behavior_;
};

// Words and runs of symbols; whitespace goes. The package takes \w from Rust's regex crate here.
class Whitespace : public PreTokenizer {
 public:
  Whitespace() : pattern_(Regex::pattern(kPattern, "the Whitespace pre-tokenizer")) {}
  void split(std::vector<Piece>& pieces) const override {
    split_each(pieces, [&](const std::string& text, std::vector<Piece>& out) {
      std::vector<Segment> parts = pattern_.segments(text);
      for (Segment& part : parts) {
        part.match = !part.match;
      }
      split_text(text, parts, SplitBehavior::removed, out);
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
  throw_usage("{} has the unsupported type {:?}", fields.where(), type);
}

}  // namespace shardpipe::text
