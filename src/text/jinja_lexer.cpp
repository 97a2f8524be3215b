#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {

void fail_syntax(const std::string& message, int line) {
  throw_input("{}, line {} of the chat template", message, line);
}

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_byte(char c) {
  return is_digit(c) || c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         static_cast<unsigned char>(c) >= 0x80;
}

// Line ends become \n, and one at the very end is dropped.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      i += i + 1 < source.size() && source[i + 1] == '\n' ? 1 : 0;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') {
    out.pop_back();
  }
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), rest_(source_) {}

  std::vector<Token> run() {
    while (pos_ < rest_.size()) {
      read_data();
    }
    push(TokenKind::end, "end of template");
    return std::move(tokens_);
  }

 private:
  bool at(std::string_view text) const { return rest_.substr(pos_, text.size()) == text; }
  char peek(size_t ahead = 0) const { return pos_ + ahead < rest_.size() ? rest_[pos_ + ahead] : '\0'; }
  void push(TokenKind kind, std::string text, Value value = {}) {
    tokens_.push_back({kind, line_, std::move(text), std::move(value)});
  }
  void move_to(size_t pos) {
    line_ += static_cast<int>(
        std::count(rest_.begin() + static_cast<ptrdiff_t>(pos_), rest_.begin() + static_cast<ptrdiff_t>(pos), '\n'));
    pos_ = pos;
  }
  size_t after_spaces(size_t pos) const {
    for (size_t next = pos; pos < rest_.size() && is_space(read_point(rest_, next)); pos = next) {
    }
    return pos;
  }
  // `pos` is behind "{%": where "raw" or "endraw" and its spaces end, npos when another tag is there.
  size_t after_word(size_t pos, std::string_view word) const {
    pos = after_spaces(pos);
    return rest_.substr(pos, word.size()) == word ? after_spaces(pos + word.size()) : std::string_view::npos;
  }

  // The length of a closing tag with its whitespace control at `pos`, 0 when there is none. `trims`: takes one line
  // end.
  size_t closing(size_t pos, std::string_view tag, bool plus, bool trims) const {
    if (pos >= rest_.size()) {
      return 0;
    }
    if (rest_.substr(pos, tag.size()) == tag) {
      pos += tag.size();
      return pos + (trims && pos < rest_.size() && rest_[pos] == '\n' ? 1 : 0);
    }
    if (rest_.substr(pos + 1, tag.size()) != tag) {
      return 0;
    }
    if (rest_[pos] == '-') {
      return after_spaces(pos + 1 + tag.size());
    }
    return plus && rest_[pos] == '+' ? pos + 1 + tag.size() : 0;
  }

  // Text up to a tag, shortened by the tag's own '-' or by lstrip_blocks.
  void push_data(size_t stop, char control, bool strips_line) {
    std::string_view data = rest_.substr(pos_, stop - pos_);
    std::string kept(data);
    if (control == '-') {
      kept = strip(data, std::nullopt, false, true);
    } else if (control != '+' && strips_line) {
      const size_t line = data.rfind('\n') + 1;  // 0 when there is none
      if ((line > 0 || line_starts_) && after_spaces(pos_ + line) >= stop) {
        kept = data.substr(0, line);
      }
    }
    if (!kept.empty()) {
      push(TokenKind::data, kept);
    }
    move_to(stop);
  }

  void read_data() {
    size_t tag = pos_;
    while (true) {
      tag = rest_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= rest_.size()) {
        push(TokenKind::data, std::string(rest_.substr(pos_)));
        move_to(rest_.size());
        return;
      }
      const char kind = rest_[tag + 1];
      if (kind == '{' || kind == '%' || kind == '#') {
        break;
      }
      ++tag;
    }
    const char kind = rest_[tag + 1];
    const char control =
        tag + 2 < rest_.size() && (rest_[tag + 2] == '-' || rest_[tag + 2] == '+') ? rest_[tag + 2] : ' ';
    push_data(tag, control, kind != '{');
    const size_t inside = tag + (control == ' ' ? 2 : 3);
    line_starts_ = false;
    if (kind == '#') {
      read_comment(inside);
    } else if (kind == '%' && read_raw(inside)) {
    } else {
      push(kind == '{' ? TokenKind::variable_begin : TokenKind::block_begin, kind == '{' ? "{{" : "{%");
      move_to(inside);
      read_tag(kind == '{');
    }
  }

  void close(size_t end) {
    line_starts_ = rest_[end - 1] == '\n';
    move_to(end);
  }

  void read_comment(size_t inside) {
    for (size_t i = inside; i < rest_.size(); ++i) {
      if (const size_t end = closing(i, "#}", true, true)) {
        return close(end);
      }
    }
    if (inside < rest_.size()) {  // Jinja takes "{#" at the very end for an empty comment
      fail_syntax("Missing end of comment tag", line_);
    }
    move_to(inside);
  }

  bool read_raw(size_t inside) {
    const size_t word = after_word(inside, "raw");
    if (word == std::string_view::npos) {
      return false;
    }
    const size_t begin = closing(word, "%}", false, false);
    if (begin == 0) {
      return false;
    }
    close(begin);
    for (size_t i = rest_.find("{%", pos_); i != std::string_view::npos; i = rest_.find("{%", i + 1)) {
      const char control = i + 2 < rest_.size() && (rest_[i + 2] == '-' || rest_[i + 2] == '+') ? rest_[i + 2] : ' ';
      const size_t name = after_word(i + (control == ' ' ? 2 : 3), "endraw");
      const size_t end = name == std::string_view::npos ? 0 : closing(name, "%}", true, true);
      if (end != 0) {
        push_data(i, control, true);
        close(end);
        return true;
      }
    }
    fail_syntax("Missing end of raw directive", line_);
  }

  void read_tag(bool variable) {
    std::string open;  // the brackets still to be closed
    while (pos_ < rest_.size()) {
      const size_t spaces = after_spaces(pos_);
      if (spaces != pos_) {
        move_to(spaces);
        continue;
      }
      const size_t end = open.empty() ? closing(pos_, variable ? "}}" : "%}", !variable, !variable) : 0;
      if (end != 0) {
        push(variable ? TokenKind::variable_end : TokenKind::block_end, variable ? "}}" : "%}");
        return close(end);
      }
      if (is_digit(peek())) {
        read_number();
      } else if (is_name_byte(peek())) {
        read_name();
      } else if (peek() == '"' || peek() == '\'') {
        read_text();
      } else {
        read_sign(open);
      }
    }
  }

  void read_name() {
    size_t stop = pos_;
    while (stop < rest_.size() && is_name_byte(rest_[stop])) {
      ++stop;
    }
    push(TokenKind::name, std::string(rest_.substr(pos_, stop - pos_)));
    pos_ = stop;
  }

  // digits, possibly grouped by single underscores; `pos` when there is none
  template <typename IsDigit>
  size_t after_digits(size_t pos, IsDigit is) const {
    while (pos < rest_.size() &&
           (is(rest_[pos]) || (rest_[pos] == '_' && pos + 1 < rest_.size() && is(rest_[pos + 1])))) {
      ++pos;
    }
    return pos;
  }

  void read_number() {
    size_t stop = after_digits(pos_, is_digit);
    bool real = false;
    // "a.0.1" is two subscripts, so no fraction follows a dot.
    if (pos_ == 0 || rest_[pos_ - 1] != '.') {
      const auto starts_digit = [&](size_t i) { return i < rest_.size() && is_digit(rest_[i]); };
      if (stop < rest_.size() && rest_[stop] == '.' && starts_digit(stop + 1)) {
        stop = after_digits(stop + 1, is_digit);
        real = true;
      }
      if (stop < rest_.size() && (rest_[stop] == 'e' || rest_[stop] == 'E')) {
        const size_t sign = stop + 1 < rest_.size() && (rest_[stop + 1] == '+' || rest_[stop + 1] == '-') ? 1 : 0;
        if (starts_digit(stop + 1 + sign)) {
          stop = after_digits(stop + 1 + sign, is_digit);
          real = true;
        }
      }
    }
    if (!real && peek() == '0') {
      stop = after_prefixed();
    }
    const std::string text(rest_.substr(pos_, stop - pos_));
    try {
      push(
          real ? TokenKind::real : TokenKind::integer, text,
          real ? Value(*parse_float(text)) : Value(*parse_integer(text, 0)));
    } catch (const Error& error) {
      fail_syntax(error.message(), line_);
    }
    pos_ = stop;
  }

  // 0x1F, 0o17, 0b1 or only zeros: "012" is 0 and then 12, which the parser refuses.
  size_t after_prefixed() const {
    const char letter = static_cast<char>(peek(1) | 0x20);
    const auto is = [letter](char c) {
      return letter == 'x' ? isxdigit(static_cast<unsigned char>(c)) != 0
                           : c >= '0' && c <= (letter == 'o' ? '7' : '1');
    };
    if (letter == 'x' || letter == 'o' || letter == 'b') {
      const size_t stop = after_digits(pos_ + 2, is);
      if (stop > pos_ + 2) {
        return stop;
      }
    }
    return after_digits(pos_, [](char c) { return c == '0'; });
  }

  void read_text() {
    const char quote = peek();
    size_t stop = pos_ + 1;
    while (stop < rest_.size() && rest_[stop] != quote) {
      stop += rest_[stop] == '\\' ? 2 : 1;
    }
    if (stop >= rest_.size()) {
      fail_syntax(
          fmt::format(
              "unexpected char {} at {}", repr(std::string_view(&quote, 1)), count_points(rest_.substr(0, pos_))),
          line_);
    }
    push(TokenKind::text, unescaped(rest_.substr(pos_ + 1, stop - pos_ - 1)));
    move_to(stop + 1);
  }

  // Python's unicode-escape: what it does not know stays as it is.
  std::string unescaped(std::string_view text) const {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      static constexpr std::string_view kLetters = "abfnrtv\\'\"";
      static constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
      const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
      if (const size_t found = kLetters.find(c); found != std::string_view::npos) {
        out += kMeanings[found];
      } else if (digits != 0) {
        append_point(out, read_code(text.substr(i + 1, digits), digits, c));
        i += digits;
      } else if (c >= '0' && c <= '7') {
        char32_t code = 0;
        size_t used = 0;
        for (; used < 3 && i + used < text.size() && text[i + used] >= '0' && text[i + used] <= '7'; ++used) {
          code = code * 8 + static_cast<char32_t>(text[i + used] - '0');
        }
        append_point(out, code);
        i += used - 1;
      } else if (c == 'N') {
        fail_syntax("character names (\\N) are not supported", line_);
      } else if (c != '\n') {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  char32_t read_code(std::string_view digits, size_t wanted, char letter) const {
    char32_t code = 0;
    for (const char c : digits) {
      const size_t value = std::string_view("0123456789abcdef").find(static_cast<char>(is_digit(c) ? c : c | 0x20));
      wanted -= value == std::string_view::npos ? 0 : 1;
      code = code * 16 + static_cast<char32_t>(value & 0xF);
    }
    if (wanted != 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      fail_syntax(fmt::format("bad character code \\{}{} in a text", letter, digits), line_);
    }
    return code;
  }

  void read_sign(std::string& open) {
    static constexpr std::array<std::string_view, 6> kPairs = {"//", "**", "==", "!=", ">=", "<="};
    std::string_view sign = rest_.substr(pos_, 2);
    if (std::find(kPairs.begin(), kPairs.end(), sign) == kPairs.end()) {
      sign = rest_.substr(pos_, 1);
      if (std::string_view("+-/*%~[](){}><=.:|,;").find(sign) == std::string_view::npos) {
        fail_syntax(fmt::format("unexpected char {} at {}", repr(sign), count_points(rest_.substr(0, pos_))), line_);
      }
    }
    if (sign == "(" || sign == "[" || sign == "{") {
      open += sign == "(" ? ')' : sign == "[" ? ']' : '}';
    } else if (sign == ")" || sign == "]" || sign == "}") {
      if (open.empty()) {
        fail_syntax(fmt::format("unexpected '{}'", sign), line_);
      }
      if (open.back() != sign[0]) {
        fail_syntax(fmt::format("unexpected '{}', expected '{}'", sign, open.back()), line_);
      }
      open.pop_back();
    }
    push(TokenKind::sign, std::string(sign));
    pos_ += sign.size();
  }

  std::string source_;
  std::string_view rest_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starts_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(normalized(source)).run();
}

}  // namespace shardpipe::text::jinja
