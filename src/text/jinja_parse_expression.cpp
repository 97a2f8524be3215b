#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_parser.h"

namespace shardpipe::text::jinja {

ExpressionPtr Parser::make(ExpressionKind kind, int line, std::vector<ExpressionPtr> parts, std::string name) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  node->name = std::move(name);
  node->operands = std::move(parts);
  for (const ExpressionPtr& part : node->operands) {
    node->depth = std::max(node->depth, part ? part->depth + 1 : 1);
  }
  if (node->depth > kMaxChain) {
    fail_syntax(fmt::format("an expression chains more than {} operations", kMaxChain), line);
  }
  return node;
}

ExpressionPtr Parser::parse_target(TargetKind kind) {
  if (kind == TargetKind::name_only) {
    const Token token = expect_name();
    static constexpr std::string_view kConstants[] = {"true", "false", "none", "True", "False", "None"};
    if (std::find(std::begin(kConstants), std::end(kConstants), token.text) != std::end(kConstants)) {
      fail_syntax(fmt::format("can't assign to '{}'", token.text), token.line);
    }
    return make(ExpressionKind::name, token.line, {}, token.text);
  }
  const int line = current().line;
  std::vector<ExpressionPtr> parts;
  bool tuple = false;
  while (true) {
    if (!parts.empty()) {
      expect_sign(",");
    }
    if (at_tuple_end()) {
      break;
    }
    parts.push_back(parse_primary(kind == TargetKind::with_namespace));
    if (!current().is_sign(",")) {
      break;
    }
    tuple = true;
  }
  if (parts.empty()) {
    fail_unexpected("an expression");
  }
  ExpressionPtr target = tuple ? make(ExpressionKind::tuple, line, std::move(parts)) : std::move(parts[0]);
  const auto assignable = [](const auto& self, const Expression& node) -> bool {
    if (node.kind == ExpressionKind::tuple) {
      return std::all_of(
          node.operands.begin(), node.operands.end(), [&](const auto& part) { return self(self, *part); });
    }
    return node.kind == ExpressionKind::name || node.kind == ExpressionKind::member;
  };
  if (!assignable(assignable, *target)) {
    fail_syntax("can't assign to this expression", line);
  }
  return target;
}

bool Parser::at_tuple_end() const {
  const TokenKind kind = current().kind;
  return kind == TokenKind::variable_end || kind == TokenKind::block_end || current().is_sign(")");
}

ExpressionPtr Parser::parse_tuple(bool conditional, bool parentheses) {
  const int line = current().line;
  std::vector<ExpressionPtr> parts;
  bool tuple = false;
  while (true) {
    if (!parts.empty()) {
      expect_sign(",");
    }
    if (at_tuple_end()) {
      break;
    }
    parts.push_back(parse_expression(conditional));
    if (!current().is_sign(",")) {
      break;
    }
    tuple = true;
  }
  if (!tuple && !parts.empty()) {
    return std::move(parts[0]);
  }
  if (!tuple && !parentheses) {
    fail_unexpected("an expression");
  }
  return make(ExpressionKind::tuple, line, std::move(parts));
}

ExpressionPtr Parser::parse_expression(bool conditional) {
  const Nesting nesting(*this);
  return conditional ? parse_conditional() : parse_or();
}

ExpressionPtr Parser::parse_conditional() {
  int line = current().line;
  ExpressionPtr value = parse_or();
  while (skip_name("if")) {
    ExpressionPtr test = parse_or();
    ExpressionPtr other = skip_name("else") ? parse_expression() : nullptr;
    value = make(ExpressionKind::conditional, line, operands(std::move(test), std::move(value), std::move(other)));
    line = current().line;
  }
  return value;
}

ExpressionPtr Parser::parse_or() {
  ExpressionPtr left = parse_and();
  while (current().is_name("or")) {
    const int line = next().line;
    left = make(ExpressionKind::logical_or, line, operands(std::move(left), parse_and()));
  }
  return left;
}

ExpressionPtr Parser::parse_and() {
  ExpressionPtr left = parse_not();
  while (current().is_name("and")) {
    const int line = next().line;
    left = make(ExpressionKind::logical_and, line, operands(std::move(left), parse_not()));
  }
  return left;
}

ExpressionPtr Parser::parse_not() {
  if (!current().is_name("not")) {
    return parse_compare();
  }
  const Nesting nesting(*this);
  const int line = next().line;
  return make(ExpressionKind::logical_not, line, operands(parse_not()));
}

ExpressionPtr Parser::parse_compare() {
  const int line = current().line;
  std::vector<ExpressionPtr> parts = operands(parse_sum());
  std::vector<std::string> signs;
  while (true) {
    static constexpr std::string_view kSigns[] = {"==", "!=", "<", "<=", ">", ">="};
    if (current().kind == TokenKind::sign &&
        std::find(std::begin(kSigns), std::end(kSigns), current().text) != std::end(kSigns)) {
      signs.push_back(next().text);
    } else if (skip_name("in")) {
      signs.emplace_back("in");
    } else if (current().is_name("not") && look().is_name("in")) {
      next();
      next();
      signs.emplace_back("not in");
    } else {
      break;
    }
    parts.push_back(parse_sum());
  }
  if (signs.empty()) {
    return std::move(parts[0]);
  }
  ExpressionPtr node = make(ExpressionKind::compare, line, std::move(parts));
  node->signs = std::move(signs);
  return node;
}

ExpressionPtr Parser::parse_sum() {
  ExpressionPtr left = parse_concat();
  while (current().is_sign("+") || current().is_sign("-")) {
    const Token sign = next();
    left = make(ExpressionKind::arithmetic, sign.line, operands(std::move(left), parse_concat()), sign.text);
  }
  return left;
}

ExpressionPtr Parser::parse_concat() {
  const int line = current().line;
  std::vector<ExpressionPtr> parts = operands(parse_product());
  while (skip_sign("~")) {
    parts.push_back(parse_product());
  }
  return parts.size() == 1 ? std::move(parts[0]) : make(ExpressionKind::concat, line, std::move(parts));
}

ExpressionPtr Parser::parse_product() {
  ExpressionPtr left = parse_power();
  while (current().is_sign("*") || current().is_sign("/") || current().is_sign("//") || current().is_sign("%")) {
    const Token sign = next();
    left = make(ExpressionKind::arithmetic, sign.line, operands(std::move(left), parse_power()), sign.text);
  }
  return left;
}

ExpressionPtr Parser::parse_power() {
  // Jinja's power binds to the left, unlike Python's.
  ExpressionPtr left = parse_unary();
  while (current().is_sign("**")) {
    const int line = next().line;
    left = make(ExpressionKind::arithmetic, line, operands(std::move(left), parse_unary()), "**");
  }
  return left;
}

ExpressionPtr Parser::parse_unary(bool with_filter) {
  const int line = current().line;
  ExpressionPtr node;
  if (current().is_sign("-") || current().is_sign("+")) {
    const Nesting nesting(*this);
    const auto kind = next().text == "-" ? ExpressionKind::negate : ExpressionKind::positive;
    node = make(kind, line, operands(parse_unary(false)));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr Parser::parse_primary(bool with_namespace) {
  const Token token = current();
  const auto constant = [&](Value value) {
    ExpressionPtr node = make(ExpressionKind::constant, token.line);
    node->value = std::move(value);
    return node;
  };
  if (token.is_sign("[")) {
    return parse_list();
  }
  if (token.is_sign("{")) {
    return parse_dict();
  }
  next();
  if (token.is_sign("(")) {
    ExpressionPtr node = parse_tuple(true, true);
    expect_sign(")");
    return node;
  }
  if (token.kind == TokenKind::text) {
    std::string text = token.text;
    while (current().kind == TokenKind::text) {
      text += next().text;
    }
    return constant(Value(std::move(text)));
  }
  if (token.kind == TokenKind::integer || token.kind == TokenKind::real) {
    return constant(token.value);
  }
  if (token.kind != TokenKind::name) {
    fail_syntax(fmt::format("unexpected '{}'", one_line(token.text)), token.line);
  }
  if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
    return constant(Value(token.text == "true" || token.text == "True"));
  }
  if (token.text == "none" || token.text == "None") {
    return constant(None{});
  }
  if (with_namespace && skip_sign(".")) {
    ExpressionPtr node = make(ExpressionKind::member, token.line, {}, token.text);
    node->attribute = expect_name().text;
    return node;
  }
  ++mentions_[token.text];
  return make(ExpressionKind::name, token.line, {}, token.text);
}

ExpressionPtr Parser::parse_list() {
  const int line = next().line;
  std::vector<ExpressionPtr> items;
  while (!current().is_sign("]")) {
    if (!items.empty()) {
      expect_sign(",");
      if (current().is_sign("]")) {
        break;
      }
    }
    items.push_back(parse_expression());
  }
  expect_sign("]");
  return make(ExpressionKind::list, line, std::move(items));
}

ExpressionPtr Parser::parse_dict() {
  const int line = next().line;
  std::vector<ExpressionPtr> items;
  while (!current().is_sign("}")) {
    if (!items.empty()) {
      expect_sign(",");
      if (current().is_sign("}")) {
        break;
      }
    }
    items.push_back(parse_expression());
    expect_sign(":");
    items.push_back(parse_expression());
  }
  expect_sign("}");
  return make(ExpressionKind::dict, line, std::move(items));
}

}  // namespace shardpipe::text::jinja
