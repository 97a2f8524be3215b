#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "shardpipe/engine.h"
#include "shardpipe/export.h"
#include "shardpipe/options.h"
#include "shardpipe/tensors.h"

namespace shardpipe {

/// How a WorkerPool starts its processes.
struct WorkerPoolOptions {
  PlanOptions plan;               ///< layout, threads, kernels; of an artefact they follow from it
  std::string dtype;              ///< of a folder: see Model::from_folder()
  std::filesystem::path weights;  ///< of an exported program: see Model::from_exported()
  std::string tokenizer;          ///< folder of the tokenizer that stop texts need; empty = the model's
  /// The program `shardpipe`; empty = $SHARDPIPE_PROGRAM, else beside the library, else in PATH.
  std::string program;
  double timeout_s = 300;          ///< longest time for the processes to start, and longest single action later
  std::string transport = "auto";  ///< how they talk to each other: see World::from_environment()
};

/// A model that runs in processes of its own, one a rank, called from one ordinary process that is no rank: from any
/// thread, one call at a time. The processes live from the constructor to the destructor and keep the model's state;
/// none outlives the process that made them, however it ends, nor the thread: make the pool in one that lives as long.
class SHARDPIPE_API WorkerPool {
 public:
  /// `model`: an artefact, a Hugging Face folder or a program from torch.export. Starts the processes. Throws
  /// Error(usage) when there is no such model, program or transport, Error(input) for a damaged artefact, Error(rank)
  /// when the processes cannot start.
  explicit WorkerPool(const std::filesystem::path& model, const WorkerPoolOptions& options = {});
  /// Ends the processes.
  ~WorkerPool();
  WorkerPool(WorkerPool&&) noexcept;

  /// As Engine::run() of the model's forward program, which follows from the inputs (with attention_mask or without)
  /// and the options (with gradients where there is a loss); planned and loaded when first asked for. Outputs and
  /// gradients come here.
  ///
  /// What is wrong with a request is Error(usage), and the pool goes on. Any other failure ends all processes and is
  /// thrown with its cause ("rank 1 died (signal 9, killed)"); further calls throw Error(rank) until restart().
  RunResult run(const NamedTensors& inputs, const RunOptions& options = {});
  /// As shardpipe::generate() and Model::check_prompts(). An exception of `on_token` is thrown when all is generated.
  GenerateResult generate(
      const std::vector<std::vector<int64_t>>& prompts,
      const GenerateOptions& options,
      const TokenCallback& on_token = {});

  /// As those of Engine: what run() keeps between calls.
  NamedTensors state();
  void set_state(const NamedTensors& state);
  void reset_state();

  /// Ends what is left of the processes and starts new ones; the state is that of the model's files.
  void restart();
  /// The processes of the ranks, in order; for those who watch them.
  std::vector<pid_t> process_ids() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

/// What the processes of a pool run: `shardpipe worker`. `address`: where the pool listens. With `ranks` above 0 it
/// starts so many of itself, else it is one of them. Returns the exit status.
SHARDPIPE_API int run_pool_worker(
    const std::string& address, int ranks, double timeout_s, const std::string& transport = "auto");

}  // namespace shardpipe
