#include "text/jinja_operators.h"

#include "jinja_support.h"

namespace shardpipe::text {

TEST(JinjaOperators, ArithmeticIsPythons) {
  expect_texts({
      {"{{ [7 // 2, -7 // 2, -7 % 3, 7 % -3, 7 / 2, -7.5 % 2, 2 ** -1, true + true] }}",
       "[3, -4, 2, -2, 3.5, 0.5, 0.5, 2]"},
      {"{{ 'ab' * 2 }}{{ [1] + [2] }}{{ (1,) * 2 }}{{ +true }}{{ -a }}", "abab[1, 2](1, 1)1-3"},
      {"{{ ('<'|safe) + '<' }}{{ '<' ~ '>'|e }}", "<&lt;<&gt;"},
      {"{{ 9007199254740993 == 9007199254740992.0 }}{{ 1 == true }}{{ [1] == (1,) }}", "FalseTrueFalse"},
      {"{{ [1, 2] < [1, 3] }}{{ 'a' < 'b' <= 'b' }}{{ 'ell' in s }}{{ 'k' not in d }}", "TrueTrueTrueFalse"},
  });
  expect_failures({
      {"{{ 'a' + 1 }}", "unsupported operand type(s) for +: 'str' and 'int'"},
      {"{{ none ** 2 }}", "unsupported operand type(s) for ** or pow(): 'NoneType' and 'int'"},
      {"{{ 1 // 0 }}", "division by zero"},
      {"{{ 1.0 / 0 }}", "float division by zero"},
      {"{{ 1.0 % 0 }}", "float modulo"},
      {"{{ 1.0 // 0 }}", "float floor division by zero"},
      {"{{ 0 ** -1 }}", "0.0 cannot be raised to a negative power"},
      {"{{ 0.0 ** -1 }}", "0.0 cannot be raised to a negative power"},
      {"{{ (-1) ** 0.5 }}", "a power that is a complex number is not supported"},
      {"{{ 1e300 ** 2 }}", "numerical result out of range"},
      {"{{ -s }}", "bad operand type for unary -: 'str'"},
      {"{{ +s }}", "bad operand type for unary +: 'str'"},
      {"{{ 'a' < 1 }}", "'<' not supported between instances of 'str' and 'int'"},
      {"{{ 1 in s }}", "'in <string>' requires string as left operand, not int"},
      {"{{ 1 in 5 }}", "argument of type 'int' is not iterable"},
      {"{{ none() }}", "'NoneType' object is not callable"},
      {"{{ {[]: 1} }}", "unhashable type: 'list'"},
  });
}

TEST(JinjaOperators, AttributesItemsAndSlices) {
  expect_texts({
      {"{{ d.k }}{{ d['k'] }}{{ l[-1] }}{{ l[9] }}{{ d.items is callable }}{{ {'items': 1}['items'] }}", "vv2True1"},
      {"{{ s[1:3] }}{{ s[::-1] }}{{ l[5:] }}{{ range(10)[::-3] }}{{ '日本語'[1] }}{{ '日本語'[:-1] }}",
       "elolleH[]range(9, -1, -3)本日本"},
  });
  expect_failures({
      {"{{ a[1:] }}", "'int' object is not subscriptable"},
      {"{{ s[::0] }}", "slice step cannot be zero"},
      {"{{ s['x':] }}", "slice indices must be integers or None or have an __index__ method, not str"},
  });
}

TEST(JinjaOperators, ArgumentsAreBoundAsInPython) {
  expect_failures({
      {"{{ s|replace('a') }}", "replace() missing the required argument 'new'"},
      {"{{ s|trim('a', 'b') }}", "trim() takes at most 1 arguments (2 given)"},
      {"{{ s|trim(x=1) }}", "trim() got an unexpected keyword argument 'x'"},
      {"{{ s|replace('a', old='b') }}", "replace() got multiple values for argument 'old'"},
      {"{{ s|indent(none) }}", "indent(): 'NoneType' object cannot be interpreted as an integer"},
      {"{{ s.strip(1) }}", "strip() argument must be str, not int"},
  });
}

TEST(JinjaOperators, Formats) {
  expect_texts({
      {"{{ '%s|%5.1f|%-4d|%04d|%x|%%' % ('a', 1.25, 3, -4, 255) }}", "a|  1.2|3   |-004|ff|%"},
      {"{{ '{} {0}'.format(1) if false }}{{ '{1}{0}{x}{{}}'.format('a', 'b', x=1) }}", "ba1{}"},
      {"{{ '{:>5}|{:*^7}|{:06.2f}|{:,}|{!r}'.format('a', 'b', 3.14159, 1234567, 'q') }}",
       "    a|***b***|003.14|1,234,567|'q'"},
  });
  expect_failures({
      {"{{ '%d' % 'x' }}", "%d format: a real number is required, not str"},
      {"{{ '%x' % 1.5 }}", "%x format: a integer is required, not float"},
      {"{{ '%s %s' % 1 }}", "not enough arguments for format string"},
      {"{{ 'x' % 1 }}", "not all arguments converted during string formatting"},
      {"{{ '%q' % 1 }}", "unsupported format character 'q'"},
      {"{{ '%(k)s' % 1 }}", "format requires a mapping"},
      {"{{ '%(zz)s' % d }}", "key 'zz' of a format string is missing"},
      {"{{ '%' % 1 }}", "incomplete format"},
      {"{{ '%s'|format(1, a=2) }}", "can't handle positional and keyword arguments at the same time"},
      {"{{ '{}'.format() }}", "Replacement index 0 out of range for positional args tuple"},
      {"{{ '{x}'.format(y=1) }}", "format field 'x' has no value"},
      {"{{ '{'.format() }}", "expected '}' before end of string"},
      {"{{ '}'.format() }}", "Single '}' encountered in format string"},
      {"{{ '{!q}'.format(1) }}", "bad conversion 'q' in a format string"},
      {"{{ '{x[1}'.format(x=1) }}", "Missing ']' in format string"},
      {"{{ '{:d}'.format('x') }}", "unsupported format specification 'd' for a value of type str"},
  });
}

}  // namespace shardpipe::text
