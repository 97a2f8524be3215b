#include "schedule/page.h"

#include <fmt/format.h>

namespace shardpipe::schedule {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --page: #fbfbfd; --text: #1c2430; --soft: #5b6675; --line: #d5dae1; --card: #fff;
  --track: #e9ecf1; --f: #2f6db3; --b: #b4540a; --i: #b23a5b; --w: #2c7a4b; --r: #6d4aa8; --memory: #8a94a3; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181f; --text: #e5e9f0; --soft: #9aa5b5; --line: #333b47; --card: #1c222b; --track: #262d38;
    --f: #3f7fc8; --b: #c2640f; --i: #c4476a; --w: #328a55; --r: #8261c0; --memory: #7f8a9b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 20px 24px 40px; }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 14px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 28px 0 10px; }
.note, figcaption { color: var(--soft); font-size: .87rem; }
figcaption { margin-top: 6px; }
.figures { display: flex; flex-wrap: wrap; gap: 10px; margin: 0 0 18px; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 8px 14px; }
.figures dt { color: var(--soft); font-size: .8rem; }
.figures dd { margin: 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: .87rem; }
.number { text-align: right; }
code { font: .92em ui-monospace, monospace; overflow-wrap: anywhere; }
.timeline { margin: 0 0 18px; }
.timeline .legend { display: flex; flex-wrap: wrap; gap: 4px 16px; padding: 0; margin: 0 0 10px; list-style: none;
  font-size: .87rem; }
.timeline .legend span { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px;
  vertical-align: -1px; }
.timeline .rows { display: flex; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.timeline svg { display: block; }
.timeline .names { flex: none; border-right: 1px solid var(--line); }
.timeline .scroll { flex: 1; min-width: 0; }
.timeline text { font: 11px system-ui, sans-serif; fill: var(--text); }
.timeline .n text { fill: #fff; text-anchor: middle; pointer-events: none; }
.timeline .axis text { fill: var(--soft); text-anchor: middle; }
.timeline .axis path { stroke: var(--line); fill: none; }
.timeline .F { fill: var(--f); } .timeline .B { fill: var(--b); } .timeline .I { fill: var(--i); }
.timeline .W { fill: var(--w); } .timeline .REDUCE_GRAD { fill: var(--r); }
.timeline .track { fill: var(--track); } .timeline .memory { fill: var(--memory); }
.timeline span.F { background: var(--f); } .timeline span.B { background: var(--b); }
.timeline span.I { background: var(--i); } .timeline span.W { background: var(--w); }
.timeline span.REDUCE_GRAD { background: var(--r); } .timeline span.track { background: var(--track);
  border: 1px solid var(--line); } .timeline span.memory { background: var(--memory); }
@media (max-width: 600px) { main { padding: 14px 12px 28px; } h1 { font-size: 1.2rem; }
  .figures { gap: 8px; } .figures div { padding: 6px 10px; } .figures dd { font-size: 1rem; } }
)";

}  // namespace

std::string html_escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string format_number(double value) {
  return fmt::format("{:.6g}", value);
}

std::string html_page(std::string_view title, std::string_view body) {
  const std::string name = html_escape(title);
  return fmt::format(
      R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{}</title>
<style>{}</style>
</head>
<body>
<main>
<h1>{}</h1>
{}
</main>
</body>
</html>
)",
      name, kStyle, name, body);
}

}  // namespace shardpipe::schedule
