#pragma once

#include <string>
#include <string_view>

#include "graph/graph.h"

namespace shardpipe::graph {

/// Reads the tokens of one line of graph text. Spaces before a token do not matter. Every failure is an Error(input)
/// that names the file, the line and the column.
class Line {
 public:
  Line(std::string_view text, const std::string& where, int number) : text_(text), where_(where), number_(number) {}

  [[noreturn]] void fail(const std::string& expected) const;

  bool done();
  /// The next character; 0 at the end.
  char peek();
  /// Skips `token` when it comes next.
  bool accept(std::string_view token);
  void expect(std::string_view token);

  /// Letters, digits and the given further characters.
  std::string_view word(std::string_view also);
  std::string quoted();
  /// From 0 to `limit`.
  int32_t id(int32_t limit);
  /// "%12"
  ValueId value_id();
  c10::OperatorHandle op(const std::string& name);
  Argument argument(int depth = 0);
  /// What follows "autocast(".
  Autocast autocast();
  /// Sets type, dtype and shape of `value`.
  void type(Value& value);

 private:
  void skip_spaces();
  int64_t integer();
  bool boolean();
  double floating();
  c10::IValue number();
  Size size();
  template <typename F>
  void list(F item);

  std::string_view text_;
  const std::string& where_;
  int number_;
  size_t at_ = 0;
};

}  // namespace shardpipe::graph
