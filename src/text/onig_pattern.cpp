#include "text/onig_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace shardpipe::text {
namespace {

// Bodies of PCRE2 classes. Unicode 16 finds more marks alphabetic than PCRE2's Unicode 14: the ranges behind the
// property.
constexpr const char* kAlphabetic =
    R"(\p{Alphabetic}\x{363}-\x{36F}\x{C04}\x{F82}\x{F83}\x{1DD3}-\x{1DE6}\x{11080}\x{11081})";
constexpr const char* kAlphanumeric =
    R"(\p{Alphabetic}\p{Nd}\x{363}-\x{36F}\x{C04}\x{F82}\x{F83}\x{1DD3}-\x{1DE6}\x{11080}\x{11081})";
constexpr const char* kSpace =
    R"(\x09-\x0D\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
// Below U+0100 Oniguruma has a table of its own, in which superscripts and fractions are word characters.
constexpr const char* kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr const char* kHexDigit = "0-9A-Fa-f";

struct Named {
  const char* name;  // lower case, without spaces, hyphens and underscores
  const char* body;
};

constexpr auto kPosix = std::to_array<Named>({
    {"alpha", kAlphabetic},
    {"alphabetic", kAlphabetic},
    {"alnum", kAlphanumeric},
    {"ascii", R"(\x00-\x7F)"},
    {"blank", R"(\p{Zs}\x09)"},
    {"cntrl", R"(\p{Cc})"},
    {"digit", R"(\p{Nd})"},
    {"graph", R"(\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co})"},
    {"lower", R"(\p{Lowercase})"},
    {"print", R"(\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co}\p{Zs})"},
    {"punct", R"(\p{P}\p{S})"},
    {"space", kSpace},
    {"upper", R"(\p{Uppercase})"},
    {"word", kWord},
    {"xdigit", kHexDigit},
});

// Properties that only Oniguruma knows by their long names.
constexpr auto kProperties = std::to_array<Named>({
    {"letter", R"(\p{L})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"casedletter", R"(\p{L&})"},
    {"lc", R"(\p{L&})"},
    {"modifierletter", R"(\p{Lm})"},
    {"otherletter", R"(\p{Lo})"},
    {"mark", R"(\p{M})"},
    {"combiningmark", R"(\p{M})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"spacingmark", R"(\p{Mc})"},
    {"enclosingmark", R"(\p{Me})"},
    {"number", R"(\p{N})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"letternumber", R"(\p{Nl})"},
    {"othernumber", R"(\p{No})"},
    {"punctuation", R"(\p{P})"},
    {"connectorpunctuation", R"(\p{Pc})"},
    {"dashpunctuation", R"(\p{Pd})"},
    {"openpunctuation", R"(\p{Ps})"},
    {"closepunctuation", R"(\p{Pe})"},
    {"initialpunctuation", R"(\p{Pi})"},
    {"finalpunctuation", R"(\p{Pf})"},
    {"otherpunctuation", R"(\p{Po})"},
    {"symbol", R"(\p{S})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"modifiersymbol", R"(\p{Sk})"},
    {"othersymbol", R"(\p{So})"},
    {"separator", R"(\p{Z})"},
    {"spaceseparator", R"(\p{Zs})"},
    {"lineseparator", R"(\p{Zl})"},
    {"paragraphseparator", R"(\p{Zp})"},
    {"other", R"(\p{C})"},
    {"control", R"(\p{Cc})"},
    {"format", R"(\p{Cf})"},
    {"privateuse", R"(\p{Co})"},
    {"unassigned", R"(\p{Cn})"},
    {"whitespace", kSpace},
});

template <size_t N>
const char* find_body(const std::array<Named, N>& table, std::string_view name) {
  std::string key;
  for (const char c : name) {
    if (c != ' ' && c != '_' && c != '-') {
      key.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    }
  }
  const auto row = std::find_if(table.begin(), table.end(), [&](const Named& r) { return key == r.name; });
  return row == table.end() ? nullptr : row->body;
}

bool is_script(std::string_view name) {
  const std::string pattern = R"(\p{sc:)" + std::string(name) + "}";
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &error, &offset, nullptr);
  const bool found = code != nullptr;
  pcre2_code_free(code);
  return found;
}

// A set of characters: the body of a class, or the complement of one.
struct Set {
  std::string body;
  bool negated = false;
};

std::string in_brackets(const Set& set) {
  return (set.negated ? "[^" : "[") + set.body + "]";
}

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

  // The set that a shorthand or property at `\` names; false when it names none. Moves past it.
  bool shorthand(Set& set) {
    if (at_ + 1 >= in_.size()) {
      return false;
    }
    const char c = in_[at_ + 1];
    const char* body = nullptr;
    switch (c) {
      case 's':
      case 'S':
        body = kSpace;
        break;
      case 'w':
      case 'W':
        body = kWord;
        break;
      case 'd':
      case 'D':
        body = R"(\p{Nd})";
        break;
      case 'h':
      case 'H':
        body = kHexDigit;
        break;
      case 'p':
      case 'P':
        return property(set);
      default:
        return false;
    }
    at_ += 2;
    set = {body, std::isupper(static_cast<unsigned char>(c)) != 0};
    return true;
  }

  bool property(Set& set) {
    const size_t end = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || end == std::string_view::npos) {
      return false;
    }
    bool negated = in_[at_ + 1] == 'P';
    std::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    const char* body = find_body(kPosix, name);
    body = body != nullptr ? body : find_body(kProperties, name);
    if (body != nullptr) {
      set = {body, negated};
    } else {
      // PCRE2 takes the name of a script for Script_Extensions unless told otherwise.
      const std::string script = is_script(name) ? "sc:" : "";
      set = {(negated ? R"(\P{)" : R"(\p{)") + script + std::string(name) + "}", false};
    }
    at_ = end + 1;
    return true;
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
    Set set;
    if (starts_with(R"(\b)") || starts_with(R"(\B)")) {
      const std::string word = in_brackets({kWord, false});
      const char* inner = in_[at_ + 1] == 'b' ? "!" : "=";
      const char* outer = in_[at_ + 1] == 'b' ? "=" : "!";
      out_ += "(?:(?<=" + word + ")(?" + inner + word + ")|(?<!" + word + ")(?" + outer + word + "))";
      at_ += 2;
    } else if (shorthand(set)) {
      out_ += in_brackets(set);
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
      Set set;
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
      } else if (starts_with("[:") && posix(set)) {
        add(set, plain, others);
      } else if (in_[at_] == '[') {
        ++at_;
        if (++depth_ > 100) {
          throw_input("pattern nests character classes deeper than 100");
        }
        others += "|" + char_class();
        --depth_;
      } else if (in_[at_] == '\\') {
        if (shorthand(set)) {
          add(set, plain, others);
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

  static void add(const Set& set, std::string& plain, std::string& others) {
    if (set.negated) {
      others += "|" + in_brackets(set);
    } else {
      plain += set.body;
    }
  }

  // [:name:] or [:^name:].
  bool posix(Set& set) {
    const size_t end = in_.find(":]", at_ + 2);
    if (end == std::string_view::npos) {
      return false;
    }
    std::string_view name = in_.substr(at_ + 2, end - at_ - 2);
    const bool negated = name.starts_with('^');
    name.remove_prefix(negated ? 1 : 0);
    const char* body = find_body(kPosix, name);
    if (body == nullptr) {
      return false;
    }
    set = {body, negated};
    at_ = end + 2;
    return true;
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
