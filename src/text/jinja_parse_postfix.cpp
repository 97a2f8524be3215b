// What may follow a primary expression: subscripts, calls, filters and tests.
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja_parser.h"

namespace shardpipe::text::jinja {

ExpressionPtr Parser::parse_postfix(ExpressionPtr node) {
  while (true) {
    if (current().is_sign(".") || current().is_sign("[")) {
      node = parse_subscript(std::move(node));
    } else if (current().is_sign("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr Parser::parse_filters_and_tests(ExpressionPtr node) {
  while (true) {
    if (current().is_sign("|")) {
      node = parse_filter(std::move(node));
    } else if (current().is_name("is")) {
      node = parse_test(std::move(node));
    } else if (current().is_sign("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr Parser::parse_subscript(ExpressionPtr node) {
  const Token token = next();
  if (token.text == "[") {
    return parse_slice(std::move(node));
  }
  const Token attribute = next();
  if (attribute.kind == TokenKind::name) {
    return make(ExpressionKind::attribute, token.line, operands(std::move(node)), attribute.text);
  }
  if (attribute.kind != TokenKind::integer) {
    fail_syntax("expected name or number", attribute.line);
  }
  ExpressionPtr index = make(ExpressionKind::constant, attribute.line);
  index->value = attribute.value;
  return make(ExpressionKind::item, token.line, operands(std::move(node), std::move(index)));
}

// What follows "[": an index, several (a tuple), or a slice.
ExpressionPtr Parser::parse_slice(ExpressionPtr node) {
  const int line = current().line;
  ExpressionPtr bounds[3];
  bool slice = false;
  for (int i = 0; i < 3; ++i) {
    if (!current().is_sign(":") && !current().is_sign("]") && !current().is_sign(",")) {
      bounds[i] = parse_expression();
    }
    if (i == 2 || !skip_sign(":")) {
      break;
    }
    slice = true;
  }
  if (slice) {
    if (!current().is_sign("]")) {
      fail_unexpected("']'");
    }
    next();
    return make(
        ExpressionKind::slice, line,
        operands(std::move(node), std::move(bounds[0]), std::move(bounds[1]), std::move(bounds[2])));
  }
  if (bounds[0] && current().is_sign("]")) {
    next();
    return make(ExpressionKind::item, line, operands(std::move(node), std::move(bounds[0])));
  }
  // Several, or none: Jinja takes x[] for x[()].
  std::vector<ExpressionPtr> parts;
  if (bounds[0]) {
    parts.push_back(std::move(bounds[0]));
  }
  while (!current().is_sign("]")) {
    expect_sign(",");
    parts.push_back(parse_expression());
  }
  next();
  return make(
      ExpressionKind::item, line, operands(std::move(node), make(ExpressionKind::tuple, line, std::move(parts))));
}

CallArguments Parser::parse_arguments(int& depth) {
  const int line = current().line;
  expect_sign("(");
  CallArguments arguments;
  const auto ensure = [line](bool valid) {
    if (!valid) {
      fail_syntax("invalid syntax for function call expression", line);
    }
  };
  const auto parse = [&] {
    ExpressionPtr value = parse_expression();
    depth = std::max(depth, value->depth + 1);
    return value;
  };
  bool first = true;
  while (!current().is_sign(")")) {
    if (!std::exchange(first, false)) {
      expect_sign(",");
      if (current().is_sign(")")) {
        break;
      }
    }
    if (skip_sign("*")) {
      ensure(!arguments.star && !arguments.double_star);
      arguments.star = parse();
    } else if (skip_sign("**")) {
      ensure(!arguments.double_star);
      arguments.double_star = parse();
    } else if (current().kind == TokenKind::name && look().is_sign("=")) {
      ensure(!arguments.double_star);
      const std::string name = next().text;
      next();
      arguments.named.emplace_back(name, parse());
    } else {
      ensure(!arguments.star && !arguments.double_star && arguments.named.empty());
      arguments.positional.push_back(parse());
    }
  }
  expect_sign(")");
  return arguments;
}

ExpressionPtr Parser::parse_call(ExpressionPtr node) {
  ExpressionPtr call = make(ExpressionKind::call, current().line, operands(std::move(node)));
  call->arguments = parse_arguments(call->depth);
  return call;
}

ExpressionPtr Parser::parse_filter(ExpressionPtr node, bool inline_start) {
  while (inline_start || current().is_sign("|")) {
    if (!std::exchange(inline_start, false)) {
      next();
    }
    const Token token = expect_name();
    std::string name = token.text;
    while (skip_sign(".")) {
      name += "." + expect_name().text;
    }
    node = make(ExpressionKind::filter, token.line, operands(std::move(node)), name);
    if (current().is_sign("(")) {
      node->arguments = parse_arguments(node->depth);
    }
  }
  return node;
}

ExpressionPtr Parser::parse_test(ExpressionPtr node) {
  const int line = next().line;
  const bool negated = skip_name("not");
  std::string name = expect_name().text;
  while (skip_sign(".")) {
    name += "." + expect_name().text;
  }
  node = make(ExpressionKind::test, line, operands(std::move(node)), name);
  const Token& token = current();
  const bool argument_follows =
      token.kind == TokenKind::text || token.kind == TokenKind::integer || token.kind == TokenKind::real ||
      token.is_sign("[") || token.is_sign("{") ||
      (token.kind == TokenKind::name && token.text != "else" && token.text != "or" && token.text != "and");
  if (token.is_sign("(")) {
    node->arguments = parse_arguments(node->depth);
  } else if (argument_follows) {
    if (token.is_name("is")) {
      fail_syntax("you cannot chain multiple tests with is", line);
    }
    node->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  return negated ? make(ExpressionKind::logical_not, line, operands(std::move(node))) : std::move(node);
}

}  // namespace shardpipe::text::jinja
