#include "runtime/weights.h"

#include "base/error.h"

namespace shardpipe::runtime {

Weights::Weights(const plan::Plan& plan, TensorSource tensors) : plan_(plan), tensors_(std::move(tensors)) {
  for (const std::string& path : plan.checkpoints) {
    checkpoints_.push_back(checkpoint::Checkpoint::open(path));
  }
}

at::Tensor Weights::load(const graph::Value& value) const {
  if (value.content.defined()) {
    return value.content;
  }
  const auto source = plan_.weights.find(value.name);
  if (source == plan_.weights.end() && tensors_) {
    return tensors_(value.name);
  }
  if (source == plan_.weights.end()) {
    throw_internal("the plan has no source for the weight \"{}\"", value.name);
  }
  const checkpoint::Checkpoint& checkpoint = *checkpoints_.at(static_cast<size_t>(source->second.checkpoint));
  at::Tensor weight = checkpoint.load(source->second.name, *value.dtype);
  if (value.shape && weight.sizes() != at::IntArrayRef(graph::evaluate(*value.shape, {}))) {
    throw_input(
        "the weight \"{}\" in {} has shape {}, the plan was made for {}", source->second.name,
        checkpoint.path().string(), c10::str(weight.sizes()), graph::to_string(*value.shape));
  }
  return weight;
}

int64_t Weights::resident_bytes() const {
  int64_t bytes = 0;
  for (const auto& checkpoint : checkpoints_) {
    bytes += static_cast<int64_t>(checkpoint->resident_bytes());
  }
  return bytes;
}

}  // namespace shardpipe::runtime
