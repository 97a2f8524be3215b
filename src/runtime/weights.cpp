#include "runtime/weights.h"

#include <set>

#include "base/error.h"

namespace shardpipe::runtime {

std::vector<graph::ValueId> held_tensors(const plan::Plan& plan, int rank) {
  std::vector<graph::ValueId> held;
  std::set<graph::ValueId> seen;
  for (const int stage : plan.stages_of_rank(rank)) {
    for (const graph::ValueId id : plan.stages.graphs[static_cast<size_t>(stage)].used_tensors()) {
      const graph::Value& value = plan.graph.values[static_cast<size_t>(id)];
      const bool cache = value.kind == graph::ValueKind::state && value.state == graph::StateKind::per_sequence;
      if (!cache && seen.insert(id).second) {
        held.push_back(id);
      }
    }
  }
  return held;
}

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
  const checkpoint::Checkpoint& checkpoint = checkpoint_of(source->second);
  at::Tensor weight = checkpoint.load(source->second.name, *value.dtype);
  if (value.shape && weight.sizes() != at::IntArrayRef(graph::evaluate(*value.shape, {}))) {
    throw_input(
        "the weight \"{}\" in {} has shape {}, the plan was made for {}", source->second.name,
        checkpoint.path().string(), c10::str(weight.sizes()), graph::to_string(*value.shape));
  }
  return weight;
}

const checkpoint::Checkpoint& Weights::checkpoint_of(const plan::WeightSource& source) const {
  return *checkpoints_.at(static_cast<size_t>(source.checkpoint));
}

bool Weights::converts(const graph::Value& value) const {
  const auto source = plan_.weights.find(value.name);
  if (source == plan_.weights.end()) {
    return false;
  }
  const at::ScalarType dtype = checkpoint_of(source->second).info(source->second.name).dtype;
  return c10::isFloatingType(dtype) && dtype != *value.dtype;
}

void Weights::release(const graph::Value& value) const {
  if (const auto source = plan_.weights.find(value.name); source != plan_.weights.end()) {
    checkpoint_of(source->second).release(source->second.name);
  }
}

std::vector<std::filesystem::path> Weights::opened_files() const {
  std::vector<std::filesystem::path> files;
  for (const auto& checkpoint : checkpoints_) {
    for (const std::filesystem::path& file : checkpoint->opened_files()) {
      files.push_back(file);
    }
  }
  return files;
}

int64_t Weights::resident_bytes() const {
  int64_t bytes = 0;
  for (const auto& checkpoint : checkpoints_) {
    bytes += static_cast<int64_t>(checkpoint->resident_bytes());
  }
  return bytes;
}

}  // namespace shardpipe::runtime
