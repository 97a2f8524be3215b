#include "text/normalizer.h"

#include <vector>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/charsmap.h"
#include "text/pattern_field.h"
#include "text/regex.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

class Sequence : public Normalizer {
 public:
  explicit Sequence(const Fields& fields) {
    for (const Fields& part : fields.objects("normalizers")) {
      parts_.push_back(make_normalizer(part));
    }
  }
  bool normalize(std::string& text) const override {
    bool keeps_start = true;
    for (const auto& part : parts_) {
      keeps_start = part->normalize(text) && keeps_start;
    }
    return keeps_start;
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> parts_;
};

class Unicode : public Normalizer {
 public:
  explicit Unicode(NormalForm form) : form_(form) {}
  bool normalize(std::string& text) const override {
    text = text::normalize(text, form_);
    return true;
  }

 private:
  NormalForm form_;
};

class Lowercase : public Normalizer {
 public:
  bool normalize(std::string& text) const override {
    text = lowercase(text);
    return true;
  }
};

class Replace : public Normalizer {
 public:
  explicit Replace(const Fields& fields) : pattern_(pattern_field(fields)), content_(fields.string("content")) {}
  bool normalize(std::string& text) const override {
    std::string out;
    bool keeps_start = true;
    for (const Segment& segment : pattern_.segments(text)) {
      if (segment.match && segment.begin == 0 && segment.end > 0) {
        // What replaces several characters counts as the last of them.
        keeps_start = !content_.empty() && segment.end == char_length(text[0]);
      }
      out.append(segment.match ? content_ : std::string_view(text).substr(segment.begin, segment.end - segment.begin));
    }
    text = std::move(out);
    return keeps_start;
  }

 private:
  Regex pattern_;
  std::string content_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(const Fields& fields) : prefix_(fields.string("prepend")) {}
  bool normalize(std::string& text) const override {
    if (!text.empty()) {
      text.insert(0, prefix_);
    }
    return true;
  }

 private:
  std::string prefix_;
};

class Strip : public Normalizer {
 public:
  explicit Strip(const Fields& fields) : left_(fields.boolean("strip_left")), right_(fields.boolean("strip_right")) {}
  bool normalize(std::string& text) const override {
    size_t begin = 0;
    while (left_ && begin < text.size() && is_whitespace(code_point_at(text, begin))) {
      begin += char_length(text[begin]);
    }
    size_t end = text.size();
    while (right_ && end > begin) {
      const size_t last = last_char(text, end);
      if (!is_whitespace(code_point_at(text, last))) {
        break;
      }
      end = last;
    }
    text = text.substr(begin, end - begin);
    return begin == 0;
  }

 private:
  bool left_;
  bool right_;
};

// Drops the characters of a kind; returns whether the first one stayed.
template <typename Drop>
bool drop_chars(std::string& text, Drop drop) {
  std::string out;
  out.reserve(text.size());
  const bool keeps_start = text.empty() || !drop(code_point_at(text, 0));
  for (size_t i = 0; i < text.size();) {
    const size_t length = char_length(text[i]);
    if (!drop(code_point_at(text, i))) {
      out.append(text, i, length);
    }
    i += length;
  }
  text = std::move(out);
  return keeps_start;
}

class StripAccents : public Normalizer {
 public:
  bool normalize(std::string& text) const override { return drop_chars(text, is_combining_mark); }
};

class ByteLevel : public Normalizer {
 public:
  bool normalize(std::string& text) const override {
    text = bytes_to_chars(text);
    return true;
  }
};

class Bert : public Normalizer {
 public:
  explicit Bert(const Fields& fields)
      : clean_text_(fields.boolean("clean_text")),
        handle_chinese_chars_(fields.boolean("handle_chinese_chars")),
        lowercase_(fields.boolean("lowercase")),
        strip_accents_(fields.boolean("strip_accents", lowercase_)) {}

  bool normalize(std::string& text) const override {
    bool keeps_start = true;
    if (clean_text_) {
      keeps_start = drop_chars(text, [](char32_t c) { return c == 0 || c == 0xFFFD || is_control(c); });
      text = map_chars(text, [](std::string& out, char32_t c) { append_utf8(out, is_whitespace(c) ? U' ' : c); });
    }
    if (handle_chinese_chars_) {
      text = map_chars(text, [](std::string& out, char32_t c) {
        const bool chinese = is_chinese(c);
        out.append(chinese ? " " : "");
        append_utf8(out, c);
        out.append(chinese ? " " : "");
      });
    }
    if (strip_accents_) {
      text = text::normalize(text, NormalForm::nfd);
      keeps_start = drop_chars(text, is_nonspacing_mark) && keeps_start;
    }
    if (lowercase_) {
      text = text::lowercase(text);
    }
    return keeps_start;
  }

 private:
  template <typename Append>
  static std::string map_chars(const std::string& text, Append append) {
    std::string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size(); i += char_length(text[i])) {
      append(out, code_point_at(text, i));
    }
    return out;
  }

  // The ranges of BERT's tokenization.py; one differs from it by a slip of the package (2B920, there 2B820).
  static bool is_chinese(char32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
  }

  bool clean_text_;
  bool handle_chinese_chars_;
  bool lowercase_;
  bool strip_accents_;
};

// sentencepiece's "nmt" rules: control characters go, unusual spaces become usual ones.
class Nmt : public Normalizer {
 public:
  bool normalize(std::string& text) const override {
    const bool keeps_start = drop_chars(text, [](char32_t c) {
      return (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    });
    std::string out;
    for (size_t i = 0; i < text.size(); i += char_length(text[i])) {
      const char32_t c = code_point_at(text, i);
      const bool space = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                         c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      append_utf8(out, space ? U' ' : c);
    }
    text = std::move(out);
    return keeps_start;
  }
};

class Precompiled : public Normalizer {
 public:
  explicit Precompiled(const Fields& fields)
      : map_(
            decode_base64(fields.string("precompiled_charsmap"), fields.where() + ".precompiled_charsmap"),
            fields.where() + ".precompiled_charsmap") {}
  bool normalize(std::string& text) const override {
    text = map_.normalize(text);
    return true;
  }

 private:
  Charsmap map_;
};

}  // namespace

std::unique_ptr<const Normalizer> make_normalizer(const Fields& fields) {
  const std::string type = fields.type();
  if (type == "Sequence") {
    return std::make_unique<Sequence>(fields);
  }
  if (type == "NFC") {
    return std::make_unique<Unicode>(NormalForm::nfc);
  }
  if (type == "NFD") {
    return std::make_unique<Unicode>(NormalForm::nfd);
  }
  if (type == "NFKC") {
    return std::make_unique<Unicode>(NormalForm::nfkc);
  }
  if (type == "NFKD") {
    return std::make_unique<Unicode>(NormalForm::nfkd);
  }
  if (type == "Lowercase") {
    return std::make_unique<Lowercase>();
  }
  if (type == "Replace") {
    return std::make_unique<Replace>(fields);
  }
  if (type == "Prepend") {
    return std::make_unique<Prepend>(fields);
  }
  if (type == "Strip") {
    return std::make_unique<Strip>(fields);
  }
  if (type == "StripAccents") {
    return std::make_unique<StripAccents>();
  }
  if (type == "ByteLevel") {
    return std::make_unique<ByteLevel>();
  }
  if (type == "BertNormalizer") {
    return std::make_unique<Bert>(fields);
  }
  if (type == "Nmt") {
    return std::make_unique<Nmt>();
  }
  if (type == "Precompiled") {
    return std::make_unique<Precompiled>(fields);
  }
  throw_usage("{} has the unsupported type {:?}", fields.where(), type);
}

}  // namespace shardpipe::text
