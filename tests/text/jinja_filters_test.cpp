// Filters, tests, methods and functions; chat_reference.py compares many more with jinja2.
#include "text/jinja_filters.h"

#include "jinja_support.h"

namespace shardpipe::text {

TEST(JinjaFilters, TextsAndNumbers) {
  expect_texts({
      {"{{ ' a '|trim }}{{ 'hello-big world'|title }}{{ 'ß'|upper }}{{ 'ΑΣ'|lower }}{{ 'aB'|capitalize }}",
       "aHello-Big WorldSSαςAb"},
      {"{{ 'a\nb\n\nc'|indent }}|{{ 'x'|default('y') }}{{ nope|default('y') }}{{ ''|d('z', true) }}",
       "a\n    b\n\n    c|xyz"},
      {"{{ '3.7'|int }}{{ 'x'|int(9) }}{{ '0x1f'|int(0, 16) }}{{ '1.5e3'|float }}{{ 2.5|round }}{{ 2.675|round(2) }}",
       "39311500.02.02.67"},
      {"{{ [1, {'a': 'é<'}]|tojson }}{{ {'b': 1}|tojson(indent=2) }}{{ 'é'|tojson(ensure_ascii=true) }}",
       "[1, {\"a\": \"é<\"}]{\n  \"b\": 1\n}\"\\u00e9\""},
      {"{{ [1.0, 1e16, 1e-5, 0.1 + 0.2, none, true, 'it\\'s'] }}",
       "[1.0, 1e+16, 1e-05, 0.30000000000000004, None, True, \"it's\"]"},
  });
  expect_failures({
      {"{{ 5|indent }}", "filter indent needs a str, not int"},
      {"{{ s|abs }}", "filter abs needs a number, not str"},
      {"{{ 1|round(1, 'x') }}", "method must be common, ceil or floor"},
      {"{{ '1e999'|float|round(0, 'ceil') }}", "cannot round inf"},
      {"{{ '1e999'|float|int }}", "cannot convert float infinity to integer"},
      {"{{ 1e19|int }}", "an integer of the chat template is beyond 64 bits"},
      {"{{ '99999999999999999999'|int }}", "the integer 99999999999999999999 is beyond 64 bits"},
      {"{{ 'abcdefghijkl'|truncate(2) }}", "expected length >= 3 and leeway >= 0, got 2 and 5"},
      {"{{ range(3)|tojson }}", "Object of type range is not JSON serializable"},
      {"{{ {(1,): 2}|tojson }}", "keys must be str, int, float, bool or None, not tuple"},
      {"{{ l|tojson(separators=(1, 2)) }}", "tojson() needs two texts as separators"},
  });
}

TEST(JinjaFilters, Sequences) {
  expect_texts({
      {"{{ l|sort }}{{ l|first }}{{ l|last }}{{ l|length }}{{ l|sum }}{{ l|max }}{{ l|reverse|list }}",
       "[1, 2, 3]32363[2, 1, 3]"},
      {"{{ ['b', 'A']|sort }}{{ ['b', 'A']|map('lower')|join(',') }}{{ l|select('odd')|list }}{{ ['A', "
       "'a']|unique|list }}",
       "['A', 'b']b,a[3, 1]['A']"},
      {"{{ [d]|selectattr('k', 'equalto', 'v')|list|length }}{{ [d]|map(attribute='zz', default=0)|list }}{{ "
       "d|dictsort }}",
       "1[0][('k', 'v'), ('n', None)]"},
      {"{{ l|batch(2, 0)|list }}{{ l|slice(2)|list }}{% set g = l|map('string') %}{{ g|join }}{{ g|join }}",
       "[[3, 1], [2, 0]][[3, 1], [2]]312"},
  });
  expect_failures({
      {"{{ 5|length }}", "object of type 'int' has no len()"},
      {"{{ l|map('string')|last }}", "'generator' object is not reversible"},
      {"{{ l|map|list }}", "map requires a filter argument"},
      {"{{ l|map('nope')|list }}", "No filter named 'nope' found."},
      {"{{ l|select('nope')|list }}", "No test named 'nope' found."},
      {"{{ l|selectattr|list }}", "Missing parameter for attribute name"},
      {"{{ l|items|list }}", "Can only get item pairs from a mapping."},
      {"{{ l|dictsort }}", "filter dictsort needs a dict, not list"},
      {"{{ d|dictsort(by='x') }}", "You can only sort by either \"key\" or \"value\""},
      {"{{ l|sum(start='') }}", "sum() can't sum strings [use ''.join(seq) instead]"},
      {"{{ l|slice(0)|list }}", "integer division or modulo by zero"},
  });
}

TEST(JinjaFilters, Tests) {
  expect_texts({
      {"{{ [1 is odd, 2 is even, d is mapping, s is sequence, l is iterable, true is integer, true is number, 1.0 is "
       "float] }}",
       "[True, True, True, True, True, False, True, True]"},
      {"{{ [a is in l, a is eq 3, none is sameas none, 'upper' is filter, 'odd' is test, 'x'|e is escaped] }}",
       "[True, True, True, True, True, True]"},
  });
}

TEST(JinjaFilters, Methods) {
  expect_texts({
      {"{{ 'a,b'.split(',') }}{{ ' a b '.split() }}{{ 'a b c'.rsplit(none, 1) }}{{ 'ab'.find('b') }}{{ '-'.join(['x', "
       "'y']) }}",
       "['a', 'b']['a', 'b']['a b', 'c']1x-y"},
      {"{{ d.get('q', 1) }}{{ d.items() }}{{ d.keys()|list }}{{ 'abc'.startswith(('x', 'a')) }}{{ '-5'.zfill(4) }}{{ "
       "'a-b'.partition('-') }}",
       "1dict_items([('k', 'v'), ('n', None)])['k', 'n']True-005('a', '-', 'b')"},
  });
  expect_failures({
      {"{{ s.index('z') }}", "substring not found"},
      {"{{ s.split('') }}", "empty separator"},
      {"{{ s.rsplit('') }}", "empty separator"},
      {"{{ s.partition('') }}", "empty separator"},
      {"{{ s.startswith(1) }}", "startswith first arg must be str or a tuple of str, not int"},
      {"{{ s.endswith(1) }}", "endswith first arg must be str or a tuple of str, not int"},
      {"{{ s.ljust(9, 'ab') }}", "The fill character must be exactly one character long"},
      {"{{ ','.join([1]) }}", "sequence item 0: expected str instance, int found"},
      {"{{ l.index(9) }}", "9 is not in list"},
  });
}

TEST(JinjaFilters, Functions) {
  expect_texts({
      {"{{ range(3)|list }}{{ range(5, 0, -2)|list }}{{ dict([('a', 1)], b=2) }}{{ namespace(d, z=1).k }}",
       "[0, 1, 2][5, 3, 1]{'a': 1, 'b': 2}v"},
      {"{% set j = joiner('; ') %}{{ j() }}1{{ j() }}2{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}{{ "
       "c.current }}",
       "1; 2xyx"},
  });
  EXPECT_EQ(render("{{ strftime_now('%Y%%')|length }}{{ strftime_now('%z%Z') }}"), "5");
  expect_failures({
      {"{{ range(0, 5, 0) }}", "range() arg 3 must not be zero"},
      {"{{ dict({}, {}) }}", "dict expected at most 1 argument, got 2"},
      {"{{ dict([[1]]) }}", "dictionary update sequence element has length 1; 2 is required"},
      {"{{ cycler() }}", "at least one item has to be provided"},
  });
}

}  // namespace shardpipe::text
