#include "graph/size.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "base/error.h"

namespace shardpipe::graph {

Size::Size(int64_t constant) {
  if (constant != 0) {
    terms_[{}] = constant;
  }
}

Size Size::symbol(std::string name) {
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
      product *= found->second;
    }
    sum += product;
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

Size Size::operator+(const Size& other) const {
  Size sum = *this;
  for (const auto& [symbols, coefficient] : other.terms_) {
    if ((sum.terms_[symbols] += coefficient) == 0) {
      sum.terms_.erase(symbols);
    }
  }
  return sum;
}

Size Size::operator*(const Size& other) const {
  Size product;
  for (const auto& [a, x] : terms_) {
    for (const auto& [b, y] : other.terms_) {
      std::vector<std::string> symbols = a;
      symbols.insert(symbols.end(), b.begin(), b.end());
      std::sort(symbols.begin(), symbols.end());
      if ((product.terms_[symbols] += x * y) == 0) {
        product.terms_.erase(symbols);
      }
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
    int64_t sign = 1;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) {
      sign = text[at++] == '-' ? -1 : 1;
    }
    Size product(sign);
    while (true) {
      const size_t end = std::min(text.find_first_of("*+-", at), text.size());
      const std::string_view factor = text.substr(at, end - at);
      if (factor.empty()) {
        fail();
      }
      if (std::isdigit(static_cast<unsigned char>(factor[0]))) {
        int64_t number = 0;
        const auto [rest, error] = std::from_chars(factor.data(), factor.data() + factor.size(), number);
        if (error != std::errc() || rest != factor.data() + factor.size()) {
          fail();
        }
        product = product * Size(number);
      } else {
        product = product * Size::symbol(std::string(factor));
      }
      at = end;
      if (at >= text.size() || text[at] != '*') {
        break;
      }
      ++at;
    }
    sum = sum + product;
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
