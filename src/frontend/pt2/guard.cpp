#include "frontend/pt2/guard.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "base/error.h"
#include "graph/scalar.h"

namespace shardpipe::pt2 {
namespace {

using c10::IValue;
using graph::ScalarOperator;

constexpr int kMaxDepth = 64;

struct NotUnderstood {};

struct Operator {
  std::string_view text;
  ScalarOperator op;
};
// Longer ones first.
constexpr std::array kComparisons = {Operator{"==", ScalarOperator::eq}, Operator{"!=", ScalarOperator::ne},
                                     Operator{"<=", ScalarOperator::le}, Operator{">=", ScalarOperator::ge},
                                     Operator{"<", ScalarOperator::lt},  Operator{">", ScalarOperator::gt}};
constexpr std::array kSums = {Operator{"+", ScalarOperator::add}, Operator{"-", ScalarOperator::sub}};
constexpr std::array kProducts = {
    Operator{"//", ScalarOperator::floordiv}, Operator{"/", ScalarOperator::truediv},
    Operator{"*", ScalarOperator::mul}, Operator{"%", ScalarOperator::mod}};
constexpr std::array kFunctions = {
    Operator{"max", ScalarOperator::max},
    Operator{"Max", ScalarOperator::max},
    Operator{"min", ScalarOperator::min},
    Operator{"Min", ScalarOperator::min},
    Operator{"Mod", ScalarOperator::mod},
    Operator{"PythonMod", ScalarOperator::mod},
    Operator{"FloorDiv", ScalarOperator::floordiv},
    Operator{"CleanDiv", ScalarOperator::floordiv},
    Operator{"Eq", ScalarOperator::eq},
    Operator{"Ne", ScalarOperator::ne}};

// A recursive descent over Python's grammar of expressions, which evaluates as it goes.
class Evaluator {
 public:
  Evaluator(std::string_view text, const std::map<std::string, at::Tensor>& inputs) : text_(text), inputs_(inputs) {}

  GuardResult run() {
    result_.holds = truth(disjunction());
    skip_spaces();
    if (at_ != text_.size()) {
      throw NotUnderstood();
    }
    return std::move(result_);
  }

 private:
  struct Deeper {
    explicit Deeper(int& depth) : depth_(depth) {
      if (++depth_ > kMaxDepth) {
        throw NotUnderstood();
      }
    }
    ~Deeper() { --depth_; }
    int& depth_;
  };

  void skip_spaces() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) {
      ++at_;
    }
  }
  bool accept(std::string_view token) {
    skip_spaces();
    if (text_.substr(at_, token.size()) != token) {
      return false;
    }
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!accept(token)) {
      throw NotUnderstood();
    }
  }
  bool accept_word(std::string_view word) {
    skip_spaces();
    const size_t end = at_ + word.size();
    const bool longer =
        end < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[end])) || text_[end] == '_');
    return !longer && accept(word);
  }

  static IValue compute(ScalarOperator op, const IValue& a, const IValue& b) {
    const std::array operands = {a, b};
    return graph::compute(op, operands);
  }
  static bool truth(const IValue& value) { return !compute(ScalarOperator::eq, value, IValue(0)).toBool(); }

  // Every operand is parsed, needed or not.
  IValue disjunction() {
    const Deeper deeper(depth_);
    IValue value = conjunction();
    while (accept_word("or")) {
      const IValue other = conjunction();
      value = truth(value) || truth(other);
    }
    return value;
  }
  IValue conjunction() {
    IValue value = negation();
    while (accept_word("and")) {
      const IValue other = negation();
      value = truth(value) && truth(other);
    }
    return value;
  }
  IValue negation() {
    const Deeper deeper(depth_);
    return accept_word("not") ? IValue(!truth(negation())) : comparison();
  }
  IValue comparison() {
    IValue left = sum();
    bool any = false;
    bool holds = true;
    while (const std::optional<ScalarOperator> op = accept_one(kComparisons)) {
      IValue right = sum();
      holds = compute(*op, left, right).toBool() && holds;
      left = std::move(right);
      any = true;
    }
    return any ? IValue(holds) : left;
  }
  IValue sum() {
    IValue value = product();
    while (const std::optional<ScalarOperator> op = accept_one(kSums)) {
      value = compute(*op, value, product());
    }
    return value;
  }
  IValue product() {
    IValue value = factor();
    while (const std::optional<ScalarOperator> op = accept_one(kProducts)) {
      value = compute(*op, value, factor());
    }
    return value;
  }
  IValue factor() {
    const Deeper deeper(depth_);
    if (accept("-")) {
      return compute(ScalarOperator::sub, IValue(0), factor());
    }
    IValue value = atom();
    if (accept("**")) {
      value = compute(ScalarOperator::pow, value, factor());
    }
    return value;
  }
  IValue atom() {
    skip_spaces();
    if (accept("(")) {
      IValue value = disjunction();
      expect(")");
      return value;
    }
    if (accept_word("True")) {
      return true;
    }
    if (accept_word("False")) {
      return false;
    }
    for (const Operator& function : kFunctions) {
      if (accept_word(function.text)) {
        expect("(");
        IValue value = disjunction();
        while (accept(",")) {
          value = compute(function.op, value, disjunction());
        }
        expect(")");
        return value;
      }
    }
    return accept("L[") ? reference() : number();
  }

  template <size_t N>
  std::optional<ScalarOperator> accept_one(const std::array<Operator, N>& operators) {
    skip_spaces();
    if (text_.substr(at_, 2) == "**") {
      return std::nullopt;
    }
    for (const Operator& one : operators) {
      if (accept(one.text)) {
        return one.op;
      }
    }
    return std::nullopt;
  }

  IValue number() {
    const size_t end = std::min(text_.find_first_not_of("0123456789.", at_), text_.size());
    const std::string_view token = text_.substr(at_, end - at_);
    at_ = end;
    if (token.find('.') != std::string_view::npos) {
      double value = 0;
      const auto [rest, error] = std::from_chars(token.data(), token.data() + token.size(), value);
      if (error != std::errc() || rest != token.data() + token.size()) {
        throw NotUnderstood();
      }
      return value;
    }
    int64_t value = 0;
    const auto [rest, error] = std::from_chars(token.data(), token.data() + token.size(), value);
    if (error != std::errc() || rest != token.data() + token.size()) {
      throw NotUnderstood();
    }
    return value;
  }
  int64_t integer() {
    skip_spaces();
    const IValue value = number();
    if (!value.isInt()) {
      throw NotUnderstood();
    }
    return value.toInt();
  }

  // Behind "L[": the path of an input and what is asked of it.
  IValue reference() {
    std::string name;
    do {
      skip_spaces();
      std::string key;
      if (accept("'")) {
        const size_t end = std::min(text_.find('\'', at_), text_.size());
        key = text_.substr(at_, end - at_);
        at_ = end;
        expect("'");
      } else {
        key = std::to_string(integer());
      }
      expect("]");
      name += name.empty() ? key : "." + key;
    } while (accept("["));
    const auto found = inputs_.find(name);
    if (found == inputs_.end()) {
      throw NotUnderstood();
    }
    const at::Tensor& tensor = found->second;
    if (accept(".size()[") || accept(".shape[")) {
      return at("dimension", name, tensor.sizes());
    }
    if (accept(".stride()[")) {
      return at("stride", name, tensor.strides());
    }
    if (accept(".storage_offset()")) {
      return 0;  // inputs come from a file, each in a storage of its own
    }
    if (accept(".dim()") || accept(".ndim")) {
      return tensor.dim();
    }
    if (accept(".") || tensor.numel() != 1 || !at::isIntegralType(tensor.scalar_type(), true)) {
      throw NotUnderstood();
    }
    const auto value = tensor.item<int64_t>();
    result_.seen.emplace_back(name, fmt::format("{} is {}", name, value));
    return value;
  }
  IValue at(const char* what, const std::string& name, at::IntArrayRef list) {
    const int64_t index = integer();
    expect("]");
    if (index < 0 || index >= static_cast<int64_t>(list.size())) {
      throw NotUnderstood();
    }
    const int64_t value = list[static_cast<size_t>(index)];
    result_.seen.emplace_back(name, fmt::format("{} {} of {} is {}", what, index, name, value));
    return value;
  }

  std::string_view text_;
  const std::map<std::string, at::Tensor>& inputs_;
  GuardResult result_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::optional<GuardResult> evaluate_guard(std::string_view guard, const std::map<std::string, at::Tensor>& inputs) {
  try {
    return Evaluator(guard, inputs).run();
  } catch (const NotUnderstood&) {
    return std::nullopt;
  } catch (const Error&) {  // a division by zero, numbers beyond 64 bits
    return std::nullopt;
  }
}

}  // namespace shardpipe::pt2
