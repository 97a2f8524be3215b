#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "plan/diagram.h"
#include "plan/explain.h"
#include "plan/explain_words.h"
#include "plan/units.h"
#include "schedule/page.h"

namespace shardpipe::plan {
namespace {

using schedule::html_escape;

constexpr std::string_view kStyle = R"(<style>
.s0 { --c: hsl(212 62% 50%); } .s1 { --c: hsl(27 85% 50%); } .s2 { --c: hsl(152 55% 40%); }
.s3 { --c: hsl(340 62% 55%); } .s4 { --c: hsl(264 50% 60%); } .s5 { --c: hsl(187 75% 38%); }
.s6 { --c: hsl(46 85% 45%); } .s7 { --c: hsl(95 45% 42%); }
.overview { display: grid; gap: 0 40px; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 900px) { .overview { grid-template-columns: auto minmax(0, 1fr); } }
.tall { max-height: 720px; overflow: auto; }
.stages { display: block; font: 12px system-ui, sans-serif; }
.stages text { fill: var(--text); } .stages .soft { fill: var(--soft); } .stages .name { font-weight: 600; font-size: 13px; }
.stages .box { fill: var(--card); stroke: var(--c); stroke-width: 2; } .stages .time { fill: var(--c); }
.stages .edge { fill: none; stroke: var(--soft); stroke-width: 1.5; } .stages .head { fill: var(--soft); }
.bars { display: grid; grid-template-columns: auto minmax(60px, 1fr) auto; gap: 2px 10px; align-items: center;
  font-size: 12px; font-variant-numeric: tabular-nums; }
.bars .layer { max-width: 34vw; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; direction: rtl;
  text-align: left; }
.bars .track { background: var(--track); border-radius: 3px; height: 11px; }
.bars .track span { display: block; height: 11px; border-radius: 3px; background: var(--c); min-width: 1px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; background: var(--c);
  margin-right: 7px; vertical-align: -1px; }
.remark { border-left: 3px solid hsl(27 85% 50%); padding-left: 10px; }
</style>
)";

std::string paragraph(const std::string& text, const char* name = "note") {
  return fmt::format("<p class=\"{}\">{}</p>\n", name, html_escape(text));
}

std::string figure(const std::string& name, const std::string& value) {
  return fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", html_escape(name), html_escape(value));
}

// Cells are HTML; those of `left` are aligned to the left.
std::string table(
    const std::vector<std::string>& head,
    const std::vector<std::vector<std::string>>& rows,
    const std::vector<size_t>& left = {}) {
  const auto row_html = [&](const std::vector<std::string>& row, const char* cell) {
    std::string html = "<tr>";
    for (size_t c = 0; c < row.size(); ++c) {
      const bool to_left = std::find(left.begin(), left.end(), c) != left.end();
      html += fmt::format("<{0}{1}>{2}</{0}>", cell, to_left ? "" : " class=\"number\"", row[c]);
    }
    return html + "</tr>\n";
  };
  std::string html = "<div class=\"scroll\"><table>\n" + row_html(head, "th");
  for (const std::vector<std::string>& row : rows) {
    html += row_html(row, "td");
  }
  return html + "</table></div>\n";
}

std::string number(int64_t value) {
  return short_number(static_cast<double>(value));
}

std::string bytes(int64_t value) {
  return bytes_text(static_cast<double>(value));
}

std::string stage_cell(int stage) {
  return fmt::format("<span class=\"swatch {}\"></span>{}", stage_class(stage), stage);
}

std::string figures(const Explanation& e) {
  std::string html = "<dl class=\"figures\">" + figure("parameters", number(e.parameters)) +
                     figure("weights", bytes(e.parameter_bytes)) + figure("ranks", std::to_string(e.layout.pp));
  for (const StepReport& step : e.steps) {
    html += figure(step.name + ", predicted", seconds_text(step.step_s));
    if (e.stages.size() > 1) {
      html += figure(step.name + ": balance, bubble", percent_text(step.balance) + ", " + percent_text(step.bubble));
    }
  }
  return html + figure("request, predicted", seconds_text(e.request_s)) + "</dl>\n";
}

std::string stages_table(const Explanation& e) {
  std::vector<std::string> head = {"stage", "rank", "layers", "", "parameters", "weights"};
  for (const StepReport& step : e.steps) {
    for (const char* what : {"FLOP", "activations", "forward"}) {
      head.push_back(fmt::format("{}<br>{}", what, html_escape(step.name)));
    }
  }
  std::vector<std::vector<std::string>> rows;
  for (const StageReport& stage : e.stages) {
    std::vector<std::string> row = {stage_cell(stage.stage),      std::to_string(stage.rank),
                                    std::to_string(stage.layers), html_escape(layers_words(stage)),
                                    number(stage.parameters),     bytes(stage.weight_bytes)};
    for (size_t i = 0; i < e.steps.size(); ++i) {
      row.push_back(number(stage.flops[i]));
      row.push_back(bytes(stage.activation_bytes[i]));
      const bool slowest = e.stages.size() > 1 && e.steps[i].bottleneck == stage.stage;
      const std::string seconds = seconds_text(stage.forward_s[i]);
      row.push_back(slowest ? "<b title=\"the slowest stage\">" + seconds + "</b>" : seconds);
    }
    rows.push_back(std::move(row));
  }
  return table(head, rows, {0, 3});
}

std::string ranks_table(const Explanation& e) {
  std::vector<std::vector<std::string>> rows;
  for (const RankReport& rank : e.ranks) {
    rows.push_back(
        {std::to_string(rank.rank), fmt::format("{}", fmt::join(rank.stages, ", ")), number(rank.parameters),
         bytes(rank.weight_bytes), bytes(rank.peak_bytes)});
  }
  return table({"rank", "stages", "parameters", "weights", "most memory"}, rows, {0, 1});
}

std::string edges_table(const Explanation& e) {
  std::vector<std::string> head = {"from", "to", "value", "computed by", "type"};
  for (const StepReport& step : e.steps) {
    head.push_back(html_escape(step.name));
  }
  std::vector<std::vector<std::string>> rows;
  for (const EdgeReport& edge : e.edges) {
    std::vector<std::string> row = {
        stage_cell(edge.from_stage), stage_cell(edge.to_stage), html_escape(edge.value), html_escape(edge.module),
        edge.dtype.empty() ? "not known before the run" : html_escape(edge.dtype + edge.shape)};
    for (const int64_t of_step : edge.bytes) {
      row.push_back(bytes(of_step));
    }
    rows.push_back(std::move(row));
  }
  return table(head, rows, {0, 1, 2, 3, 4});
}

std::string bars(const Explanation& e, size_t step) {
  double most = 0;
  for (const LayerReport& layer : e.layers) {
    most = std::max(most, layer.forward_s[step]);
  }
  std::string html = "<div class=\"tall\"><div class=\"bars\">\n";
  for (const LayerReport& layer : e.layers) {
    const std::string name = html_escape(layer.name);
    html += fmt::format(
        "<span class=\"layer\" title=\"{0}\"><bdi>{0}</bdi></span><span class=\"track {1}\" title=\"stage {2}, {3} "
        "parameters, {4}FLOP\"><span style=\"width:{5:.2f}%\"></span></span><span class=\"number\">{6}</span>\n",
        name, stage_class(layer.stage), layer.stage, number(layer.parameters), number(layer.flops[step]),
        most > 0 ? 100 * layer.forward_s[step] / most : 0, seconds_text(layer.forward_s[step]));
  }
  return html + "</div></div>\n";
}

// The simulation in milliseconds.
schedule::Simulation in_milliseconds(schedule::Simulation simulation) {
  simulation.makespan *= 1e3;
  for (double& busy : simulation.busy) {
    busy *= 1e3;
  }
  for (std::vector<schedule::TimedAction>& rank : simulation.ranks) {
    for (schedule::TimedAction& timed : rank) {
      timed.start *= 1e3;
      timed.end *= 1e3;
    }
  }
  for (std::vector<schedule::MemoryPoint>& rank : simulation.memory) {
    for (schedule::MemoryPoint& point : rank) {
      point.time *= 1e3;
    }
  }
  return simulation;
}

std::string alternatives(const Explanation& e) {
  std::vector<std::string> head = {"ranks", "threads each"};
  std::vector<std::vector<std::string>> rows;
  for (const Alternative& other : e.alternatives) {
    std::vector<std::string> row = {std::to_string(other.pp), std::to_string(other.threads)};
    for (const double seconds : other.step_s) {
      row.push_back(seconds_text(seconds));
    }
    row.push_back(seconds_text(other.request_s));
    rows.push_back(std::move(row));
  }
  std::vector<std::string> own = {fmt::format("<b>{}</b>", e.layout.pp), std::to_string(e.threads)};
  for (const StepReport& step : e.steps) {
    head.push_back(html_escape(step.name));
    own.push_back(seconds_text(step.step_s));
  }
  head.emplace_back("request");
  own.push_back(seconds_text(e.request_s));
  rows.push_back(std::move(own));
  return "<h2>Fewer ranks</h2>\n" + paragraph(alternatives_words(e)) + table(head, rows) +
         (e.remark.empty() ? "" : paragraph(e.remark, "remark"));
}

}  // namespace

std::string to_html(const Explanation& e) {
  std::string body(kStyle);
  body += figures(e);
  for (const std::string& words : head_words(e)) {
    body += paragraph(words);
  }
  body += "<div class=\"overview\">\n<section><h2>Stages</h2><div class=\"tall scroll\">" + stage_diagram(e) +
          "</div></section>\n<section>";
  for (size_t i = 0; i < e.steps.size(); ++i) {
    body += fmt::format("<h2>Layers: {}</h2>\n{}", html_escape(e.steps[i].name), bars(e, i));
  }
  body += "</section>\n</div>\n<h2>What each stage holds and computes</h2>\n" + stages_table(e);
  body += "<h2>What each rank holds</h2>\n" + ranks_table(e);
  if (!e.edges.empty()) {
    body += "<h2>What a microbatch sends</h2>\n" + edges_table(e);
  }
  for (const std::string& words : tail_words(e)) {
    body += paragraph(words);
  }
  for (size_t i = 0; i < e.steps.size(); ++i) {
    body += fmt::format(
        "<h2>Timeline: {}</h2>\n{}{}", html_escape(e.steps[i].name), paragraph(step_words(e, i)),
        schedule::timeline_html(in_milliseconds(e.steps[i].simulation), {.unit = "ms"}));
  }
  if (!e.alternatives.empty()) {
    body += alternatives(e);
  }
  return schedule::html_page("Plan of " + e.model, body);
}

}  // namespace shardpipe::plan
