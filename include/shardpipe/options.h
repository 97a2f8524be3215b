#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace shardpipe {

/// How the weights of some modules lie over the ranks of the axis tp.
struct TensorPin {
  enum class Style {
    colwise,    ///< each rank computes some of the outputs
    rowwise,    ///< each rank takes some of the inputs; the results are summed
    replicate,  ///< whole on every rank
    vocab,      ///< each rank has some of the vocabulary: of an embedding or of a head
  };
  Style style = Style::replicate;
  bool gather_output = false;     ///< of colwise: the result is made whole
  bool input_is_parallel = true;  ///< of rowwise: false = the input is whole, and each rank takes its piece of it
  bool operator==(const TensorPin&) const = default;
};

/// How a model is laid out over ranks. 0 or empty = chosen by the planner.
struct LayoutOptions {
  int pp = 1;                     ///< ranks along the pipeline
  int virtual_stages = 0;         ///< stages a rank, pp x virtual_stages in all; 0 = as many as the schedule has
  int dp = 1;                     ///< replicas, over which the rows of a batch and prompts are cut
  int tp = 1;                     ///< ranks that share each matrix
  int chunks = 0;                 ///< microbatches that a replica's rows are cut into; 0 = the fewest that fill it
  std::string split = "even";     ///< policy that places the cuts: even, equal_size, threshold:BYTES, balanced
  bool profile = false;           ///< balanced: from the measured times of each layer, not from the cost model
  std::vector<std::string> cuts;  ///< modules to cut after ("<NAME": before); overrides split
  /// Order of the work: fill-drain, 1f1b, interleaved, looped-bfs, zb-h1, zb-v, or a file FILE.csv. Stage s is on rank
  /// s mod pp; of zb-v on s or 2 pp - 1 - s; of a file where its lists say.
  std::string schedule = "fill-drain";
  int64_t memory_bytes = 0;  ///< most that the weights of one rank may take; 0 = no limit
  /// With tp above 1: pins weights, by module pattern: "model.layers.*.mlp.down_proj", where `*` stands for anything
  /// between two points. The planner places what no pattern matches.
  std::map<std::string, TensorPin> tp_plan;
};

/// A split policy of one's own: from the model's module paths, in the order in which they run, to the modules to cut
/// after, as in LayoutOptions::cuts.
using SplitFunction = std::function<std::vector<std::string>(const std::vector<std::string>& modules, int stages)>;

/// Which program of a Hugging Face model is planned. An exported program has one only.
enum class ModelProgram {
  generation,         ///< for generate(): packed tokens through caches
  forward,            ///< for Engine::run(): one forward pass, such as input_ids [batch, seq] -> logits
  forward_with_mask,  ///< the same with attention_mask, which families that always have one take either way
};

/// What make_plan() is told besides the model.
struct PlanOptions {
  LayoutOptions layout;
  int threads = 0;               ///< per rank; 0 = cores / ranks of the host, at least 1
  std::string device = "cpu";    ///< where the ranks compute: "cpu", or "cuda": one GPU a rank, or shared by several
  std::string kernels = "auto";  ///< "auto", or "reference": PyTorch's own operators everywhere
  SplitFunction split;           ///< overrides layout.split; layout.cuts overrides both
  bool gradients = false;        ///< gradients will be asked for: only operators that have one are used
  ModelProgram program = ModelProgram::generation;
  bool verify_files = false;  ///< of an artefact: read the weights to see that no byte changed
};

/// How the microbatches' values of an output become the batch's.
struct MergeRule {
  enum class Kind { cat, sum, mean, last };
  Kind kind = Kind::cat;
  int dim = 0;  ///< of cat
};

/// How one forward of a batch is run. Rules that are not given follow from the program's named batch dimension: inputs
/// without it are replicated, outputs with it are concatenated; a program without named dimensions is cut and joined on
/// dimension 0.
struct RunOptions {
  int chunks = 0;                                   ///< microbatches; 0 = the layout's
  std::map<std::string, std::optional<int>> chunk;  ///< by input: the dimension to cut; nullopt = give it whole to all
  std::map<std::string, MergeRule> merge;           ///< by output
  std::string loss;                                 ///< output that gradients are of; empty = none are computed
  bool outputs_on_last = false;                     ///< leave the outputs on the last stage's rank, not on rank 0
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
  double reduce_s = 0;     ///< in collectives over tp: copying and adding; over Gloo adding only
  double wait_s = 0;       ///< for messages, and in collectives for other ranks
  int64_t bytes_sent = 0;  ///< in messages; of collectives what this rank brings
};

/// A finished generation.
struct GenerateResult {
  std::vector<Output> outputs;   ///< in the order of the prompts, the same on every rank
  std::vector<StepStats> steps;  ///< of this rank: prefill first, then one a token
  int lanes = 1;                 ///< microbatches that a replica's prompts were cut into, the most of all
  double prefill_s = 0;          ///< until the first token of every prompt was known
  double decode_s = 0;           ///< from then to the end
};

}  // namespace shardpipe
