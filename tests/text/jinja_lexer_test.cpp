#include "text/jinja_lexer.h"

#include "jinja_support.h"

namespace shardpipe::text {

TEST(JinjaLexer, ControlsWhitespace) {
  expect_texts({
      {"  {% if true %}\n x\n  {% endif %}\ny\n", " x\ny"},
      {"a \n {%- if true -%} \n b \n {%- endif -%} \n c", "abc"},
      {"  {%+ if true +%}\nx{% endif %}", "  \nx"},
      {"a {# c #}\nb {#- d -#} e", "a be"},
      {"{#", ""},
  });
}

TEST(JinjaLexer, ReadsRawBlocksNumbersAndTexts) {
  expect_texts({
      {"{% raw %}{{ x }}{% endraw %}", "{{ x }}"},
      {"{%- raw -%} {{ x }} {%- endraw -%} !", "{{ x }}!"},
      {"{{ {'a': {'b': 1}}.a.b }}{ {", "1{ {"},
      {"{{ [l.0, 1_000, 0x1f, 0b11, 0o17, 1e3] }}", "[3, 1000, 31, 3, 15, 1000.0]"},
      {R"({{ 'a\x41\u00e9\101\\\'\q' 'b' }})", "aA\u00e9A\\'\\qb"},
  });
}

TEST(JinjaLexer, CountsLines) {
  const auto tokens = jinja::tokenize("a\n{{ b\n}}\n\n{%- if x %}");
  ASSERT_GE(tokens.size(), 6U);
  EXPECT_EQ(tokens[2].text, "b");
  EXPECT_EQ(tokens[2].line, 2);
  EXPECT_EQ(tokens.back().line, 5);
}

TEST(JinjaLexer, NamesWhatIsNoToken) {
  expect_failures({
      {"x\n{# open", "Missing end of comment tag, line 2 of the chat template"},
      {"{% raw %}x", "Missing end of raw directive"},
      {"{{ 'open }}", "unexpected char"},
      {"{{ a ! b }}", "unexpected char '!' at 5"},
      {"{{ a) }}", "unexpected ')'"},
      {"{{ (a] }}", "unexpected ']', expected ')'"},
      {"{{ '\\ud83d' }}", "bad character code \\ud83d in a text"},
      {"{{ '\\N{BULLET}' }}", "character names (\\N) are not supported"},
      {"{{ 9223372036854775808 }}", "the integer 9223372036854775808 is beyond 64 bits, line 1"},
  });
}

}  // namespace shardpipe::text
