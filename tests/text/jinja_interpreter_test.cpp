// Statements, scopes and calls. What they should give was taken from jinja2; chat_reference.py compares many more.
#include "text/jinja_interpreter.h"

#include "jinja_support.h"

namespace shardpipe::text {

TEST(JinjaInterpreter, ScopesAreJinjas) {
  expect_texts({
      {"{% set v = 0 %}{% for i in l %}{{ v }}{% set v = i %}{{ v }}{% endfor %}{{ v }}", "0301020"},
      {"{% if true %}{% set v = 1 %}{% endif %}{{ v }}", "1"},
      // A name that a scope sets is its own from the start, even where an inner scope reads it before.
      {"{% for i in l %}{{ a }}{% endfor %}{% set a = 9 %}{{ a }}", "9"},
      {"{% macro f() %}{{ v }}{% endmacro %}{% set v = 1 %}{{ f() }}{% set v = 2 %}{{ f() }}", "12"},
      {"{% set ns = namespace(n=0) %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "6"},
      {"{% with q = a, a = 5 %}{{ q }}{{ a }}{% endwith %}{{ a }}", "353"},
      {"{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a }}", "13"},
      {"{% set x | upper %}{{ s }}{% endset %}{{ x }}", "HELLO"},
  });
}

TEST(JinjaInterpreter, Loops) {
  expect_texts({
      {"{% for i in l %}{{ loop.index }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
       "1False1;2False32;3True1;"},
      {"{% for i in l if i > 1 %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "},
      {"{% for k, (x, y) in [(1, [2, 3])] %}{{ k }}{{ x }}{{ y }}{% endfor %}", "123"},
      {"{% for i in l %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% else %}none{% endfor %}", "3"},
      {"{% for i in l %}{% break %}{% else %}none{% endfor %}", "none"},
      {"{% for i in [[1, [2]], 3] recursive %}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}{% endif %}{% "
       "endfor %}",
       "(1(2))3"},
  });
}

TEST(JinjaInterpreter, Macros) {
  expect_texts({
      {"{% macro f(x, y=2) %}{{ x }}{{ y }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 5, 6, q=7) }}",
       "15(6,){'q': 7}"},
      {"{% macro f() %}[{{ caller(1) }}]{% endmacro %}{% call(x) f() %}{{ x }}{{ a }}{% endcall %}", "[13]"},
      {"{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "3210"},
  });
}

TEST(JinjaInterpreter, UndefinedPrintsAsNothingAndFailsOtherwise) {
  expect_texts({{"{{ nope }}{{ d.nope }}{{ nope is defined }}{{ nope or 1 }}{{ nope ~ 'x' }}{{ none.x }}", "False1x"}});
  expect_failures({
      {"{{ nope.x }}", "'nope' is undefined, line 1"},
      {"\n{{ d.nope.x }}", "'dict object' has no attribute 'nope', line 2"},
      {"{{ nope + 1 }}", "'nope' is undefined"},
      {"{{ none.x.y }}", "'None' has no attribute 'x'"},
      {"{{ l[9].x }}", "list object has no element 9"},
      {"{{ l.append(1) }}", "access to attribute 'append' of 'list' object is unsafe."},
      {"{{ (1 if false).x }}", "the inline if-expression on line 1 evaluated to false"},
      {"{% macro f(x) %}{{ x.y }}{% endmacro %}{{ f() }}", "parameter 'x' was not provided"},
      {"{% macro f() %}{{ caller() }}{% endmacro %}{{ f() }}", "No caller defined"},
      {"{{ ([]|first).x }}", "No first item, sequence was empty."},
      {"{{ ([]|last).x }}", "No last item, sequence was empty."},
      {"{{ ([]|min).x }}", "No aggregated item, sequence was empty."},
      {"{% for i in l %}{{ loop.previtem.x }}{% endfor %}", "there is no previous item"},
      {"{% for i in [1] %}{{ loop.nextitem.x }}{% endfor %}", "there is no next item"},
  });
}

TEST(JinjaInterpreter, Errors) {
  expect_failures({
      {"{% for i in 5 %}{% endfor %}", "'int' object is not iterable"},
      {"{% set x, y = 1, 2, 3 %}", "cannot unpack 3 values into 2 names"},
      {"{% set a.b = 1 %}", "cannot assign attribute on non-namespace object"},
      {"{% set ns = namespace(_x=1) %}",
       "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '_x'"},
      {"{% macro f(x) %}{% endmacro %}{{ f(1, 2) }}", "macro 'f' takes not more than 1 argument(s)"},
      {"{% macro f(x) %}{% endmacro %}{{ f(q=2) }}", "macro 'f' takes no keyword argument 'q'"},
      {"{% for i in l %}{{ loop(l) }}{% endfor %}",
       "The loop must have the 'recursive' marker to be called recursively."},
      {"{% for i in l %}{{ loop.cycle() }}{% endfor %}", "no items for cycling given"},
      {"{% filter length %}x{% endfilter %}", "a filter or call block gives int instead of text"},
      {"{% if true %}{{ a|nofilter }}{% endif %}", "No filter named 'nofilter' found."},
      {"{% if a is notest %}{% endif %}", "No test named 'notest' found."},
      {"{{ range(**a) }}", "argument after ** must be a mapping, not int"},
      {"{{ range(**{1: 2}) }}", "keywords must be strings, not int"},
  });
}

}  // namespace shardpipe::text
