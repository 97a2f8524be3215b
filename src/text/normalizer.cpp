#include "text/normalizer.h"

#include <vector>

#include "base/error.h"
#include "text/byte_level.h"
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
  void normalize(std::string& text) const override {
    for (const auto& part : parts_) {
      part->normalize(text);
    }
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> parts_;
};

class Unicode : public Normalizer {
 public:
  explicit Unicode(NormalForm form) : form_(form) {}
  void normalize(std::string& text) const override { text = text::normalize(text, form_); }

 private:
  NormalForm form_;
};

class Lowercase : public Normalizer {
 public:
  void normalize(std::string& text) const override { text = lowercase(text); }
};

class Replace : public Normalizer {
 public:
  explicit Replace(const Fields& fields) : pattern_(pattern_field(fields)), content_(fields.string("content")) {}
  void normalize(std::string& text) const override { text = replace_all(pattern_, text, content_); }

 private:
  Regex pattern_;
  std::string content_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(const Fields& fields) : prefix_(fields.string("prepend")) {}
  void normalize(std::string& text) const override {
    if (!text.empty()) {
      text.insert(0, prefix_);
    }
  }

 private:
  std::string prefix_;
};

class Strip : public Normalizer {
 public:
  explicit Strip(const Fields& fields) : left_(fields.boolean("strip_left")), right_(fields.boolean("strip_right")) {}
  void normalize(std::string& text) const override {
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
  }

 private:
  bool left_;
  bool right_;
};

class StripAccents : public Normalizer {
 public:
  void normalize(std::string& text) const override {
    std::string out;
    for (size_t i = 0; i < text.size();) {
      const size_t length = char_length(text[i]);
      if (!is_combining_mark(code_point_at(text, i))) {
        out.append(text, i, length);
      }
      i += length;
    }
    text = std::move(out);
  }
};

class ByteLevel : public Normalizer {
 public:
  void normalize(std::string& text) const override { text = bytes_to_chars(text); }
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
  throw_usage("{} has the unsupported type {:?}", fields.where(), type);
}

}  // namespace shardpipe::text
