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

// This rank's piece of a tensor in memory, in memory of its own.
at::Tensor Weights::piece_of(const graph::Value& value, const at::Tensor& whole) const {
  const auto shard = plan_.shards.find(value.name);
  if (shard == plan_.shards.end() || plan_.own_pieces) {
    return whole;
  }
  return tensor::take(whole, shard->second, plan_.part).clone(at::MemoryFormat::Contiguous);
}

void Weights::check_shape(const graph::Value& value, const plan::WeightSource& source, at::IntArrayRef sizes) const {
  const std::optional<graph::Shape> shape = plan_.own_pieces ? value.shape : plan_.whole_shape(value);
  if (shape && sizes != at::IntArrayRef(graph::evaluate(*shape, {}))) {
    throw_input(
        "the weight \"{}\" in {} has shape {}, the plan was made for {}", source.name,
        checkpoint_of(source).path().string(), c10::str(sizes), graph::to_string(*shape));
  }
}

at::Tensor Weights::load_piece(
    const graph::Value& value, const plan::WeightSource& source, const tensor::Shard& shard) const {
  const checkpoint::Checkpoint& checkpoint = checkpoint_of(source);
  check_shape(value, source, checkpoint.info(source.name).shape);
  if (shard.blocks.size() == 1 &&
      checkpoint.info(source.name).shape[static_cast<size_t>(shard.dim)] == shard.period()) {
    const at::Tensor piece = checkpoint.load_slice(
        source.name, shard.dim, shard.begin(shard.period(), plan_.part), shard.length(shard.period(), plan_.part),
        *value.dtype);
    if (piece.is_contiguous()) {
      return piece;
    }
    const at::Tensor copy = piece.contiguous();
    checkpoint.release(source.name);
    return copy;
  }
  // Pieces of several blocks.
  const at::Tensor piece = tensor::take(checkpoint.tensor(source.name), shard, plan_.part).contiguous();
  checkpoint.release(source.name);
  return c10::isFloatingType(piece.scalar_type()) ? piece.to(*value.dtype) : piece;
}

at::Tensor Weights::load(const graph::Value& value) const {
  if (value.content.defined()) {
    return piece_of(value, value.content);
  }
  const auto source = plan_.weights.find(value.name);
  if (source == plan_.weights.end() && tensors_) {
    return piece_of(value, tensors_(value.name));
  }
  if (source == plan_.weights.end()) {
    throw_internal("the plan has no source for the weight \"{}\"", value.name);
  }
  if (const auto shard = plan_.shards.find(value.name); shard != plan_.shards.end() && !plan_.own_pieces) {
    return load_piece(value, source->second, shard->second);
  }
  at::Tensor weight = checkpoint_of(source->second).load(source->second.name, *value.dtype);
  check_shape(value, source->second, weight.sizes());
  return weight;
}

const checkpoint::Checkpoint& Weights::checkpoint_of(const plan::WeightSource& source) const {
  return *checkpoints_.at(static_cast<size_t>(source.checkpoint));
}

bool Weights::copies(const graph::Value& value) const {
  const auto source = plan_.weights.find(value.name);
  if (source == plan_.weights.end()) {
    return false;
  }
  const auto shard = plan_.shards.find(value.name);
  if (shard != plan_.shards.end() && !plan_.own_pieces && (shard->second.dim > 0 || shard->second.blocks.size() > 1)) {
    return true;
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
