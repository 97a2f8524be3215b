#pragma once

// Texts in, logits out: what classify and fill-mask share.
#include <ATen/core/Tensor.h>

#include <CLI/App.hpp>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "layout_options.h"
#include "shardpipe/engine.h"
#include "shardpipe/tokenizer.h"

namespace shardpipe::cli {

struct TextOptions {
  RunOptions run;
  std::string tokenizer;
  std::vector<std::string> texts;
  std::vector<std::string> pairs;  ///< as many as texts, or none
  bool json = false;
};

/// Adds --model, the layout, --tokenizer, --text, --text-pair and --json to a command.
void add_text_options(CLI::App& app, TextOptions& options);

/// The texts as tokens, and what the model says of them.
struct TextAnswer {
  std::vector<EncodedText> texts;  ///< one length, the shorter ones padded
  at::Tensor logits;               ///< float32, [texts, labels] or [texts, tokens, vocabulary]
};

/// Runs the model on the texts in its layout, and prints on rank 0 what `report` makes of the answer: a list with one
/// entry a text, which goes into "outputs" of the --json object, and whose entries `line` turns into lines otherwise.
/// `output`: the names that the wanted output may have. Throws Error(usage) when the model has none of them.
int run_texts(
    TextOptions& options,
    const Invocation& invocation,
    const std::vector<std::string>& output,
    const std::function<Json(const TextAnswer&, const Tokenizer&)>& report,
    const std::function<std::string(const Json&)>& line);

}  // namespace shardpipe::cli
