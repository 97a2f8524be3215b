#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include "schedule/page.h"

namespace shardpipe::schedule {
namespace {

// In pixels.
constexpr double kRow = 24;
constexpr double kMemory = 10;
constexpr double kGap = 8;
constexpr double kTop = 8;
constexpr double kAxis = 24;
constexpr double kNames = 64;
constexpr double kEnds = 6;      // left and right of the picture, for the axis' outer numbers
constexpr double kWidth = 1100;  // of a short schedule
constexpr double kMaxWidth = 20000;
constexpr double kDigit = 7;

constexpr ActionKind kKinds[] = {ActionKind::F, ActionKind::B, ActionKind::I, ActionKind::W, ActionKind::REDUCE_GRAD};

const char* describe(ActionKind kind) {
  switch (kind) {
    case ActionKind::F:
      return "forward (F)";
    case ActionKind::B:
      return "backward (B)";
    case ActionKind::I:
      return "gradients of inputs (I)";
    case ActionKind::W:
      return "gradients of weights (W)";
    default:
      return "gradient reduction";
  }
}

bool is_drawn(const TimedAction& timed) {
  return timed.end > timed.start &&
         std::find(std::begin(kKinds), std::end(kKinds), timed.action.kind) != std::end(kKinds);
}

std::string with_unit(double value, const std::string& unit) {
  return unit.empty() ? format_number(value) : format_number(value) + " " + html_escape(unit);
}

// 1, 2 or 5 times a power of ten, at least `step`.
double nice_step(double step) {
  const double power = std::pow(10, std::floor(std::log10(step)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (power * factor >= step * (1 - 1e-9)) {
      return power * factor;
    }
  }
  return power * 10;
}

class Timeline {
 public:
  Timeline(const Simulation& simulation, const TimelineOptions& options) : simulation_(simulation), options_(options) {
    num_ranks_ = std::min(simulation.ranks.size(), options.max_ranks);
    choose_end();
    choose_scale();
    for (size_t rank = 0; rank < simulation.ranks.size(); ++rank) {
      peak_ = std::max(peak_, simulation.peak_memory[rank]);
    }
  }

  std::string html() {
    std::string rows;
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      rows += row(rank);
    }
    const double height = kTop + static_cast<double>(num_ranks_) * (kRow + kMemory + kGap) + kAxis;
    return fmt::format(
        "<figure class=\"timeline\">\n{}<div class=\"rows\">\n{}<div class=\"scroll\"><svg role=\"img\" "
        "aria-label=\"Timeline of the schedule\" width=\"{:.0f}\" "
        "height=\"{:.0f}\">\n{}{}</svg></div>\n</div>\n{}</figure>\n",
        legend(), names(height), x(end_) + kEnds, height, axis(height), rows, caption());
  }

 private:
  // The whole makespan, or as much of it as max_actions fill.
  void choose_end() {
    std::vector<double> starts;
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      for (const TimedAction& timed : simulation_.ranks[rank]) {
        if (is_drawn(timed)) {
          starts.push_back(timed.start);
          shortest_ = shortest_ == 0 ? timed.end - timed.start : std::min(shortest_, timed.end - timed.start);
          kinds_.insert(timed.action.kind);
          largest_ = std::max(largest_, timed.action.microbatch);
        }
      }
    }
    end_ = simulation_.makespan;
    if (starts.size() > options_.max_actions) {
      const auto last = starts.begin() + static_cast<std::ptrdiff_t>(options_.max_actions);
      std::nth_element(starts.begin(), last, starts.end());
      end_ = *last > 0 ? *last : end_;
    }
  }

  void choose_scale() {
    if (end_ > 0) {
      const double number = kDigit * static_cast<double>(std::to_string(largest_).size()) + 5;
      scale_ = std::max(kWidth / end_, shortest_ > 0 ? number / shortest_ : 0);
      scale_ = std::min(scale_, kMaxWidth / end_);
    }
  }

  double x(double time) const { return kEnds + time * scale_; }
  static double y(size_t rank) { return kTop + static_cast<double>(rank) * (kRow + kMemory + kGap); }

  std::string legend() const {
    std::string items;
    for (const ActionKind kind : kKinds) {
      if (kinds_.count(kind) > 0) {
        items += fmt::format("<li><span class=\"{}\"></span>{}</li>", name_of(kind), describe(kind));
      }
    }
    items += "<li><span class=\"track\"></span>idle</li><li><span class=\"memory\"></span>activations held</li>";
    return fmt::format("<ul class=\"legend\">{}</ul>\n", items);
  }

  std::string names(double height) const {
    std::string text;
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      text += fmt::format("<text x=\"10\" y=\"{:.1f}\">rank {}</text>", y(rank) + kRow / 2 + 4, rank);
    }
    return fmt::format("<svg class=\"names\" width=\"{:.0f}\" height=\"{:.0f}\">{}</svg>\n", kNames, height, text);
  }

  std::string axis(double height) const {
    if (end_ <= 0) {
      return "";
    }
    const double step = nice_step(90 / scale_);
    const double bottom = height - kAxis;
    std::string lines;
    std::string numbers;
    for (int i = 0; i * step <= end_ * (1 + 1e-9); ++i) {
      const double at = x(i * step);
      lines += fmt::format("M{:.1f} 0V{:.1f}", at, bottom + 4);
      numbers += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", at, bottom + 17, format_number(i * step));
    }
    return fmt::format("<g class=\"axis\"><path d=\"{}\"/>{}</g>\n", lines, numbers);
  }

  std::string row(size_t rank) {
    const double top = y(rank);
    std::string text = fmt::format(
        "<rect class=\"track\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\"/>\n", x(0), top, end_ * scale_,
        kRow);
    std::set<int> stages;
    for (const TimedAction& timed : simulation_.ranks[rank]) {
      stages.insert(timed.action.stage);
    }
    has_chunks_ = has_chunks_ || stages.size() > 1;
    std::string numbers;
    for (const TimedAction& timed : simulation_.ranks[rank]) {
      if (!is_drawn(timed) || timed.start >= end_) {
        continue;
      }
      const Action& action = timed.action;
      const double width = (std::min(timed.end, end_) - timed.start) * scale_;
      const auto chunk = std::distance(stages.begin(), stages.find(action.stage));
      text += fmt::format(
          "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\"{}><title>{}: {} to "
          "{}</title></rect>",
          name_of(action.kind), x(timed.start) + 0.5, top, std::max(width - 1, 0.5), kRow, paler(chunk),
          to_string(action), format_number(timed.start), with_unit(timed.end, options_.unit));
      const std::string number = std::to_string(action.microbatch);
      if (action.kind != ActionKind::REDUCE_GRAD && width >= kDigit * static_cast<double>(number.size()) + 2) {
        numbers += fmt::format(
            "<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", x(timed.start) + width / 2, top + kRow / 2 + 4, number);
      }
    }
    return fmt::format("{}<g class=\"n\">{}</g>\n{}", text, numbers, memory(rank));
  }

  static std::string paler(std::ptrdiff_t chunk) {
    return chunk == 0 ? ""
                      : fmt::format(" fill-opacity=\"{:.2f}\"", std::max(0.5, 1 - 0.25 * static_cast<double>(chunk)));
  }

  // Steps of what the rank holds, all ranks to one scale.
  std::string memory(size_t rank) const {
    if (peak_ <= 0) {
      return "";
    }
    const double bottom = y(rank) + kRow + kMemory;
    std::string path = fmt::format("M{:.1f} {:.1f}", x(0), bottom);
    for (const MemoryPoint& point : simulation_.memory[rank]) {
      if (point.time > end_) {
        break;
      }
      path += fmt::format("H{:.1f}V{:.1f}", x(point.time), bottom - point.amount / peak_ * (kMemory - 1));
    }
    return fmt::format(
        "<path class=\"memory\" d=\"{}H{:.1f}V{:.1f}Z\"><title>activations held by rank {}, at most "
        "{}</title></path>\n",
        path, x(end_), bottom, rank, format_number(simulation_.peak_memory[rank]));
  }

  std::string caption() const {
    std::string text = "The number is the microbatch";
    text += has_chunks_ ? "; paler where a rank works on its later stages." : ".";
    if (end_ < simulation_.makespan) {
      text += fmt::format(
          " Shown is the beginning, up to {} of {}.", format_number(end_),
          with_unit(simulation_.makespan, options_.unit));
    }
    if (num_ranks_ < simulation_.ranks.size()) {
      text += fmt::format(" Shown are {} of {} ranks.", num_ranks_, simulation_.ranks.size());
    }
    return fmt::format("<figcaption>{}</figcaption>\n", text);
  }

  const Simulation& simulation_;
  const TimelineOptions& options_;
  size_t num_ranks_ = 0;
  double end_ = 0;
  double shortest_ = 0;
  double scale_ = 1;
  double peak_ = 0;
  int largest_ = 0;  // microbatch
  bool has_chunks_ = false;
  std::set<ActionKind> kinds_;
};

}  // namespace

std::string timeline_html(const Simulation& simulation, const TimelineOptions& options) {
  return Timeline(simulation, options).html();
}

std::string rank_table_html(const Simulation& simulation, const std::string& unit) {
  std::string rows;
  for (size_t rank = 0; rank < simulation.ranks.size(); ++rank) {
    std::set<int> stages;
    for (const TimedAction& timed : simulation.ranks[rank]) {
      stages.insert(timed.action.stage);
    }
    rows += fmt::format(
        "<tr><td>rank {}</td><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td>"
        "<td class=\"number\">{}</td></tr>\n",
        rank, fmt::join(stages, ", "), with_unit(simulation.busy[rank], unit),
        with_unit(std::max(0.0, simulation.makespan - simulation.busy[rank]), unit), simulation.peak_activations[rank]);
  }
  return fmt::format(
      "<div class=\"scroll\"><table>\n<tr><th></th><th>stages</th><th class=\"number\">busy</th>"
      "<th class=\"number\">idle</th><th class=\"number\">peak activations</th></tr>\n{}</table></div>\n",
      rows);
}

}  // namespace shardpipe::schedule
