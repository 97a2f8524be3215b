#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "text_batch.h"

namespace shardpipe::cli {
namespace {

constexpr int64_t kCandidates = 5;

// The text of a token that tokenizer_config.json or special_tokens_map.json names under `key`; empty without.
std::string special_token(const std::filesystem::path& folder, const char* key) {
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    if (!std::filesystem::exists(folder / file)) {
      continue;
    }
    const Json values = read_json(folder / file);
    if (values.is_object() && values.contains(key)) {
      const Json& token = values[key];
      if (token.is_string()) {
        return token.get<std::string>();
      }
      if (token.is_object() && token.contains("content") && token["content"].is_string()) {
        return token["content"].get<std::string>();
      }
    }
  }
  return {};
}

int64_t mask_id(const std::filesystem::path& folder, const Tokenizer& tokenizer) {
  const std::string mask = special_token(folder, "mask_token");
  if (mask.empty()) {
    throw_usage("the tokenizer in {} names no mask token", folder.string());
  }
  const std::vector<int64_t> ids = tokenizer.encode(mask, false);
  if (ids.size() != 1) {
    throw_input("the mask token \"{}\" in {} is {} tokens, not one", mask, folder.string(), ids.size());
  }
  return ids.front();
}

// The best candidates of one mask of a text, as transformers' pipeline "fill-mask".
Json candidates(
    const at::Tensor& logits, std::vector<int64_t> ids, size_t position, bool lone, const Tokenizer& tokenizer) {
  const at::Tensor probabilities = at::softmax(logits, 0);
  const auto [scores, tokens] = probabilities.topk(std::min(kCandidates, probabilities.size(0)));
  Json list = Json::array();
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    ids[position] = tokens[i].item<int64_t>();
    Json entry;
    entry["token_str"] = tokenizer.decode(std::span(&ids[position], 1), false);
    entry["token"] = ids[position];
    entry["score"] = scores[i].item<double>();
    // Other masks stay to be seen.
    entry["sequence"] = tokenizer.decode(ids, lone);
    list.push_back(std::move(entry));
  }
  return list;
}

Json report(const TextOptions& options, const TextAnswer& answer, const Tokenizer& tokenizer) {
  if (answer.logits.dim() != 3) {
    throw_usage(
        "{} gives logits of {} dimensions, not one row of tokens a token: it is no masked language model",
        options.run.model, answer.logits.dim());
  }
  const int64_t mask = mask_id(options.tokenizer.empty() ? options.run.model : options.tokenizer, tokenizer);
  Json list = Json::array();
  for (size_t row = 0; row < answer.texts.size(); ++row) {
    const EncodedText& text = answer.texts[row];
    std::vector<int64_t> ids;                       // without padding
    std::vector<std::pair<size_t, int64_t>> masks;  // position in ids, in the row
    for (size_t i = 0; i < text.ids.size(); ++i) {
      if (text.attention_mask[i] != 0) {
        if (text.ids[i] == mask) {
          masks.emplace_back(ids.size(), static_cast<int64_t>(i));
        }
        ids.push_back(text.ids[i]);
      }
    }
    if (masks.empty()) {
      throw_usage("text {} holds no mask token: write it where a word is wanted", row);
    }
    Json entry;
    entry["text"] = options.texts[row];
    if (!options.pairs.empty()) {
      entry["text_pair"] = options.pairs[row];
    }
    entry["masks"] = Json::array();
    for (const auto& [position, token] : masks) {
      const at::Tensor logits = answer.logits[static_cast<int64_t>(row)][token];
      entry["masks"].push_back(candidates(logits, ids, position, masks.size() == 1, tokenizer));
    }
    list.push_back(std::move(entry));
  }
  return list;
}

std::string line(const Json& entry) {
  std::string text;
  for (const Json& mask : entry["masks"]) {
    for (const Json& candidate : mask) {
      text += fmt::format(
          "{:<16} {:>7} {:.4f}  {}\n", candidate["token_str"].get<std::string>(), candidate["token"].get<int64_t>(),
          candidate["score"].get<double>(), candidate["sequence"].get<std::string>());
    }
  }
  return text;
}

}  // namespace

Action add_fill_mask(CLI::App& app) {
  auto options = std::make_shared<TextOptions>();
  add_text_options(app, *options);
  return [options](const Invocation& invocation) {
    return run_texts(
        *options, invocation, {"logits", "prediction_logits"},
        [&](const TextAnswer& answer, const Tokenizer& tokenizer) { return report(*options, answer, tokenizer); },
        line);
  };
}

}  // namespace shardpipe::cli
