#include "graph/size.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <set>

#include "base/error.h"

namespace shardpipe::graph {
namespace {

int64_t add(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) {
    throw_input("a size is larger than 64 bits hold: {} + {}", a, b);
  }
  return sum;
}

int64_t multiply(int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    throw_input("a size is larger than 64 bits hold: {} * {}", a, b);
  }
  return product;
}

bool is_identifier(std::string_view text) {
  const auto letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; };
  const auto digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)); };
  return !text.empty() && letter(text[0]) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return letter(c) || digit(c); });
}

}  // namespace

Size::Size(int64_t constant) {
  if (constant != 0) {
    terms_[{}] = constant;
  }
}

Size Size::symbol(std::string name) {
  if (!is_identifier(name)) {
    throw_input("\"{}\" is not the name of a dimension: letters, digits and _, not a digit first", name);
  }
  Size size;
  size.terms_[{std::move(name)}] = 1;
  return size;
}

bool Size::is_constant() const {
  return terms_.empty() || (terms_.size() == 1 && terms_.begin()->first.empty());
}

int64_t Size::constant() const {
  if (!is_constant()) {
    throw_internal("size {} is not a number", str());
  }
  return terms_.empty() ? 0 : terms_.begin()->second;
}

int64_t Size::evaluate(const Dimensions& dimensions) const {
  int64_t sum = 0;
  for (const auto& [symbols, coefficient] : terms_) {
    int64_t product = coefficient;
    for (const std::string& symbol : symbols) {
      const auto found = dimensions.find(symbol);
      if (found == dimensions.end()) {
        throw_internal("dimension {} of size {} has no value", symbol, str());
      }
      product = multiply(product, found->second);
    }
    sum = add(sum, product);
  }
  return sum;
}

std::vector<std::string> Size::symbols() const {
  std::set<std::string> names;
  for (const auto& [symbols, coefficient] : terms_) {
    names.insert(symbols.begin(), symbols.end());
  }
  return {names.begin(), names.end()};
}

void Size::add_term(std::vector<std::string> symbols, int64_t coefficient) {
  const auto term = terms_.try_emplace(std::move(symbols), 0).first;
  term->second = add(term->second, coefficient);
  if (term->second == 0) {
    terms_.erase(term);
  }
}

Size Size::operator+(const Size& other) const {
  Size sum = *this;
  for (const auto& [symbols, coefficient] : other.terms_) {
    sum.add_term(symbols, coefficient);
  }
  return sum;
}

Size Size::operator*(const Size& other) const {
  Size product;
  for (const auto& [a, x] : terms_) {
    for (const auto& [b, y] : other.terms_) {
      std::vector<std::string> symbols;
      std::merge(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(symbols));
      product.add_term(std::move(symbols), multiply(x, y));
    }
  }
  return product;
}

std::string Size::str() const {
  if (terms_.empty()) {
    return "0";
  }
  std::string text;
  // Symbols first, the constant last: `tokens+1`.
  for (auto term = terms_.rbegin(); term != terms_.rend(); ++term) {
    const auto& [symbols, coefficient] = *term;
    std::string part;
    if (symbols.empty() || coefficient != 1) {
      part = std::to_string(coefficient);
    }
    for (const std::string& symbol : symbols) {
      part += part.empty() ? symbol : "*" + symbol;
    }
    text += text.empty() || part[0] == '-' ? part : "+" + part;
  }
  return text;
}

Size Size::parse(std::string_view text) {
  Size sum;
  const auto fail = [&] { throw_input("\"{}\" is not a size such as 64 or 2*tokens+1", text); };
  size_t at = 0;
  do {
    int64_t coefficient = 1;
    std::vector<std::string> symbols;
    if (at < text.size() && (text[at] == '-' || (text[at] == '+' && at > 0))) {
      coefficient = text[at++] == '-' ? -1 : 1;
    }
    while (true) {
      const size_t end = std::min(text.find_first_of("*+-", at), text.size());
      const std::string_view factor = text.substr(at, end - at);
      if (is_identifier(factor)) {
        symbols.emplace_back(factor);
      } else {
        uint64_t number = 0;
        const auto [rest, error] = std::from_chars(factor.data(), factor.data() + factor.size(), number);
        // The smallest 64-bit number has no positive counterpart.
        if (error != std::errc() || rest != factor.data() + factor.size() ||
            __builtin_mul_overflow(coefficient, number, &coefficient)) {
          fail();
        }
      }
      at = end;
      if (at >= text.size() || text[at] != '*') {
        break;
      }
      ++at;
    }
    std::sort(symbols.begin(), symbols.end());
    sum.add_term(std::move(symbols), coefficient);
  } while (at < text.size());
  return sum;
}

std::vector<int64_t> evaluate(const Shape& shape, const Dimensions& dimensions) {
  std::vector<int64_t> numbers;
  numbers.reserve(shape.size());
  for (const Size& size : shape) {
    numbers.push_back(size.evaluate(dimensions));
  }
  return numbers;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + shape[i].str();
  }
  return text + "]";
}

}  // namespace shardpipe::graph
