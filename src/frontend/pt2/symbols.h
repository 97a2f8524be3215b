#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/pt2/document.h"
#include "graph/size.h"

namespace shardpipe::pt2 {

/// The named dimensions of a program: what its symbols ("s70") are called.
class Symbols {
 public:
  /// Names the symbols of one extent (or integer) of an input: {"as_int": 4} or {"as_expr": …}. A symbol that was not
  /// named yet is called `name`, changed where another symbol has that name already.
  void name(const Document& extent, const std::string& name);

  /// The extent as a polynomial of named dimensions; nullopt when it is none, or depends on what no input shows.
  std::optional<graph::Size> size(const Document& extent) const;
  /// Of a list of extents.
  std::optional<graph::Shape> shape(const Document& extents) const;
  /// The same of a text such as "2*s70 + 1", the other spelling of an archive.
  std::optional<graph::Size> plain_size(std::string_view text) const;

  /// In the order of naming.
  const std::vector<std::string>& dimensions() const { return dimensions_; }

 private:
  std::map<std::string, std::string, std::less<>> names_;  // symbol -> dimension
  std::vector<std::string> dimensions_;
};

/// The polynomial that a sympy expression in srepr form is, over its own symbols: Add, Mul, Pow with a small exponent,
/// Integer, Symbol. nullopt for anything else.
std::optional<graph::Size> parse_srepr(std::string_view text);

}  // namespace shardpipe::pt2
