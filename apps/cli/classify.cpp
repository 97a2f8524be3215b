#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "text_batch.h"

namespace shardpipe::cli {
namespace {

struct Labels {
  std::vector<std::string> names;
  std::string problem;  // "problem_type" of config.json, or empty
};

// id2label of config.json; LABEL_0, LABEL_1 … without.
Labels read_labels(const std::filesystem::path& folder, int64_t count) {
  const Json config = read_json(folder / "config.json");
  const Json names = config.contains("id2label") ? config["id2label"] : Json();
  Labels labels;
  for (int64_t i = 0; i < count; ++i) {
    const std::string key = std::to_string(i);
    const bool named = names.is_object() && names.contains(key) && names[key].is_string();
    labels.names.push_back(named ? names[key].get<std::string>() : "LABEL_" + key);
  }
  if (config.contains("problem_type") && config["problem_type"].is_string()) {
    labels.problem = config["problem_type"].get<std::string>();
  }
  return labels;
}

// As transformers' pipeline "text-classification".
at::Tensor scores_of(const at::Tensor& logits, const std::string& problem) {
  if (problem == "regression") {
    return logits;
  }
  if (problem == "multi_label_classification" || logits.size(1) == 1) {
    return at::sigmoid(logits);
  }
  return at::softmax(logits, 1);
}

Json report(const TextOptions& options, const at::Tensor& logits) {
  if (logits.dim() != 2) {
    throw_usage(
        "{} gives logits of {} dimensions, not one row of labels a text: it is no classifier", options.run.model,
        logits.dim());
  }
  const Labels labels = read_labels(options.run.model, logits.size(1));
  const at::Tensor scores = scores_of(logits, labels.problem).to(at::kDouble);
  Json list = Json::array();
  for (size_t row = 0; row < options.texts.size(); ++row) {
    const at::Tensor of_row = scores[static_cast<int64_t>(row)];
    const at::Tensor order = of_row.argsort(/*stable=*/true, 0, /*descending=*/true);
    Json all = Json::array();
    for (int64_t i = 0; i < order.size(0); ++i) {
      const auto id = order[i].item<int64_t>();
      all.push_back({{"label", labels.names[static_cast<size_t>(id)]}, {"score", of_row[id].item<double>()}});
    }
    Json entry;
    entry["text"] = options.texts[row];
    if (!options.pairs.empty()) {
      entry["text_pair"] = options.pairs[row];
    }
    entry["label"] = all[0]["label"];
    entry["score"] = all[0]["score"];
    entry["scores"] = std::move(all);
    list.push_back(std::move(entry));
  }
  return list;
}

std::string line(const Json& entry) {
  return fmt::format("{} {:.4f}\n", entry["label"].get<std::string>(), entry["score"].get<double>());
}

}  // namespace

Action add_classify(CLI::App& app) {
  auto options = std::make_shared<TextOptions>();
  add_text_options(app, *options);
  return [options](const Invocation& invocation) {
    return run_texts(
        *options, invocation, {"logits"},
        [&](const TextAnswer& answer, const Tokenizer&) { return report(*options, answer.logits); }, line);
  };
}

}  // namespace shardpipe::cli
