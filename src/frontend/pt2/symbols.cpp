#include "frontend/pt2/symbols.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/error.h"

namespace shardpipe::pt2 {
namespace {

using graph::Size;

// Far more than real extents have; a hostile product of sums, or power of powers, must not grow without end.
constexpr size_t kMaxTerms = 64;
constexpr size_t kMaxDegree = 64;
constexpr int kMaxDepth = 64;
constexpr int64_t kMaxExponent = 8;

// Stands for: no polynomial.
struct NotPolynomial {};

class Srepr {
 public:
  explicit Srepr(std::string_view text) : text_(text) {}

  Size parse() {
    const Size size = expression(0);
    if (at_ != text_.size()) {
      throw NotPolynomial();
    }
    return size;
  }

 private:
  bool accept(std::string_view token) {
    while (at_ < text_.size() && text_[at_] == ' ') {
      ++at_;
    }
    if (text_.substr(at_, token.size()) != token) {
      return false;
    }
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!accept(token)) {
      throw NotPolynomial();
    }
  }
  int64_t integer() {
    int64_t value = 0;
    const auto [rest, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error != std::errc()) {
      throw NotPolynomial();
    }
    at_ = static_cast<size_t>(rest - text_.data());
    return value;
  }

  Size expression(int depth) {
    if (depth > kMaxDepth) {
      throw NotPolynomial();
    }
    if (accept("Integer(")) {
      const int64_t value = integer();
      expect(")");
      return value;
    }
    if (accept("Symbol('")) {
      const size_t end = std::min(text_.find('\'', at_), text_.size());
      const std::string name(text_.substr(at_, end - at_));
      at_ = std::min(text_.find(')', end), text_.size());  // over the assumptions: positive=True
      expect(")");
      return Size::symbol(name);
    }
    const bool add = accept("Add(");
    if (add || accept("Mul(")) {
      Size result = expression(depth + 1);
      while (accept(",")) {
        const Size operand = expression(depth + 1);
        result = checked(add ? result + operand : result * operand);
      }
      expect(")");
      return result;
    }
    expect("Pow(");
    const Size base = expression(depth + 1);
    expect(",");
    const Size exponent = expression(depth + 1);
    expect(")");
    if (!exponent.is_constant() || exponent.constant() < 0 || exponent.constant() > kMaxExponent) {
      throw NotPolynomial();
    }
    Size result = 1;
    for (int64_t i = 0; i < exponent.constant(); ++i) {
      result = checked(result * base);
    }
    return result;
  }

  static Size checked(Size size) {
    const auto high = [](const auto& term) { return term.first.size() > kMaxDegree; };
    if (size.terms().size() > kMaxTerms || std::any_of(size.terms().begin(), size.terms().end(), high)) {
      throw NotPolynomial();
    }
    return size;
  }

  std::string_view text_;
  size_t at_ = 0;
};

// With other names of the symbols; nullopt when one has none.
std::optional<Size> renamed(const Size& size, const std::map<std::string, std::string, std::less<>>& names) {
  Size result;
  for (const auto& [symbols, coefficient] : size.terms()) {
    Size term = coefficient;
    for (const std::string& symbol : symbols) {
      const auto found = names.find(symbol);
      if (found == names.end()) {
        return std::nullopt;
      }
      term = term * Size::symbol(found->second);
    }
    result = result + term;
  }
  return result;
}

// The expression of {"as_expr": {"expr_str": …}}.
std::optional<Size> expression_of(const Document& extent) {
  const auto [kind, value] = union_of(extent);
  if (kind == "as_int") {
    return integer_of(value);
  }
  return kind == "as_expr" ? parse_srepr(text_of(value.at("expr_str"))) : std::nullopt;
}

std::string identifier(const std::string& text) {
  std::string name = text;
  for (char& c : name) {
    c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  }
  return name.empty() || std::isdigit(static_cast<unsigned char>(name[0])) ? "_" + name : name;
}

}  // namespace

std::optional<Size> parse_srepr(std::string_view text) {
  try {
    return Srepr(text).parse();
  } catch (const NotPolynomial&) {
    return std::nullopt;
  } catch (const Error&) {  // beyond 64 bits, or a symbol of another alphabet
    return std::nullopt;
  }
}

void Symbols::name(const Document& extent, const std::string& name) {
  const std::optional<Size> size = expression_of(extent);
  if (!size) {
    return;
  }
  const std::vector<std::string> symbols = size->symbols();
  for (const std::string& symbol : symbols) {
    if (names_.contains(symbol)) {
      continue;
    }
    // An extent that is the symbol gives it its name; one that is computed from it is something else.
    const std::string wanted = identifier(*size == Size::symbol(symbol) ? name : name + "_" + symbol);
    std::string free = wanted;
    for (int i = 2; std::find(dimensions_.begin(), dimensions_.end(), free) != dimensions_.end(); ++i) {
      free = wanted + "_" + std::to_string(i);
    }
    names_.emplace(symbol, free);
    dimensions_.push_back(std::move(free));
  }
}

std::optional<Size> Symbols::size(const Document& extent) const {
  const std::optional<Size> size = expression_of(extent);
  return size ? renamed(*size, names_) : std::nullopt;
}

std::optional<graph::Shape> Symbols::shape(const Document& extents) const {
  graph::Shape shape;
  for (const Document& extent : list_of(extents)) {
    std::optional<Size> one = size(extent);
    if (!one) {
      return std::nullopt;
    }
    shape.push_back(std::move(*one));
  }
  return shape;
}

std::optional<Size> Symbols::plain_size(std::string_view text) const {
  std::string dense(text);
  std::erase(dense, ' ');
  try {
    return renamed(Size::parse(dense), names_);
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace shardpipe::pt2
