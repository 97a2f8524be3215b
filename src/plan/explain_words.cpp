#include "plan/explain_words.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "plan/units.h"

namespace shardpipe::plan {
namespace {

constexpr size_t kMostOperators = 6;

std::string plural(int64_t count, const std::string& word, const char* ending = "s") {
  return fmt::format("{} {}{}", count, word, count == 1 ? "" : ending);
}

std::string kernels_words(const Explanation& e) {
  if (!e.choice) {
    return "Kernels: PyTorch's own";
  }
  const bool half = e.dtype == "bfloat16";
  return fmt::format(
      "Kernels: own ones for products of up to {} rows, {} for more",
      half ? e.choice->few_rows_bf16 : e.choice->few_rows_f32, half ? e.choice->many_bf16 : e.choice->many_f32);
}

}  // namespace

std::string layers_words(const StageReport& stage) {
  return stage.first_layer == stage.last_layer ? stage.first_layer : stage.first_layer + " - " + stage.last_layer;
}

std::vector<std::string> head_words(const Explanation& e) {
  std::vector<std::string> words;
  words.push_back(fmt::format(
      "{}: {}, {} in {}, {} parameters ({})", e.model, e.family, e.program, e.dtype,
      short_number(static_cast<double>(e.parameters)), bytes_text(static_cast<double>(e.parameter_bytes))));
  if (!e.missing_weights.empty()) {
    words.push_back("The weights are not there (" + e.missing_weights + "): this is a plan only.");
  }
  const std::string stages =
      e.layout.virtual_stages > 1 ? fmt::format(" with {} stages each", e.layout.virtual_stages) : "";
  words.push_back(fmt::format(
      "{}{}, split {}, schedule {}, {} a rank. {}.", plural(e.layout.pp, "rank"), stages, e.split, e.layout.schedule,
      plural(e.threads, "thread"), kernels_words(e)));
  words.push_back(fmt::format(
      "Times are predicted from {} for ranks that share {} of this host, with {}FLOP/s and {}/s for one that is "
      "alone, {}/s and {} a message between them (measured).",
      e.profile ? "the measured times of the layers" : "the model of costs", plural(e.cores, "core"),
      short_number(e.rates.flops_per_second), bytes_text(e.rates.bytes_per_second),
      bytes_text(e.rates.transfer_bytes_per_second), seconds_text(e.rates.message_seconds)));
  if (e.device != "cpu") {
    words.push_back(fmt::format(
        "The ranks compute on {}: how fast that is is not known here, the times are those of the CPU.", e.device));
  }
  return words;
}

std::string step_words(const Explanation& e, size_t i) {
  const StepReport& step = e.steps[i];
  std::string sizes;
  for (const auto& [name, size] : step.sizes) {
    sizes += fmt::format("{}{} {}", sizes.empty() ? "" : ", ", name, size);
  }
  return fmt::format(
      "{}: {} ({}), {} in {}; balance {}, bubble {}", step.name, plural(step.microbatches, "microbatch", "es"), sizes,
      step.count == 1 ? "one step" : fmt::format("{} steps, each", step.count), seconds_text(step.step_s),
      percent_text(step.balance), percent_text(step.bubble));
}

std::vector<std::string> tail_words(const Explanation& e) {
  std::vector<std::string> words;
  int64_t most = 0;
  int64_t least = e.ranks.empty() ? 0 : e.ranks.front().peak_bytes;
  for (const RankReport& rank : e.ranks) {
    most = std::max(most, rank.peak_bytes);
    least = std::min(least, rank.peak_bytes);
  }
  words.push_back(fmt::format(
      "A rank needs {}{} for weights, caches and activations.",
      e.ranks.size() == 1 ? "" : bytes_text(static_cast<double>(least)) + " to ",
      bytes_text(static_cast<double>(most))));
  for (const SharedReport& tensor : e.shared) {
    words.push_back(fmt::format(
        "Held by stages {}: {} ({})", fmt::join(tensor.stages, ", "), tensor.name,
        bytes_text(static_cast<double>(tensor.bytes))));
  }
  const int64_t repeated = std::accumulate(
      e.stages.begin(), e.stages.end(), int64_t{0},
      [](int64_t sum, const StageReport& stage) { return sum + stage.repeated_operators; });
  if (repeated > 0) {
    words.push_back(fmt::format(
        "Computed again in each stage that needs them: cheap functions of the inputs, {} operators in all stages "
        "together.",
        repeated));
  }
  if (!e.operators.empty()) {
    std::vector<std::string> names;
    for (size_t i = 0; i < std::min(kMostOperators, e.operators.size()); ++i) {
      names.push_back(fmt::format("{} ({})", e.operators[i].name, e.operators[i].count));
    }
    const size_t more = e.operators.size() - names.size();
    words.push_back(fmt::format(
        "Costed by their shapes, without a row of their own: {}{}", fmt::join(names, ", "),
        more > 0 ? fmt::format(" and {} more", more) : ""));
  }
  return words;
}

std::string alternatives_words(const Explanation& e) {
  return fmt::format("The same request on fewer ranks of this host{}", e.split == "cuts" ? ", split balanced" : "");
}

}  // namespace shardpipe::plan
