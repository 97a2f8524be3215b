#include <fmt/ranges.h>

#include <algorithm>

#include "plan/explain.h"
#include "plan/explain_sharding.h"
#include "plan/explain_words.h"
#include "plan/units.h"

namespace shardpipe::plan {
namespace {

using Row = std::vector<std::string>;

// Columns as wide as they need to be; those of `left` are aligned to the left, the others to the right.
std::string table(const std::vector<Row>& rows, const std::vector<size_t>& left) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) {
      widths[c] = std::max(widths[c], row[c].size());
    }
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const bool to_left = std::find(left.begin(), left.end(), c) != left.end();
      line += to_left ? fmt::format("  {:<{}}", row[c], widths[c]) : fmt::format("  {:>{}}", row[c], widths[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string stages_table(const Explanation& e) {
  std::vector<Row> rows = {{"stage", "rank", "layers", "", "parameters", "weights", "operators"}};
  for (const StageReport& stage : e.stages) {
    rows.push_back(
        {std::to_string(stage.stage), std::to_string(stage.rank), std::to_string(stage.layers), layers_words(stage),
         short_number(static_cast<double>(stage.parameters)), bytes_text(static_cast<double>(stage.weight_bytes)),
         std::to_string(stage.operators)});
  }
  return table(rows, {3});
}

std::string step_table(const Explanation& e, size_t i) {
  std::vector<Row> rows = {{"stage", "FLOP", "activations", "caches", "forward", ""}};
  for (const StageReport& stage : e.stages) {
    rows.push_back(
        {std::to_string(stage.stage), short_number(static_cast<double>(stage.flops[i])),
         bytes_text(static_cast<double>(stage.activation_bytes[i])),
         bytes_text(static_cast<double>(stage.cache_bytes[i])), seconds_text(stage.forward_s[i]),
         e.stages.size() > 1 && stage.stage == e.steps[i].bottleneck ? "the slowest" : ""});
  }
  return table(rows, {5});
}

std::string edges_table(const Explanation& e) {
  Row head = {"from", "to", "value", "computed by", "type"};
  for (const StepReport& step : e.steps) {
    head.push_back(step.name);
  }
  std::vector<Row> rows = {head};
  for (const EdgeReport& edge : e.edges) {
    Row row = {
        std::to_string(edge.from_stage), std::to_string(edge.to_stage), edge.value, edge.module,
        edge.dtype.empty() ? "not known" : edge.dtype + edge.shape};
    for (const int64_t bytes : edge.bytes) {
      row.push_back(bytes_text(static_cast<double>(bytes)));
    }
    rows.push_back(std::move(row));
  }
  return table(rows, {2, 3, 4});
}

std::string ranks_table(const Explanation& e) {
  std::vector<Row> rows = {{"rank", "stages", "parameters", "weights", "most memory"}};
  for (const RankReport& rank : e.ranks) {
    rows.push_back(
        {std::to_string(rank.rank), fmt::format("{}", fmt::join(rank.stages, ", ")),
         short_number(static_cast<double>(rank.parameters)), bytes_text(static_cast<double>(rank.weight_bytes)),
         bytes_text(static_cast<double>(rank.peak_bytes))});
  }
  return table(rows, {});
}

std::string alternatives_table(const Explanation& e) {
  Row head = {"ranks", "threads"};
  for (const StepReport& step : e.steps) {
    head.push_back(step.name);
  }
  head.emplace_back("request");
  std::vector<Row> rows = {head};
  const auto add = [&](int pp, int threads, const std::vector<double>& step_s, double request_s) {
    Row row = {std::to_string(pp), std::to_string(threads)};
    for (const double seconds : step_s) {
      row.push_back(seconds_text(seconds));
    }
    row.push_back(seconds_text(request_s));
    rows.push_back(std::move(row));
  };
  for (const Alternative& other : e.alternatives) {
    add(other.pp, other.threads, other.step_s, other.request_s);
  }
  std::vector<double> own;
  for (const StepReport& step : e.steps) {
    own.push_back(step.step_s);
  }
  add(e.layout.pp, e.threads, own, e.request_s);
  return table(rows, {});
}

// Sentences of `words`, broken before column 100.
std::string wrapped(const std::string& words) {
  constexpr size_t kWidth = 98;
  std::string text;
  size_t begin = 0;
  while (words.size() - begin > kWidth) {
    const size_t space = words.rfind(' ', begin + kWidth);
    if (space == std::string::npos || space <= begin) {
      break;
    }
    text += words.substr(begin, space - begin) + "\n  ";
    begin = space + 1;
  }
  return text + words.substr(begin) + "\n";
}

}  // namespace

std::string to_text(const Explanation& e) {
  std::string text;
  for (const std::string& sentence : head_words(e)) {
    text += wrapped(sentence);
  }
  text += fmt::format("\n{}", stages_table(e));
  if (e.ranks.size() > e.stages.size() || e.layout.virtual_stages > 1) {
    text += fmt::format("\n{}", ranks_table(e));
  }
  for (size_t i = 0; i < e.steps.size(); ++i) {
    text += fmt::format("\n{}{}", wrapped(step_words(e, i)), step_table(e, i));
  }
  if (!e.edges.empty()) {
    text += fmt::format("\nWhat a microbatch sends\n{}", edges_table(e));
  }
  if (!e.weights.empty()) {
    text += fmt::format("\nHow --tp {} divides the weights\n{}", e.layout.tp, table(weight_rows(e.weights), {1, 2, 3}));
    text += e.collectives.empty()
                ? "\nNo collectives\n"
                : fmt::format(
                      "\nCollectives of a microbatch\n{}", table(collective_rows(e.collectives, e.steps), {1, 2, 3}));
  }
  text += "\n";
  for (const std::string& sentence : tail_words(e)) {
    text += wrapped(sentence);
  }
  if (!e.alternatives.empty()) {
    text += fmt::format("\n{}{}", wrapped(alternatives_words(e)), alternatives_table(e));
    text += e.remark.empty() ? "" : wrapped(e.remark);
  }
  return text;
}

}  // namespace shardpipe::plan
