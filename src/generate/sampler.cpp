#include "generate/sampler.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace shardpipe::generation {

Sampler::Sampler(GenerateOptions options, std::shared_ptr<const text::Tokenizer> tokenizer)
    : options_(std::move(options)), tokenizer_(std::move(tokenizer)) {
  if (!options_.stop.empty() && tokenizer_ == nullptr) {
    throw_usage("--stop needs a tokenizer to see the text");
  }
}

FinishReason Sampler::finish_reason(const Row& row, int64_t token) const {
  const std::vector<int64_t>& ids = row.output.token_ids;
  if (std::find(options_.eos_token_ids.begin(), options_.eos_token_ids.end(), token) != options_.eos_token_ids.end()) {
    return FinishReason::eos;
  }
  if (!options_.stop.empty()) {
    std::vector<int64_t> all = ids;
    all.push_back(token);
    const std::string text = tokenizer_->decode(all, true);
    for (const std::string& stop : options_.stop) {
      if (text.find(stop) != std::string::npos) {
        return FinishReason::stop;
      }
    }
  }
  return static_cast<int64_t>(ids.size()) + 1 >= options_.max_new_tokens ? FinishReason::length : FinishReason::none;
}

std::vector<Choice> Sampler::choose(const at::Tensor& logits, const std::vector<const Row*>& rows) const {
  if (logits.size(0) != static_cast<int64_t>(rows.size())) {
    throw_internal("{} rows of logits for {} rows", logits.size(0), rows.size());
  }
  at::Tensor scores = logits.to(at::kFloat);
  const auto too_early = [&](const Row& row) {
    return static_cast<int64_t>(row.output.token_ids.size()) < options_.min_new_tokens;
  };
  if (!options_.eos_token_ids.empty() &&
      std::any_of(rows.begin(), rows.end(), [&](const Row* row) { return too_early(*row); })) {
    scores = scores.is_same(logits) ? scores.clone() : scores;
    for (size_t i = 0; i < rows.size(); ++i) {
      for (const int64_t id : options_.eos_token_ids) {
        if (too_early(*rows[i]) && id >= 0 && id < scores.size(1)) {
          scores[static_cast<int64_t>(i)][id] = -std::numeric_limits<float>::infinity();
        }
      }
    }
  }
  const at::Tensor chosen = at::argmax(scores, 1);
  at::Tensor logprobs;
  if (options_.logprobs) {
    logprobs = at::log_softmax(scores, 1).gather(1, chosen.unsqueeze(1)).squeeze(1);
    logprobs = logprobs.to(at::kCPU, at::kDouble).contiguous();
  }
  const at::Tensor tokens = chosen.to(at::kCPU).contiguous();
  std::vector<Choice> choices;
  for (size_t i = 0; i < rows.size(); ++i) {
    Choice choice;
    choice.token = tokens.const_data_ptr<int64_t>()[i];
    choice.finish_reason = finish_reason(*rows[i], choice.token);
    choice.logprob = options_.logprobs ? logprobs.const_data_ptr<double>()[i] : 0;
    choices.push_back(choice);
  }
  return choices;
}

}  // namespace shardpipe::generation
