#include "text/jinja_parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja_budget.h"

namespace shardpipe::text::jinja {

Template parse(std::string_view source) {
  Template parsed = Parser(tokenize(source)).parse();
  resolve_names(parsed);
  return parsed;
}

Parser::Nesting::Nesting(Parser& parser) : parser_(parser) {
  if (++parser.nesting_ > kMaxSyntaxDepth) {
    fail_syntax(fmt::format("nested deeper than {} levels", kMaxSyntaxDepth), parser.current().line);
  }
}

Token Parser::next() {
  Token token = current();
  pos_ = std::min(pos_ + 1, tokens_.size() - 1);
  return token;
}

bool Parser::skip_name(std::string_view name) {
  const bool found = current().is_name(name);
  if (found) {
    next();
  }
  return found;
}

bool Parser::skip_sign(std::string_view sign) {
  const bool found = current().is_sign(sign);
  if (found) {
    next();
  }
  return found;
}

Token Parser::expect_name() {
  if (current().kind != TokenKind::name) {
    fail_unexpected("a name");
  }
  return next();
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) {
    fail_unexpected(fmt::format("'{}'", name));
  }
}

void Parser::expect_sign(std::string_view sign) {
  if (!skip_sign(sign)) {
    fail_unexpected(fmt::format("'{}'", sign));
  }
}

void Parser::expect(TokenKind kind, const char* what) {
  if (current().kind != kind) {
    fail_unexpected(fmt::format("'{}'", what));
  }
  next();
}

void Parser::fail_unexpected(const std::string& wanted) const {
  fail_syntax(fmt::format("expected {}, got '{}'", wanted, one_line(current().text)), current().line);
}

Template Parser::parse() {
  Template parsed;
  parsed.body = parse_block({});
  return parsed;
}

// Statements up to a tag that begins with one of `end_names`, which stays the current token (behind "{%").
Block Parser::parse_block(Names end_names) {
  const Nesting nesting(*this);
  Block block;
  const auto output = [&](int line) {
    auto statement = std::make_unique<Statement>();
    statement->kind = StatementKind::output;
    statement->line = line;
    return statement;
  };
  while (current().kind != TokenKind::end) {
    const int line = current().line;
    if (current().kind == TokenKind::data) {
      block.push_back(output(line));
      block.back()->text = next().text;
    } else if (current().kind == TokenKind::variable_begin) {
      next();
      block.push_back(output(line));
      block.back()->expressions.push_back(parse_tuple(true));
      expect(TokenKind::variable_end, "}}");
    } else {
      next();
      if (std::any_of(
              end_names.begin(), end_names.end(), [&](std::string_view name) { return current().is_name(name); })) {
        return block;
      }
      block.push_back(parse_statement());
      expect(TokenKind::block_end, "%}");
    }
  }
  if (end_names.size() != 0) {
    fail_syntax(
        fmt::format(
            "unexpected end of template, looking for '{}' (the innermost open tag is '{}')",
            fmt::join(end_names, "' or '"), open_tags_.back()),
        current().line);
  }
  return block;
}

// The rest of an opening tag and the block it opens.
Block Parser::parse_body(Names end_names) {
  skip_sign(":");
  expect(TokenKind::block_end, "%}");
  return parse_block(end_names);
}

std::unique_ptr<Statement> Parser::parse_statement() {
  if (current().kind != TokenKind::name) {
    fail_syntax("tag name expected", current().line);
  }
  using Parse = std::unique_ptr<Statement> (Parser::*)();
  static const std::map<std::string_view, Parse> kTags = {
      {"for", &Parser::parse_for},     {"if", &Parser::parse_if},           {"set", &Parser::parse_set},
      {"macro", &Parser::parse_macro}, {"call", &Parser::parse_call_block}, {"filter", &Parser::parse_filter_block},
      {"with", &Parser::parse_with},   {"print", &Parser::parse_print},     {"generation", &Parser::parse_generation}};
  const Token tag = current();
  const int line = tag.line;
  if (tag.text == "break" || tag.text == "continue") {
    next();
    if (loops_ == 0) {
      fail_syntax(fmt::format("'{}' outside a loop", tag.text), line);
    }
    auto statement = std::make_unique<Statement>();
    statement->kind = tag.text == "break" ? StatementKind::break_loop : StatementKind::continue_loop;
    statement->line = line;
    return statement;
  }
  const auto found = kTags.find(tag.text);
  if (found == kTags.end()) {
    static constexpr std::string_view kOthers[] = {"block", "extends", "include", "import", "from", "autoescape"};
    const bool known = std::find(std::begin(kOthers), std::end(kOthers), tag.text) != std::end(kOthers);
    fail_syntax(
        known ? fmt::format("tag '{}' is not supported in chat templates", tag.text)
              : fmt::format("unknown tag '{}'", one_line(tag.text)),
        line);
  }
  next();
  open_tags_.push_back(tag.text);
  auto statement = (this->*found->second)();
  statement->line = line;
  open_tags_.pop_back();
  return statement;
}

std::unique_ptr<Statement> Parser::parse_for() {
  auto loop = std::make_unique<Statement>();
  loop->kind = StatementKind::loop;
  loop->target = parse_target(TargetKind::any);
  expect_name("in");
  loop->expression = parse_tuple(false);
  if (skip_name("if")) {
    loop->test = parse_expression();
  }
  loop->recursive = skip_name("recursive");
  ++loops_;
  loop->body = parse_body({"endfor", "else"});
  --loops_;
  if (next().text == "else") {
    loop->other = parse_body({"endfor"});
    next();
  }
  return loop;
}

std::unique_ptr<Statement> Parser::parse_if() {
  auto statement = std::make_unique<Statement>();
  statement->kind = StatementKind::condition;
  while (true) {
    Branch& branch = statement->branches.emplace_back();
    branch.test = parse_tuple(false);
    branch.body = parse_body({"elif", "else", "endif"});
    const Token token = next();
    if (token.is_name("elif")) {
      continue;
    }
    if (token.is_name("else")) {
      statement->branches.emplace_back().body = parse_body({"endif"});
      next();
    }
    break;
  }
  return statement;
}

std::unique_ptr<Statement> Parser::parse_set() {
  auto statement = std::make_unique<Statement>();
  statement->target = parse_target(TargetKind::with_namespace);
  if (skip_sign("=")) {
    statement->kind = StatementKind::assign;
    statement->expression = parse_tuple(true);
    return statement;
  }
  statement->kind = StatementKind::capture;
  statement->expression = parse_filter(nullptr);
  statement->body = parse_body({"endset"});
  next();
  return statement;
}

void Parser::parse_signature(Statement& statement) {
  expect_sign("(");
  while (!current().is_sign(")")) {
    if (!statement.parameters.empty()) {
      expect_sign(",");
    }
    ExpressionPtr name = parse_target(TargetKind::name_only);
    ExpressionPtr value;
    if (skip_sign("=")) {
      value = parse_expression();
    } else if (!statement.parameters.empty() && statement.parameters.back().second) {
      fail_syntax("non-default argument follows default argument", current().line);
    }
    statement.parameters.emplace_back(std::move(name), std::move(value));
  }
  expect_sign(")");
}

void Parser::parse_macro_body(Statement& statement, std::string_view end_name) {
  const auto before = mentions_;
  const int loops = std::exchange(loops_, 0);
  statement.body = parse_body({end_name});
  next();
  loops_ = loops;
  const auto uses = [&](const char* name) {
    const auto old = before.find(name);
    return mentions_[name] > (old == before.end() ? 0 : old->second) &&
           std::none_of(statement.parameters.begin(), statement.parameters.end(), [&](const auto& parameter) {
             return parameter.first->name == name;
           });
  };
  statement.uses_caller = uses("caller");
  statement.uses_kwargs = uses("kwargs");
  statement.uses_varargs = uses("varargs");
}

std::unique_ptr<Statement> Parser::parse_macro() {
  auto macro = std::make_unique<Statement>();
  macro->kind = StatementKind::macro;
  macro->target = parse_target(TargetKind::name_only);
  macro->text = macro->target->name;
  parse_signature(*macro);
  parse_macro_body(*macro, "endmacro");
  return macro;
}

std::unique_ptr<Statement> Parser::parse_call_block() {
  auto statement = std::make_unique<Statement>();
  statement->kind = StatementKind::call_block;
  statement->text = "caller";
  if (current().is_sign("(")) {
    parse_signature(*statement);
  }
  const int line = current().line;
  statement->expression = parse_expression();
  if (statement->expression->kind != ExpressionKind::call) {
    fail_syntax("expected call", line);
  }
  parse_macro_body(*statement, "endcall");
  return statement;
}

std::unique_ptr<Statement> Parser::parse_filter_block() {
  auto statement = std::make_unique<Statement>();
  statement->kind = StatementKind::filter_block;
  statement->expression = parse_filter(nullptr, true);
  statement->body = parse_body({"endfilter"});
  next();
  return statement;
}

std::unique_ptr<Statement> Parser::parse_with() {
  auto statement = std::make_unique<Statement>();
  statement->kind = StatementKind::with;
  while (current().kind != TokenKind::block_end) {
    if (!statement->targets.empty()) {
      expect_sign(",");
    }
    statement->targets.push_back(parse_target(TargetKind::any));
    expect_sign("=");
    statement->expressions.push_back(parse_expression());
  }
  statement->body = parse_body({"endwith"});
  next();
  return statement;
}

std::unique_ptr<Statement> Parser::parse_print() {
  auto statement = std::make_unique<Statement>();
  statement->kind = StatementKind::output;
  while (current().kind != TokenKind::block_end) {
    if (!statement->expressions.empty()) {
      expect_sign(",");
    }
    statement->expressions.push_back(parse_expression());
  }
  return statement;
}

// Marks the assistant's text for training masks; it only opens a scope here.
std::unique_ptr<Statement> Parser::parse_generation() {
  auto statement = std::make_unique<Statement>();
  statement->kind = StatementKind::scope;
  statement->body = parse_body({"endgeneration"});
  next();
  return statement;
}

}  // namespace shardpipe::text::jinja
