#include "frontend/hf/encoder.h"

#include <ATen/ATen.h>

namespace shardpipe::hf {

trace::Program forward_program(const std::shared_ptr<ForwardModel>& model) {
  trace::Program program;
  program.inputs = model->inputs;
  for (const auto& parameter : model->named_parameters()) {
    program.tensors.push_back({parameter.key(), parameter.value(), graph::ValueKind::parameter});
  }
  program.forward = [model](const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>&) {
    return model->forward(inputs);
  };
  return program;
}

trace::TensorSpec ids_input(const char* name, const char* seq) {
  return {name, at::kLong, {graph::Size::symbol("batch"), graph::Size::symbol(seq)}};
}

at::Tensor attended(const at::Tensor& mask) {
  return mask.ne(0).unsqueeze(1).unsqueeze(1);
}

at::Tensor heads_first(const at::Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

at::Tensor join_heads(const at::Tensor& x) {
  return x.transpose(1, 2).reshape({x.size(0), x.size(2), x.size(1) * x.size(3)});
}

}  // namespace shardpipe::hf
