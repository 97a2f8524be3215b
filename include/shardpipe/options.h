#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace shardpipe {

/// How a model is laid out over ranks. 0 or empty = chosen by the planner.
struct LayoutOptions {
  int pp = 1;                     ///< pipeline stages
  int dp = 1;                     ///< replicas; this version: 1
  int tp = 1;                     ///< ranks that share each matrix; this version: 1
  int chunks = 0;                 ///< microbatches that a batch is cut into; 0 = the fewest that fill the pipeline
  std::string split = "even";     ///< policy that places the cuts: even
  std::vector<std::string> cuts;  ///< modules to cut after ("<NAME": before); overrides split
  std::string schedule = "fill-drain";  ///< order of the work: fill-drain
};

/// What make_plan() is told besides the model.
struct PlanOptions {
  LayoutOptions layout;
  int threads = 0;               ///< per rank; 0 = cores / ranks of the host, at least 1
  std::string kernels = "auto";  ///< "auto", or "reference": PyTorch's own operators everywhere
};

/// How text is continued: greedily. Beams and sampling follow in a later version.
struct GenerateOptions {
  int64_t max_new_tokens = 20;         ///< at least 1
  int64_t min_new_tokens = 0;          ///< the end token is not chosen before
  std::vector<int64_t> eos_token_ids;  ///< tokens that end a text; empty = none
  std::vector<std::string> stop;       ///< a text ends once it contains one of these
  bool logprobs = false;               ///< also return the log probability of each chosen token
};

/// Why a text ended; `none` while it goes on.
enum class FinishReason { none, length, eos, stop };

/// The continuation of one prompt.
struct Output {
  std::vector<int64_t> token_ids;  ///< new tokens only, the end token included
  std::vector<double> logprobs;    ///< natural logarithm, one a token, when asked for
  FinishReason finish_reason = FinishReason::none;
};

/// Where the time of one step went on a rank, and what it sent to others.
struct StepStats {
  double compute_s = 0;
  double wait_s = 0;  ///< for messages
  int64_t bytes_sent = 0;
};

/// A finished generation.
struct GenerateResult {
  std::vector<Output> outputs;   ///< in the order of the prompts, the same on every rank
  std::vector<StepStats> steps;  ///< of this rank: prefill first, then one a token
  int lanes = 1;                 ///< microbatches that the prompts were cut into
  double prefill_s = 0;          ///< until the first token of every prompt was known
  double decode_s = 0;           ///< from then to the end
};

}  // namespace shardpipe
