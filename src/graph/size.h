#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace shardpipe::graph {

/// Values of the named dimensions of one call: {"tokens": 7, "slots": 2}.
using Dimensions = std::map<std::string, int64_t, std::less<>>;

/// One extent of a shape: a polynomial with integer coefficients over named dimensions, such as `64`, `batch*seq` or
/// `2*tokens+1`. A plain number has no terms with symbols.
class Size {
 public:
  Size() = default;
  Size(int64_t constant);  // NOLINT: a number is a size
  /// One named dimension. Throws Error(input) unless the name is letters, digits and _, not a digit first.
  static Size symbol(std::string name);

  /// Reads what str() writes. Throws Error(input) on anything else.
  static Size parse(std::string_view text);
  std::string str() const;

  bool is_constant() const;
  /// The value when is_constant(); throws Error(internal) otherwise.
  int64_t constant() const;
  /// Throws Error(internal) naming a dimension that `dimensions` lacks, Error(input) when the number exceeds 64 bits
  /// (as
  /// + and * do for coefficients).
  int64_t evaluate(const Dimensions& dimensions) const;
  std::vector<std::string> symbols() const;

  /// Sorted dimensions of a product -> its coefficient; the empty product is the constant. No zero coefficients.
  const std::map<std::vector<std::string>, int64_t>& terms() const { return terms_; }

  Size operator+(const Size& other) const;
  Size operator*(const Size& other) const;
  bool operator==(const Size&) const = default;

 private:
  void add_term(std::vector<std::string> symbols, int64_t coefficient);
  std::map<std::vector<std::string>, int64_t> terms_;
};

using Shape = std::vector<Size>;

/// The numbers of a shape. Throws as Size::evaluate.
std::vector<int64_t> evaluate(const Shape& shape, const Dimensions& dimensions);
/// "[tokens, 576]"
std::string to_string(const Shape& shape);

}  // namespace shardpipe::graph
