#include "text/jinja_parser.h"

#include "jinja_support.h"
#include "text/jinja_budget.h"

namespace shardpipe::text {
namespace {

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) {
    out += text;
  }
  return out;
}

}  // namespace

TEST(JinjaParser, PrecedenceIsJinjas) {
  expect_texts({
      {"{{ 1 + 2 * 3 }}{{ 2 ** 3 ** 2 }}{{ -2 ** 2 }}{{ a ~ 1 * 2 }}", "764432"},
      {"{{ 1 < 2 < 3 }}{{ not a == 3 }}{{ 1 if false else 2 if false else 3 }}", "TrueFalse3"},
      {"{{ a is divisibleby 3 and s is string }}{{ a is not none }}", "TrueTrue"},
  });
}

TEST(JinjaParser, NamesWhatItExpected) {
  expect_failures({
      {"{% if a %}",
       "unexpected end of template, looking for 'elif' or 'else' or 'endif' (the innermost open tag is 'if')"},
      {"a\n\n{% nope %}", "unknown tag 'nope', line 3 of the chat template"},
      {"{% endif %}", "unknown tag 'endif'"},
      {"{% include 'x' %}", "tag 'include' is not supported in chat templates"},
      {"{% %}", "tag name expected"},
      {"{{ }}", "expected an expression, got '}}'"},
      {"{{ a b }}", "expected '}}', got 'b'"},
      {"{% for i l %}{% endfor %}", "expected 'in', got 'l'"},
      {"{{ a.'b' }}", "expected name or number"},
      {"{{ a is 5 }}", "expected a name, got '5'"},
      {"{{ a + * }}", "unexpected '*'"},
      {"{{ a[1:2, 3] }}", "expected ']', got ','"},
      {"{% set none = 1 %}", "can't assign to this expression"},
      {"{% macro f(none) %}{% endmacro %}", "can't assign to 'none'"},
      {"{% macro f(a=1, b) %}{% endmacro %}", "non-default argument follows default argument"},
      {"{% call a %}{% endcall %}", "expected call"},
      {"{{ f(a=1, 2) }}", "invalid syntax for function call expression"},
      {"{{ a is string is true }}", "you cannot chain multiple tests with is"},
      {"{% break %}", "'break' outside a loop"},
      {"{{ a|nofilter }}", "no filter named 'nofilter'"},
      {"{{ a is notest }}", "no test named 'notest'"},
      {"{% for i in l %}{% set loop = 1 %}{% endfor %}", "Can't assign to special loop variable in for-loop target"},
  });
}

TEST(JinjaParser, RefusesDeepNestingBeforeTheStackEnds) {
  expect_failures({
      {"{{ " + repeated("(", 100000), "nested deeper than 150 levels"},
      {"{{ " + repeated("[", 100000), "nested deeper than 150 levels"},
      {"{{ " + repeated("not ", 100000) + "a }}", "nested deeper than 150 levels"},
      {"{{ " + repeated("-", 100000) + "a }}", "nested deeper than 150 levels"},
      {"{{ " + repeated("1 if 1 else ", 100000) + "a }}", "nested deeper than 150 levels"},
      {repeated("{% if a %}", 100000), "nested deeper than 150 levels"},
      {"{{ a" + repeated("+1", 100000) + " }}", "an expression chains more than 500 operations"},
      {"{{ a" + repeated("|string", 100000) + " }}", "an expression chains more than 500 operations"},
      {"{{ a" + repeated(".b", 100000) + " }}", "an expression chains more than 500 operations"},
  });
}

}  // namespace shardpipe::text
