#pragma once

// What the families that run as one plain forward pass share: encoders, and encoder-decoders given their decoder ids.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "frontend/hf/layers.h"
#include "frontend/trace/trace.h"

namespace shardpipe::hf {

/// An input that may be left out: it is then a tensor of `value` with the shape of the input `like`.
struct OptionalInput {
  std::string name;
  std::string like;
  int64_t value = 0;
};

/// A family's whole module, run on rows of one length: ids and masks int64 [batch, seq].
class ForwardModel : public ScopedModule {
 public:
  using ScopedModule::ScopedModule;

  /// Inputs in the order of `inputs`; outputs by Hugging Face's names.
  virtual trace::NamedOutputs forward(const std::vector<at::Tensor>& inputs) = 0;

  std::vector<trace::TensorSpec> inputs;
  std::vector<OptionalInput> optional_inputs;
  std::map<std::string, int64_t> id_limits;  ///< by input of ids: how many there are
  int64_t vocab_size = 0;
  int64_t max_positions = 0;       ///< that the model was made for
  bool bounded_positions = false;  ///< whether no position from max_positions on can be computed
};

/// The program of a plain forward pass.
trace::Program forward_program(const std::shared_ptr<ForwardModel>& model);

/// An input of int64 [batch, seq], where `seq` is the name of that dimension.
trace::TensorSpec ids_input(const char* name, const char* seq = "seq");

/// mask [batch, seq], 0 for padding -> bool [batch, 1, 1, seq], false for padding: at::scaled_dot_product_attention's.
at::Tensor attended(const at::Tensor& mask);

/// x [batch, seq, heads * head_dim] -> [batch, heads, seq, head_dim].
at::Tensor heads_first(const at::Tensor& x, int64_t heads);
/// The inverse.
at::Tensor join_heads(const at::Tensor& x);

}  // namespace shardpipe::hf
