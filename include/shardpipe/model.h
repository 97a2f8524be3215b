#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "shardpipe/export.h"
#include "shardpipe/options.h"

namespace torch::nn {
class Module;
}
namespace at {
class Tensor;
}

namespace shardpipe {

struct ModuleSignature;  // module.h

/// A model as its user has it. A cheap value; nothing is read before it is needed, and weights are never read here.
class SHARDPIPE_API Model {
 public:
  /// A Hugging Face folder: config.json, weights (safetensors or pytorch_model.bin), tokenizer. `dtype`: "float32",
  /// "bfloat16", "float16", or empty for the one in config.json. Throws Error(usage) when it is no such folder, the
  /// architecture or the dtype is not known; Error(input) when a file is damaged.
  static Model from_folder(const std::filesystem::path& folder, const std::string& dtype = {});

  /// A torch.export file (.pt2). `weights`: a folder or file with the model's weights by their names, for archives
  /// without them; empty for those in the archive. Throws Error(usage) when there is no such file.
  static Model from_exported(const std::filesystem::path& file, const std::filesystem::path& weights = {});

  /// A folder that compile() wrote (artefact.h), whatever model it was made of; from_folder() takes such a folder too.
  /// make_plan() then reads the plan, and no model is needed. Throws Error(input) when its shardpipe.json is damaged.
  static Model from_artefact(const std::filesystem::path& folder);

  /// A C++ module of one's own (include <shardpipe/module.h>), in the mode, train or eval, that it is in. Parameters
  /// and buffers have their C++ names; buffers that forward writes are state. Each rank makes the same module, and it
  /// is traced on each when a plan is made. Errors, Error(usage): what cannot be traced, by module path.
  static Model from_module(const std::shared_ptr<torch::nn::Module>& module, const ModuleSignature& signature);
  /// One that is built without memory, whatever its size: `factory` runs with tensors on `meta`, and each rank replays
  /// the initialisation of its own stage's tensors only. Weights follow from `seed` and each parameter's name, not from
  /// the layout.
  static Model from_module(
      const std::function<std::shared_ptr<torch::nn::Module>()>& factory,
      const ModuleSignature& signature,
      uint64_t seed = 0);
  /// One on `meta`, whose tensors `initialise` fills, each on the ranks that hold it.
  static Model from_module(
      const std::shared_ptr<torch::nn::Module>& module,
      const ModuleSignature& signature,
      const std::function<void(const std::string& name, at::Tensor& tensor)>& initialise,
      uint64_t seed = 0);

  const std::filesystem::path& folder() const;
  /// As config.json has them; these and what follows throw Error(usage) for an exported program.
  int64_t vocab_size() const;
  int64_t max_positions() const;
  /// generation_config.json's, else config.json's: a number or a list; empty when there is none.
  const std::vector<int64_t>& eos_token_ids() const;
  /// Of a model that generates with an encoder and a decoder: the token that the decoder starts with. nullopt for the
  /// others. Throws Error(input) where the folder's files name none, or one outside of the vocabulary.
  std::optional<int64_t> decoder_start_token_id() const;
  /// What generation_config.json asks for; nullopt where it does not say. Lengths count the prompt; of an
  /// encoder-decoder not the prompt, but the token that the decoder starts with.
  std::optional<int64_t> max_new_tokens() const;
  std::optional<int64_t> max_length() const;
  std::optional<int64_t> min_new_tokens() const;
  std::optional<int64_t> min_length() const;
  bool wants_sampling() const;
  /// What it asks for beyond greedy search, as "num_beams = 4".
  std::vector<std::string> unsupported_generation_settings() const;

  /// Throws Error(usage) naming the prompt, the limit and the actual value when one is empty, holds an id outside of
  /// the vocabulary, or is longer than the model's positions allow with its continuation.
  void check_prompts(const std::vector<std::vector<int64_t>>& prompts, int64_t max_new_tokens) const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

}  // namespace shardpipe
