#include "text/onig_pattern.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <optional>
#include <vector>

#include "base/error.h"
#include "text/onig_sets.h"

namespace shardpipe::text {
namespace {

class Translator {
 public:
  explicit Translator(std::string_view onig) : in_(onig) {}

  std::string run() {
    while (at_ < in_.size()) {
      step();
    }
    return std::move(out_);
  }

 private:
  bool starts_with(std::string_view text) const { return in_.substr(at_).starts_with(text); }

  void copy(size_t length) {
    out_.append(in_.substr(at_, length));
    at_ += length;
  }

  void step() {
    const char c = in_[at_];
    if (c == '*' || c == '+' || c == '?') {
      copy(1);
      if (at_ < in_.size() && (in_[at_] == '+' || in_[at_] == '?')) {
        copy(1);
      }
      return;
    }
    if (c == '{' && interval()) {
      return;
    }
    if (c == '|') {
      copy(1);
      return;
    }
    if (c == ')') {
      copy(1);
      if (!groups_.empty()) {
        atom_ = groups_.back();
        groups_.pop_back();
      }
      return;
    }
    if (c == '(') {
      groups_.push_back(out_.size());
      group();
      return;
    }
    atom_ = out_.size();
    if (c == '[') {
      ++at_;
      out_ += char_class();
    } else if (c == '\\') {
      escape();
    } else {
      copy(1);
      while (at_ < in_.size() && (static_cast<unsigned char>(in_[at_]) & 0xC0) == 0x80) {
        copy(1);  // the rest of one character
      }
    }
  }

  // After '(': options, where Ruby's "m" is everyone else's "s".
  void group() {
    copy(1);
    if (!starts_with("?")) {
      return;
    }
    const size_t end = in_.find_first_not_of("imsx-", at_ + 1);
    if (end == std::string_view::npos || end == at_ + 1 || (in_[end] != ':' && in_[end] != ')')) {
      return;
    }
    for (; at_ <= end; ++at_) {
      out_.push_back(in_[at_] == 'm' ? 's' : in_[at_]);
    }
    if (in_[end] == ')') {
      groups_.pop_back();
    }
  }

  // {n}, {n,}, {n,m} or {,m} and what follows it; anything else is a literal brace.
  bool interval() {
    size_t i = at_ + 1;
    const auto digits = [&] {
      const size_t begin = i;
      while (i < in_.size() && std::isdigit(static_cast<unsigned char>(in_[i])) != 0) {
        ++i;
      }
      return std::string(in_.substr(begin, i - begin));
    };
    std::string low = digits();
    std::string high = low;
    const bool comma = i < in_.size() && in_[i] == ',';
    if (comma) {
      ++i;
      high = digits();
    }
    if (i >= in_.size() || in_[i] != '}' || (low.empty() && high.empty())) {
      return false;
    }
    at_ = i + 1;
    out_ += "{" + (low.empty() ? "0" : low) + (comma ? "," + high : "") + "}";
    const bool again = at_ < in_.size() && (in_[at_] == '+' || (in_[at_] == '?' && !comma));
    if (again) {
      out_.insert(atom_, "(?:");
      out_ += ")";
      copy(1);
    } else if (at_ < in_.size() && in_[at_] == '?') {
      copy(1);
    }
    return true;
  }

  // The set that a shorthand or property at `\` names, moving past it; nothing when it names none.
  std::optional<CharSet> shorthand() {
    if (at_ + 1 >= in_.size()) {
      return std::nullopt;
    }
    const char c = in_[at_ + 1];
    if (c != 'p' && c != 'P') {
      const std::optional<CharSet> set = shorthand_set(c);
      at_ += set ? 2 : 0;
      return set;
    }
    const size_t end = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || end == std::string_view::npos) {
      return std::nullopt;
    }
    CharSet set = property_set(in_.substr(at_ + 3, end - at_ - 3));
    set.negated = set.negated != (c == 'P');
    at_ = end + 1;
    return set;
  }

  // An escape that is one character, for inside or outside a class.
  void escaped_character(std::string& out) {
    if (at_ + 1 >= in_.size()) {
      out.push_back(in_[at_++]);
      return;
    }
    const char c = in_[at_ + 1];
    if (c == 'v') {
      out += R"(\x0B)";
      at_ += 2;
    } else if (c == 'u' && at_ + 6 <= in_.size()) {
      out += R"(\x{)" + std::string(in_.substr(at_ + 2, 4)) + "}";
      at_ += 6;
    } else if (c == 'x' && at_ + 2 < in_.size() && in_[at_ + 2] == '{') {
      const size_t end = std::min(in_.find('}', at_), in_.size() - 1) + 1;
      out.append(in_.substr(at_, end - at_));
      at_ = end;
    } else if (std::strchr("EFIJLMNOQTUVijlmoqy", c) != nullptr && c != 'N' && c != 'O') {
      out.push_back(c);  // no escape of Oniguruma's, but one of PCRE2's
      at_ += 2;
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      ++at_;
    } else {
      out.append(in_.substr(at_, 2));
      at_ += 2;
    }
  }

  void escape() {
    if (starts_with(R"(\b)") || starts_with(R"(\B)")) {
      const std::string word = in_brackets(word_set());
      const char* inner = in_[at_ + 1] == 'b' ? "!" : "=";
      const char* outer = in_[at_ + 1] == 'b' ? "=" : "!";
      out_ += "(?:(?<=" + word + ")(?" + inner + word + ")|(?<!" + word + ")(?" + outer + word + "))";
      at_ += 2;
    } else if (starts_with(R"(\w)") || starts_with(R"(\W)")) {
      out_ += in_brackets({word_set().body, in_[at_ + 1] == 'W'});
      at_ += 2;
    } else if (const std::optional<CharSet> set = shorthand()) {
      out_ += in_brackets(*set);
    } else {
      escaped_character(out_);
    }
  }

  // A class from behind its '[' as an expression that takes exactly one character.
  std::string char_class() {
    const bool negated = starts_with("^");
    at_ += negated ? 1 : 0;
    std::vector<std::string> conjuncts;  // the operands of &&
    std::string plain;                   // what one PCRE2 class can hold
    std::string others;                  // |expression for each of the rest
    const auto unite = [&] {
      std::string all = plain.empty() ? others.substr(others.empty() ? 0 : 1) : "[" + plain + "]" + others;
      all = all.empty() ? "(?!)" : all;
      plain.clear();
      const bool single = others.empty();
      others.clear();
      return single ? all : "(?:" + all + ")";
    };
    for (bool first = true;; first = false) {
      if (at_ >= in_.size()) {
        throw_input("pattern {:?} has a character class that does not end", in_);
      }
      if (in_[at_] == ']' && !first) {
        ++at_;
        break;
      }
      if (in_[at_] == ']') {
        plain += R"(\])";
        ++at_;
      } else if (starts_with("&&")) {
        conjuncts.push_back(unite());
        at_ += 2;
      } else if (std::optional<CharSet> named = posix()) {
        add(*named, plain, others);
      } else if (in_[at_] == '[') {
        ++at_;
        if (++depth_ > 100) {
          throw_input("pattern nests character classes deeper than 100");
        }
        others += "|" + char_class();
        --depth_;
      } else if (in_[at_] == '\\') {
        if (const std::optional<CharSet> set = shorthand()) {
          add(*set, plain, others);
        } else {
          escaped_character(plain);
        }
      } else {
        plain.push_back(in_[at_++]);
      }
    }
    if (conjuncts.empty() && others.empty() && !plain.empty()) {
      return in_brackets({plain, negated});
    }
    std::string all = unite();
    for (auto conjunct = conjuncts.rbegin(); conjunct != conjuncts.rend(); ++conjunct) {
      all = "(?:(?=" + *conjunct + ")" + all + ")";
    }
    return negated ? "(?:(?!" + all + ")(?s:.))" : all;
  }

  static void add(const CharSet& set, std::string& plain, std::string& others) {
    if (set.negated) {
      others += "|" + in_brackets(set);
    } else {
      plain += set.body;
    }
  }

  // [:name:] or [:^name:], moving past it.
  std::optional<CharSet> posix() {
    const size_t end = in_.find(":]", at_ + 2);
    if (!starts_with("[:") || end == std::string_view::npos) {
      return std::nullopt;
    }
    const std::optional<CharSet> set = posix_set(in_.substr(at_ + 2, end - at_ - 2));
    at_ = set ? end + 2 : at_;
    return set;
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where in out_ the last atom begins
  std::vector<size_t> groups_;  // where the open groups begin
  int depth_ = 0;
};

}  // namespace

std::string pcre2_pattern(std::string_view onig) {
  return Translator(onig).run();
}

}  // namespace shardpipe::text
