#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace shardpipe::text::jinja {

enum class TokenKind {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  text,
  integer,
  real,
  sign,
  end
};

struct Token {
  TokenKind kind;
  int line;
  std::string text;  ///< data, name, decoded text or sign
  Value value;       ///< of integer and real

  bool is_sign(std::string_view wanted) const { return kind == TokenKind::sign && text == wanted; }
  bool is_name(std::string_view wanted) const { return kind == TokenKind::name && text == wanted; }
};

/// Cuts a template into tokens by the rules of Jinja 3.1 with trim_blocks and lstrip_blocks; comments are dropped.
/// The last token is `end`. Throws Error(input) "..., line N" for text that is no token and for open comments and raw
/// blocks.
std::vector<Token> tokenize(std::string_view source);

/// Throws Error(input) naming the line.
[[noreturn]] void fail_syntax(const std::string& message, int line);

}  // namespace shardpipe::text::jinja
