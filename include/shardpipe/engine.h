#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "shardpipe/export.h"
#include "shardpipe/model.h"
#include "shardpipe/options.h"
#include "shardpipe/tensors.h"
#include "shardpipe/world.h"

namespace shardpipe {

/// What every rank holds and does. A cheap value, the same on every rank.
class SHARDPIPE_API Plan {
 public:
  const LayoutOptions& layout() const;
  /// Bytes of the parameters of a stage, a tied one once.
  int64_t parameter_bytes(int stage) const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  friend SHARDPIPE_API Plan
  make_plan(const Model& model, World& world, const PlanOptions& options, const NamedTensors& example);
  std::shared_ptr<const Impl> impl_;
};

/// LayoutOptions::tp_plan from a JSON file (comments allowed): {PATTERN: "colwise" | "rowwise" | "replicate" |
/// "vocab"}, or for the text {"style": …, "gather_output": true, "input_is_parallel": false}. Throws Error(input) for a
/// file that cannot be read or is no such object, Error(usage) for what is no pin.
SHARDPIPE_API std::map<std::string, TensorPin> read_tp_plan(const std::filesystem::path& file);

/// Rank 0 plans and the others receive its plan: collective. Everything that can be refused is refused here, before any
/// rank loads weights: Error(usage) for layouts that cannot exist, Error(input) for checkpoints that contradict the
/// model. `example`: inputs such as the model will be run on, by name (those of rank 0 count); `balanced` cuts for
/// their sizes, and with LayoutOptions::profile runs them.
/// Of an artefact the plan is read: options that are left at their defaults follow from it, `threads` and
/// `layout.chunks` may differ; Error(usage) for others that differ and for another number of ranks, Error(input) when
/// files are missing or damaged.
SHARDPIPE_API Plan make_plan(const Model& model, World& world, const PlanOptions& options, const NamedTensors& example);
SHARDPIPE_API Plan make_plan(const Model& model, World& world, const PlanOptions& options);

/// What Engine::run gives.
struct RunResult {
  NamedTensors outputs;  ///< in the program's order, on the rank that gets them; numbers are tensors without dimensions
  NamedTensors gradients;  ///< of the loss, on rank 0: by parameter, a tied one under each of its names
  int chunks = 1;          ///< microbatches that the batch was cut into
  StepStats stats;         ///< of this rank
};

/// This rank's part of a model, ready to run.
class SHARDPIPE_API Engine {
 public:
  /// Loads this rank's weights only.
  Engine(const Plan& plan, World& world);
  ~Engine();
  Engine(Engine&&) noexcept;

  /// One forward of a batch, cut into microbatches and joined again; with RunOptions::loss its backward too.
  /// Collective: rank 0's inputs and options count, the others may pass none. Loss and gradients are those of the uncut
  /// batch. Throws Error(usage) for inputs and names that do not fit the model.
  RunResult run(const NamedTensors& inputs, const RunOptions& options = {});

  /// The shared state is what a model keeps between calls: tensors that its forward writes, such as running statistics
  /// and counters. Caches of generation are no part of it: they begin anew with each generate().
  /// Puts it back to what the model's files hold. Every rank calls it.
  void reset_state();
  /// By tensor name, on rank 0; empty elsewhere and for a model without state. Collective.
  NamedTensors state();
  /// Replaces it by rank 0's tensors. Collective. Throws Error(usage) on rank 0 naming the tensor when one is missing,
  /// unknown, or of another dtype or shape; nothing has changed then.
  void set_state(const NamedTensors& state);
  /// state() to a safetensors file and set_state() from one, on rank 0. Collective. Throw Error(io) and Error(input).
  void save_state(const std::filesystem::path& file);
  void load_state(const std::filesystem::path& file);

  int64_t parameter_bytes() const;
  /// Bytes of the mapped checkpoint that this process has touched.
  int64_t resident_weight_bytes() const;

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// Called as each token becomes known on this rank: index of the prompt, token, and why the text ended with it.
using TokenCallback = std::function<void(size_t prompt, int64_t token, FinishReason reason)>;

/// Continues each prompt (token ids, none empty) as if it ran alone; of an encoder-decoder a prompt is what the encoder
/// reads, and the decoder starts with Model::decoder_start_token_id(). Collective: rank 0's prompts and options count,
/// the others may pass none. `tokenizer_folder` is needed for stop texts only.
SHARDPIPE_API GenerateResult generate(
    Engine& engine,
    const std::vector<std::vector<int64_t>>& prompts,
    const GenerateOptions& options,
    const TokenCallback& on_token = {},
    const std::string& tokenizer_folder = {});

}  // namespace shardpipe
