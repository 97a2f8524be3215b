#include "text/tokenizer_file.h"

#include <limits>
#include <optional>

#include "base/error.h"
#include "base/file.h"

namespace shardpipe::text {
namespace {

constexpr int kMaxDepth = 256;
constexpr size_t kMaxKeys = 10000;  // of one object; ordered_json looks a key up in linear time

// Receives nlohmann's parse events. Outside of the two tables it builds the tree.
class Reader {
 public:
  explicit Reader(TokenizerFile& file) : file_(file) {}

  bool null() { return value(nullptr); }
  bool boolean(bool v) { return value(v); }
  bool number_integer(Json::number_integer_t v) {
    return table_ == Table::scores ? score(static_cast<double>(v), static_cast<double>(v)) : value(v);
  }

  bool number_float(Json::number_float_t v, const std::string& text) {
    return table_ == Table::scores ? score(v, serde_number(text)) : value(v);
  }
  bool binary(Json::binary_t&) { return true; }

  bool number_unsigned(Json::number_unsigned_t v) {
    if (table_ == Table::vocabulary) {
      if (v > std::numeric_limits<uint32_t>::max()) {
        throw_input("{}: model.vocab gives {:?} the id {}, above 4294967295", file_.where, token_, v);
      }
      file_.vocabulary.add(token_, static_cast<uint32_t>(v));
      return true;
    }
    if (table_ == Table::scores) {
      return score(static_cast<double>(v), static_cast<double>(v));
    }
    return value(v);
  }

  bool string(std::string& v) {
    if (table_ == Table::merges) {
      return merge_part(v);
    }
    if (table_ == Table::scores && depth_ == 4 && parts_++ == 0) {
      token_ = std::move(v);
      return true;
    }
    return value(std::move(v));
  }

  bool start_object(size_t) {
    enter();
    if (at("vocab")) {
      table_ = Table::vocabulary;
      file_.has_vocabulary = true;
      return true;
    }
    refuse_in_table();
    open(Json::object());
    return true;
  }

  bool key(std::string& v) {
    if (table_ == Table::vocabulary) {
      token_.swap(v);
      return true;
    }
    if (depth_ == 1) {
      in_model_ = v == "model";
    }
    if (open_.back()->size() >= kMaxKeys) {
      throw_input("{}: an object with more than {} keys", file_.where, kMaxKeys);
    }
    key_ = std::move(v);
    return true;
  }

  bool end_object() {
    --depth_;
    if (table_ == Table::vocabulary) {
      table_ = Table::none;
    } else {
      open_.pop_back();
    }
    return true;
  }

  bool start_array(size_t) {
    enter();
    if (table_ == Table::merges && depth_ == 4) {
      left_.reset();
      parts_ = 0;
      return true;
    }
    if (table_ == Table::scores && depth_ == 4) {
      parts_ = 0;
      return true;
    }
    if (at("vocab")) {
      table_ = Table::scores;
      file_.has_scores = true;
      return true;
    }
    if (at("merges")) {
      table_ = Table::merges;
      file_.has_merges = true;
      return true;
    }
    refuse_in_table();
    open(Json::array());
    return true;
  }

  bool end_array() {
    --depth_;
    if (table_ == Table::none) {
      open_.pop_back();
    } else if (table_ == Table::scores) {
      if (depth_ == 2) {
        table_ = Table::none;
      } else if (parts_ != 2) {
        refuse_score();
      }
    } else if (depth_ == 2) {
      table_ = Table::none;
    } else if (parts_ != 2) {
      throw_input("{}: model.merges[{}] has {} parts, must have 2", file_.where, merge_count_, parts_);
    }
    return true;
  }

  bool parse_error(size_t, const std::string&, const Json::exception& error) {
    throw_input("bad JSON in {}: {}", file_.where, error.what());
  }

 private:
  enum class Table { none, vocabulary, scores, merges };
  enum class MergeStyle { unknown, strings, pairs };

  void enter() {
    if (++depth_ > kMaxDepth) {
      throw_input("JSON nested deeper than {} levels in {}", kMaxDepth, file_.where);
    }
  }

  // Whether what opens now is model.<name>.
  bool at(const char* name) const { return table_ == Table::none && depth_ == 3 && in_model_ && key_ == name; }

  [[noreturn]] void refuse_score() const {
    throw_input("{}: model.vocab[{}] must be [token, score]", file_.where, file_.scores.size());
  }

  bool score(double exact, double rounded) {
    if (depth_ != 4 || parts_++ != 1) {
      refuse_score();
    }
    file_.scores.add(token_, exact, rounded);
    return true;
  }

  void refuse_in_table() const {
    if (table_ == Table::scores) {
      refuse_score();
    }
    if (table_ == Table::vocabulary) {
      throw_input("{}: model.vocab gives {:?} an id that is no integer of at least 0", file_.where, token_);
    }
    if (table_ == Table::merges) {
      throw_input("{}: model.merges[{}] must be \"a b\" or [\"a\", \"b\"]", file_.where, merge_count_);
    }
  }

  bool value(Json v) {
    refuse_in_table();
    place(std::move(v));
    return true;
  }

  Json* place(Json v) {
    if (open_.empty()) {
      file_.fields = std::move(v);
      return &file_.fields;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    return &(parent[key_] = std::move(v));
  }

  void open(Json v) { open_.push_back(place(std::move(v))); }

  bool merge_part(const std::string& text) {
    const bool pair = depth_ == 4;
    const MergeStyle style = pair ? MergeStyle::pairs : MergeStyle::strings;
    if (style_ != MergeStyle::unknown && style_ != style) {
      throw_input("{}: model.merges[{}] mixes \"a b\" and [\"a\", \"b\"]", file_.where, merge_count_);
    }
    style_ = style;
    if (pair) {
      if (++parts_ == 1) {
        left_ = text;
      } else if (parts_ == 2) {
        file_.merges.add(*left_, text);
        ++merge_count_;
      }
      return true;
    }
    if (text.starts_with("#version")) {
      return true;
    }
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      throw_input("{}: model.merges[{}] is {:?}, must be two tokens and one space", file_.where, merge_count_, text);
    }
    file_.merges.add(std::string_view(text).substr(0, space), std::string_view(text).substr(space + 1));
    ++merge_count_;
    return true;
  }

  TokenizerFile& file_;
  std::vector<Json*> open_;  // a tree's open objects and arrays; their parents do not grow meanwhile
  std::string key_;
  int depth_ = 0;
  bool in_model_ = false;
  Table table_ = Table::none;
  std::string token_;
  MergeStyle style_ = MergeStyle::unknown;
  std::optional<std::string> left_;
  int parts_ = 0;
  size_t merge_count_ = 0;
};

}  // namespace

void MergeList::add(std::string_view left, std::string_view right) {
  const size_t begin = characters_.size();
  characters_.append(left);
  const size_t middle = characters_.size();
  characters_.append(right);
  pairs_.push_back({begin, middle, characters_.size()});
}

TokenizerFile read_tokenizer_file(const std::filesystem::path& path) {
  return parse_tokenizer_file(read_file(path), path.string());
}

TokenizerFile parse_tokenizer_file(const std::string& text, const std::string& where) {
  TokenizerFile file;
  file.where = where;
  Reader reader(file);
  Json::sax_parse(text, &reader);
  file.vocabulary.index();
  return file;
}

}  // namespace shardpipe::text
