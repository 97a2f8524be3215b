#include "plan/diagram.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "plan/explain_words.h"
#include "plan/units.h"
#include "schedule/page.h"

namespace shardpipe::plan {
namespace {

// In pixels.
constexpr int kBoxWidth = 250;
constexpr int kBoxHeight = 78;
constexpr int kGap = 46;
constexpr int kEdge = 2;
constexpr int kLane = 24;  // between skip edges
constexpr int kColours = 8;

// All values that go from one stage to another.
struct Bundle {
  int from = 0;
  int to = 0;
  int values = 0;
  std::vector<double> bytes;  // by step
  int lane = 0;               // of those that skip stages
};

std::vector<Bundle> bundles(const Explanation& e) {
  std::map<std::pair<int, int>, Bundle> by_stages;
  for (const EdgeReport& edge : e.edges) {
    Bundle& bundle = by_stages[{edge.from_stage, edge.to_stage}];
    bundle.from = edge.from_stage;
    bundle.to = edge.to_stage;
    ++bundle.values;
    bundle.bytes.resize(e.steps.size(), 0);
    for (size_t i = 0; i < e.steps.size(); ++i) {
      bundle.bytes[i] += static_cast<double>(edge.bytes[i]);
    }
  }
  std::vector<Bundle> all;
  std::vector<int> lane_ends;  // stage where the last line of each lane ends
  for (auto& [stages, bundle] : by_stages) {
    if (bundle.to > bundle.from + 1) {
      const auto free =
          std::find_if(lane_ends.begin(), lane_ends.end(), [from = bundle.from](int end) { return end <= from; });
      bundle.lane = static_cast<int>(free - lane_ends.begin());
      if (free == lane_ends.end()) {
        lane_ends.push_back(bundle.to);
      } else {
        *free = bundle.to;
      }
    }
    all.push_back(bundle);
  }
  return all;
}

int top_of(int stage) {
  return kEdge + stage * (kBoxHeight + kGap);
}

std::string bytes_words(const Explanation& e, const Bundle& bundle) {
  std::string words;
  for (size_t i = 0; i < e.steps.size(); ++i) {
    words += fmt::format("{}{} {}", i == 0 ? "" : ", ", bytes_text(bundle.bytes[i]), e.steps[i].name);
  }
  return words;
}

std::string arrow_to_next(const Explanation& e, const Bundle& bundle) {
  const int x = kEdge + 24;
  const int y = top_of(bundle.from) + kBoxHeight;
  return fmt::format(
      R"(<path class="edge" d="M{0} {1}V{2}"/><path class="head" d="M{3} {4}L{0} {2}L{5} {4}z"/>)"
      R"(<text x="{6}" y="{7}">{8}</text><text class="soft" x="{6}" y="{9}">{10} value{11} a microbatch</text>)",
      x, y, y + kGap, x - 4, y + kGap - 8, x + 4, x + 14, y + 19, bytes_words(e, bundle), y + 34, bundle.values,
      bundle.values == 1 ? "" : "s");
}

std::string line_past_stages(const Explanation& e, const Bundle& bundle) {
  const int x = kEdge + kBoxWidth;
  const int lane = x + 16 + kLane * bundle.lane;
  const int from = top_of(bundle.from) + kBoxHeight - 16;
  const int to = top_of(bundle.to) + 16;
  return fmt::format(
      R"(<path class="edge" d="M{0} {1}H{2}V{3}H{0}"/><path class="head" d="M{4} {5}L{0} {3}L{4} {6}z"/>)"
      R"~(<text transform="translate({7} {8}) rotate(90)" text-anchor="middle">{9}</text>)~",
      x, from, lane, to, x + 8, to - 4, to + 4, lane + 5, (from + to) / 2, bytes_words(e, bundle));
}

std::string box(const Explanation& e, const StageReport& stage) {
  const int y = top_of(stage.stage);
  double most = 0;
  for (const StageReport& other : e.stages) {
    most = std::max(most, other.forward_s.back());
  }
  const double part = most > 0 ? stage.forward_s.back() / most : 1;
  std::string times;
  for (size_t i = 0; i < e.steps.size(); ++i) {
    times += fmt::format("{}{} {}", i == 0 ? "" : ", ", e.steps[i].name, seconds_text(stage.forward_s[i]));
  }
  return fmt::format(
      R"(<g class="{0}"><title>{1}</title><rect class="box" x="{2}" y="{3}" width="{4}" height="{5}" rx="8"/>)"
      R"(<rect class="time" x="{6}" y="{7}" width="{8:.1f}" height="5" rx="2"/>)"
      R"(<text class="name" x="{6}" y="{9}">stage {10}, rank {11}</text><text x="{6}" y="{12}">{13}, {14}</text>)"
      R"(<text x="{6}" y="{15}">{16}</text></g>)",
      stage_class(stage.stage), schedule::html_escape(layers_words(stage)), kEdge, y, kBoxWidth, kBoxHeight, kEdge + 12,
      y + kBoxHeight - 12, (kBoxWidth - 24) * part, y + 19, stage.stage, stage.rank, y + 37,
      fmt::format("{} layer{}", stage.layers, stage.layers == 1 ? "" : "s"),
      bytes_text(static_cast<double>(stage.weight_bytes)) + " of weights", y + 54, times);
}

}  // namespace

std::string stage_class(int stage) {
  return fmt::format("s{}", stage % kColours);
}

std::string stage_diagram(const Explanation& e) {
  const std::vector<Bundle> all = bundles(e);
  int lanes = 0;
  std::string lines;
  for (const Bundle& bundle : all) {
    if (bundle.to == bundle.from + 1) {
      lines += arrow_to_next(e, bundle);
    } else {
      lines += line_past_stages(e, bundle);
      lanes = std::max(lanes, bundle.lane + 1);
    }
  }
  std::string boxes;
  for (const StageReport& stage : e.stages) {
    boxes += box(e, stage);
  }
  const int width = kBoxWidth + 2 * kEdge + (lanes > 0 ? 16 + kLane * lanes : 0);
  const int height = top_of(static_cast<int>(e.stages.size()) - 1) + kBoxHeight + kEdge;
  return fmt::format(
      R"(<svg class="stages" role="img" aria-label="The stages and what goes between them" width="{0}" height="{1}" )"
      R"(viewBox="0 0 {0} {1}">{2}{3}</svg>)",
      width, height, lines, boxes);
}

}  // namespace shardpipe::plan
