#pragma once

// What stands behind include/shardpipe/parallel_layers.h.
#include <ATen/core/dispatch/Dispatcher.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/axis_group.h"
#include "shardpipe/parallel_layers.h"
#include "tensor/shard.h"

namespace shardpipe {

struct TensorParallel::Impl {
  Impl(comm::Group ranks, comm::Monitor& monitor, std::string name)
      : group(std::move(ranks), monitor), axis(std::move(name)), thread(std::this_thread::get_id()) {}

  runtime::RankGroup group;
  std::string axis;  // of its own, so that several lie side by side
  std::thread::id thread;
  std::atomic<bool> open = true;
  std::unique_ptr<tensor::AxisScope> scope;
};

/// One of the operators that register_collectives() makes. `Args`: after its tensor.
template <typename... Args>
auto find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<at::Tensor(const at::Tensor&, Args...)>();
}

struct LayerAccess {
  static std::string axis(const ParallelLayer& layer) { return layer.axis(); }
  static std::vector<int64_t> units(const ParallelLayer& layer) { return layer.units(); }
};

/// A tensor of a module of which a part holds a piece.
struct LayerPiece {
  const ParallelLayer* layer = nullptr;
  int64_t dim = 0;
};

/// Those of the layers in a module, whole layers too, by name.
std::map<std::string, LayerPiece> find_pieces(const torch::nn::Module& module);

/// How the layers of a module want to be divided. Throws Error(usage) for layers that are divided already.
std::vector<tensor::PinRule> find_layer_pins(const torch::nn::Module& module);

}  // namespace shardpipe
