#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "generate/request.h"
#include "graph/graph.h"

namespace shardpipe::generation {

/// One prompt and its continuation.
struct Row {
  const std::vector<int64_t>* prompt = nullptr;  ///< of an encoder-decoder: what the decoder starts with
  const std::vector<int64_t>* source = nullptr;  ///< what the encoder reads; null in models without one
  int64_t cached = 0;                            ///< positions of it that the caches hold
  Output output;
  bool active() const { return output.finish_reason == FinishReason::none; }
};

/// What the last stage chose for one row in one step.
struct Choice {
  int64_t token = 0;
  FinishReason finish_reason = FinishReason::none;
  double logprob = 0;
};

/// The rows that go through the pipeline together, and the tensors of their next step: tokens packed row after row, all
/// of the prompt in the first step, one token a row later; sources, in the first step only, likewise. Rows that have
/// ended take no further part. Every rank keeps the same lanes, so that all know the shape of each message.
class Lane {
 public:
  /// Rows keep their position in the lane as their slot in the caches.
  Lane(std::vector<Row> rows, bool logprobs);

  bool active() const { return !active_rows_.empty(); }
  /// tokens and outputs, with sources also sources and slots: named dimensions of the generation program.
  const graph::Dimensions& dimensions() const { return dimensions_; }
  /// input_ids, positions, slots [tokens]; selected [outputs]; source_ids, source_positions, source_slots [sources],
  /// source_lengths [slots]: int64. Throws Error(internal) for another name.
  const at::Tensor& input(const std::string& name) const;

  /// int64 [outputs, 2 or 3] of the current step: token, finish reason, and the bits of the log probability where asked
  /// for. The message of SEND_T and RECV_T: 8 x columns x rows bytes.
  at::Tensor choices() const { return choices_; }
  void set_choices(const std::vector<Choice>& choices);

  const std::vector<Row>& rows() const { return rows_; }
  /// The rows of the current step, as the rows of its outputs.
  const std::vector<size_t>& active_rows() const { return active_rows_; }

  /// Takes the choices into the rows and prepares the next step. Calls `seen(slot, choice)` for each.
  void advance(const std::function<void(size_t slot, const Choice& choice)>& seen);

 private:
  void prepare();
  void prepare_sources();

  std::vector<Row> rows_;
  bool logprobs_;
  std::vector<size_t> active_rows_;
  graph::Dimensions dimensions_;
  at::Tensor input_ids_;
  at::Tensor positions_;
  at::Tensor slots_;
  at::Tensor selected_;
  at::Tensor choices_;
  at::Tensor source_ids_;
  at::Tensor source_positions_;
  at::Tensor source_slots_;
  at::Tensor source_lengths_;
};

/// A step of one lane.
struct StepSize {
  int64_t rows = 1;
  int64_t prompt_tokens = 1;   ///< of each row; in an encoder-decoder the decoder starts with one
  int64_t source_tokens = 16;  ///< of each row, in an encoder-decoder
  int64_t generated = 0;       ///< tokens that each row has so far: 0 is the first step, which reads the prompts
  int64_t capacity = 128;      ///< of the caches
};

/// Inputs of a generation program and sizes of its named dimensions in a step. The default, of one row and one token,
/// is what most of the time is spent in and what cuts are balanced for.
struct StepExample {
  std::map<std::string, at::Tensor> inputs;
  graph::Dimensions sizes;
};
StepExample step_example(const graph::Graph& program, const StepSize& size = {});

/// Rows of each lane as torch.tensor_split cuts them: the first rows % lanes lanes have one more.
std::vector<std::vector<Row>> split_rows(std::vector<Row> rows, int lanes);

}  // namespace shardpipe::generation
