#pragma once

#include <initializer_list>
#include <map>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace shardpipe::text::jinja {

/// Recursive descent over the tokens; the grammar and its precedences are Jinja 3.1's. Statements are in
/// jinja_parser.cpp, expressions in jinja_parse_expression.cpp and jinja_parse_postfix.cpp.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Template parse();

 private:
  struct Nesting {
    explicit Nesting(Parser& parser);
    ~Nesting() { --parser_.nesting_; }
    Parser& parser_;
  };
  enum class TargetKind { any, name_only, with_namespace };
  using Names = std::initializer_list<std::string_view>;

  const Token& current() const { return tokens_[pos_]; }
  const Token& look() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool skip_name(std::string_view name);
  bool skip_sign(std::string_view sign);
  Token expect_name();
  void expect_name(std::string_view name);
  void expect_sign(std::string_view sign);
  void expect(TokenKind kind, const char* what);
  [[noreturn]] void fail_unexpected(const std::string& wanted) const;

  Block parse_block(Names end_names);
  Block parse_body(Names end_names);
  std::unique_ptr<Statement> parse_statement();
  std::unique_ptr<Statement> parse_for();
  std::unique_ptr<Statement> parse_if();
  std::unique_ptr<Statement> parse_set();
  std::unique_ptr<Statement> parse_macro();
  std::unique_ptr<Statement> parse_call_block();
  std::unique_ptr<Statement> parse_filter_block();
  std::unique_ptr<Statement> parse_with();
  std::unique_ptr<Statement> parse_print();
  std::unique_ptr<Statement> parse_generation();
  void parse_signature(Statement& statement);
  void parse_macro_body(Statement& statement, std::string_view end_name);

  template <typename... Parts>
  static std::vector<ExpressionPtr> operands(Parts... parts) {
    std::vector<ExpressionPtr> list;
    (list.push_back(std::move(parts)), ...);
    return list;
  }
  ExpressionPtr make(ExpressionKind kind, int line, std::vector<ExpressionPtr> operands = {}, std::string name = {});
  ExpressionPtr parse_target(TargetKind kind);
  ExpressionPtr parse_tuple(bool conditional, bool parentheses = false);
  ExpressionPtr parse_expression(bool conditional = true);
  ExpressionPtr parse_conditional();
  ExpressionPtr parse_or();
  ExpressionPtr parse_and();
  ExpressionPtr parse_not();
  ExpressionPtr parse_compare();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filter = true);
  ExpressionPtr parse_primary(bool with_namespace = false);
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr node);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr node);
  ExpressionPtr parse_subscript(ExpressionPtr node);
  ExpressionPtr parse_slice(ExpressionPtr node);
  ExpressionPtr parse_call(ExpressionPtr node);
  ExpressionPtr parse_filter(ExpressionPtr node, bool inline_start = false);
  ExpressionPtr parse_test(ExpressionPtr node);
  CallArguments parse_arguments(int& depth);
  bool at_tuple_end() const;

  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
  int loops_ = 0;  ///< how many loops of this macro are open
  std::vector<std::string> open_tags_;
  std::map<std::string, int, std::less<>> mentions_;  ///< how often caller, kwargs and varargs were read
};

}  // namespace shardpipe::text::jinja
