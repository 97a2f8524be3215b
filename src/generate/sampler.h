#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "generate/lanes.h"
#include "text/tokenizer.h"

namespace shardpipe::generation {

/// Chooses the next tokens from logits: runs once, on the last stage.
class Sampler {
 public:
  /// `tokenizer` decodes the text for GenerateOptions::stop; may be null when there are no stop texts.
  Sampler(GenerateOptions options, std::shared_ptr<const text::Tokenizer> tokenizer);

  /// logits [rows, vocab] of any floating dtype, row i for rows[i]; the token of highest logit (the first of equal
  /// ones), compared in float32. An end token is passed over before min_new_tokens.
  std::vector<Choice> choose(const at::Tensor& logits, const std::vector<const Row*>& rows) const;

 private:
  FinishReason finish_reason(const Row& row, int64_t token) const;
  GenerateOptions options_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
};

}  // namespace shardpipe::generation
