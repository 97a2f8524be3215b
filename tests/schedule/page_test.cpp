#include "schedule/page.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "schedule/builders.h"
#include "schedule/grid.h"

namespace shardpipe::schedule {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Simulation run(const char* name, int p, int v, int m, double f, double i, double w, double transfer = 0) {
  const StageEdges edges = chain_edges(p * v);
  return simulate(lower(make_schedule(name, p, v, m, true), edges), edges, uniform_costs(p * v, f, i, w, transfer));
}

size_t count(const std::string& text, const std::string& part) {
  size_t times = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++times;
  }
  return times;
}

TEST(Grid, WholeNumbers) {
  EXPECT_EQ(
      grid(run("1f1b", 2, 1, 2, 1, 1, 1)),
      "time      0   1   2   3   4   5   6   7   8\n"
      "rank 0    0F0 0F1 .   .   0B0 --  .   0B1 --\n"
      "rank 1    .   1F0 1B0 --  1F1 1B1 --  .   .\n");
}

TEST(Grid, IsScaled) {
  EXPECT_EQ(
      grid(run("fill-drain", 1, 1, 1, 2, 2, 4)),
      "time      0   1   2   3\n"
      "rank 0    0F0 0B0 --  --\n"
      "one column is 2\n");
  EXPECT_EQ(
      grid(run("fill-drain", 1, 1, 1, 0.5, 0.5, 0.75)),
      "time      0   1   2   3\n"
      "rank 0    0F0 0B0 --  --\n"
      "one column is 0.5\n");
}

TEST(Grid, ShowsTheBeginning) {
  EXPECT_EQ(
      grid(run("fill-drain", 3, 1, 2, 1, 1, 1), {.max_columns = 4, .max_ranks = 2}),
      "time      0   1   2   3\n"
      "rank 0    0F0 0F1 .   .\n"
      "rank 1    .   1F0 1F1 .\n"
      "shown are the first 4 of 12 columns\n"
      "shown are the first 2 of 3 ranks\n");
}

TEST(Grid, OfNothing) {
  EXPECT_EQ(grid(run("fill-drain", 2, 1, 2, 0, 0, 0)), "");
}

TEST(Page, LoadsNothing) {
  const std::string page = html_page("a <title> & more", "<p>body</p>");
  EXPECT_THAT(page, HasSubstr("<h1>a &lt;title&gt; &amp; more</h1>\n<p>body</p>"));
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const char* outside : {"http:", "https:", "//", "src=", "<link", "@import", "url("}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  }
}

TEST(Page, Escapes) {
  EXPECT_EQ(html_escape("<a href=\"x\">'&'</a>"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;");
  EXPECT_EQ(format_number(12), "12");
  EXPECT_EQ(format_number(1.0 / 3), "0.333333");
}

TEST(Timeline, ShowsEveryAction) {
  const Simulation result = run("zb-v", 2, 2, 3, 1, 1, 1, 0.25);
  const std::string html = timeline_html(result, {.unit = "ms"});
  for (const char* kind : {"F", "I", "W"}) {
    EXPECT_EQ(count(html, fmt::format("<rect class=\"{}\"", kind)), 4 * 3);
  }
  EXPECT_THAT(html, HasSubstr("<title>0F0: 0 to 1 ms</title>"));
  EXPECT_THAT(html, HasSubstr("gradients of weights (W)"));
  EXPECT_THAT(html, Not(HasSubstr("backward (B)")));
  EXPECT_THAT(html, HasSubstr("paler where a rank works on its later stages"));
  EXPECT_THAT(timeline_html(run("1f1b", 2, 1, 3, 1, 1, 1)), Not(HasSubstr("paler")));
}

TEST(Timeline, ShowsTheBeginningOfALongOne) {
  const Simulation result = run("1f1b", 8, 1, 100, 1, 1, 1);
  const std::string html = timeline_html(result, {.max_actions = 50, .max_ranks = 4});
  EXPECT_LE(count(html, "<rect class=\"F\"") + count(html, "<rect class=\"B\""), 54U);
  EXPECT_THAT(html, HasSubstr(fmt::format("of {}.", result.makespan)));
  EXPECT_THAT(html, HasSubstr("Shown are 4 of 8 ranks."));
}

TEST(Timeline, OfNothing) {
  EXPECT_THAT(timeline_html(run("1f1b", 2, 1, 1, 0, 0, 0)), HasSubstr("</figure>"));
}

TEST(RankTable, HasARowARank) {
  const std::string html = rank_table_html(run("interleaved", 2, 2, 4, 1, 1, 1), "ms");
  EXPECT_THAT(html, HasSubstr("<td>rank 1</td><td>1, 3</td><td class=\"number\">24 ms</td>"));
}

}  // namespace
}  // namespace shardpipe::schedule
