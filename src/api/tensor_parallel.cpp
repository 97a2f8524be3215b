#include <fmt/format.h>
#include <torch/nn/module.h>

#include <algorithm>

#include "api/impl.h"
#include "api/parallel_layers.h"
#include "base/error.h"
#include "plan/pin_rule.h"
#include "tensor/placement.h"

namespace shardpipe {
namespace {

thread_local std::vector<std::shared_ptr<TensorParallel::Impl>> open_scopes;

int checked_parts(const comm::World& world, int parts) {
  if (parts < 0 || (parts > 0 && world.size() % parts != 0)) {
    throw_usage("TensorParallel: {} parts do not divide the {} ranks of the job", parts, world.size());
  }
  return parts > 0 ? parts : world.size();
}

comm::Group group_of(comm::World& world, int parts) {
  if (parts == world.size()) {
    return world.group();
  }
  std::vector<int> ranks;
  for (int part = 0; part < parts; ++part) {
    ranks.push_back(world.rank() / parts * parts + part);
  }
  return parts == 1 ? comm::Group() : world.group(ranks);
}

template <typename F>
void for_each_layer(const torch::nn::Module& module, F f) {
  // A holder of the module itself cannot be had from a reference.
  if (const auto* layer = dynamic_cast<const ParallelLayer*>(&module)) {
    f(std::string(), *layer);
  }
  for (const auto& child : module.named_modules(std::string(), /*include_self=*/false)) {
    if (const auto* layer = dynamic_cast<const ParallelLayer*>(child.value().get())) {
      f(child.key(), *layer);
    }
  }
}

}  // namespace

TensorParallel::TensorParallel(World& world, int parts) {
  static std::atomic<int> number = 0;
  tensor::register_collectives();
  comm::World& ranks = world.impl().world;
  impl_ = std::make_shared<Impl>(
      group_of(ranks, checked_parts(ranks, parts)), ranks.monitor(), fmt::format("tp of layers {}", number++));
  impl_->scope = std::make_unique<tensor::AxisScope>(impl_->axis, impl_->group);
  open_scopes.push_back(impl_);
}

TensorParallel::~TensorParallel() {
  impl_->open = false;
  impl_->scope.reset();
  std::erase(open_scopes, impl_);
}

int TensorParallel::parts() const {
  return impl_->group.parts();
}

int TensorParallel::part() const {
  return impl_->group.part();
}

int64_t local_count(int64_t count) {
  if (open_scopes.empty()) {
    return count;
  }
  const runtime::RankGroup& group = open_scopes.back()->group;
  return tensor::spread(count, group.parts())[static_cast<size_t>(group.part())];
}

ParallelLayer::ParallelLayer(const char* what, int64_t extent, int64_t unit) : extent_(extent), unit_(unit) {
  if (extent < 1 || unit < 1) {
    throw_usage("a parallel layer has {} {} in units of {}, must be at least 1", extent, what, unit);
  }
  if (extent % unit != 0) {
    throw_usage("a parallel layer has {} {}, which is no multiple of its unit of {}", extent, what, unit);
  }
  if (!open_scopes.empty() && open_scopes.back()->group.parts() > 1) {
    ranks_ = open_scopes.back();
  }
}

ParallelLayer::ParallelLayer(const ParallelLayer&) = default;
ParallelLayer& ParallelLayer::operator=(const ParallelLayer&) = default;
ParallelLayer::~ParallelLayer() = default;

int ParallelLayer::parts() const {
  return ranks_ == nullptr ? 1 : ranks_->group.parts();
}

int ParallelLayer::part() const {
  return ranks_ == nullptr ? 0 : ranks_->group.part();
}

std::vector<int64_t> ParallelLayer::units() const {
  return tensor::spread(extent_ / unit_, parts());
}

int64_t ParallelLayer::local_extent(int part) const {
  return units()[static_cast<size_t>(part)] * unit_;
}

int64_t ParallelLayer::local_begin() const {
  return tensor::Shard{0, {extent_}, units()}.begin(extent_, part());
}

std::string ParallelLayer::axis() const {
  if (!ranks_->open || ranks_->thread != std::this_thread::get_id()) {
    throw Error(
        ErrorCode::usage,
        fmt::format(
            "a layer of {} {} is divided among {} ranks, but its TensorParallel {}", extent_,
            extent_ == 1 ? "element" : "elements", parts(), ranks_->open ? "is another thread's" : "has ended"),
        "keep the TensorParallel as long as the layers run, on their thread");
  }
  return ranks_->axis;
}

at::Tensor ParallelLayer::keep_piece(const at::Tensor& whole, int64_t dim) const {
  if (ranks_ == nullptr) {
    return whole;
  }
  const c10::NoGradGuard no_grad;
  return whole.narrow(dim, local_begin(), local_extent()).clone(at::MemoryFormat::Contiguous);
}

at::Tensor ParallelLayer::enter(const at::Tensor& x) const {
  if (ranks_ == nullptr) {
    return x;
  }
  static const auto op = find_operator<std::string_view>("shardpipe::enter");
  return op.call(x, axis());
}

at::Tensor ParallelLayer::reduce(const at::Tensor& x) const {
  if (ranks_ == nullptr) {
    return x;
  }
  static const auto op = find_operator<std::string_view>("shardpipe::all_reduce");
  return op.call(x, axis());
}

at::Tensor ParallelLayer::gather(const at::Tensor& x, int64_t dim) const {
  if (ranks_ == nullptr) {
    return x;
  }
  static const auto op =
      find_operator<int64_t, at::IntArrayRef, at::IntArrayRef, std::string_view>("shardpipe::all_gather");
  return op.call(x, c10::maybe_wrap_dim(dim, x.dim()), extent_, units(), axis());
}

at::Tensor ParallelLayer::take(const at::Tensor& x, int64_t dim) const {
  if (ranks_ == nullptr) {
    return x;
  }
  static const auto op =
      find_operator<int64_t, at::IntArrayRef, at::IntArrayRef, std::string_view>("shardpipe::take_part");
  return op.call(x, c10::maybe_wrap_dim(dim, x.dim()), extent_, units(), axis());
}

std::map<std::string, LayerPiece> find_pieces(const torch::nn::Module& module) {
  std::map<std::string, LayerPiece> pieces;
  for_each_layer(module, [&](const std::string& path, const ParallelLayer& layer) {
    for (const auto& [name, dim] : layer.divided()) {
      pieces[path.empty() ? name : fmt::format("{}.{}", path, name)] = {&layer, dim};
    }
  });
  return pieces;
}

std::vector<tensor::PinRule> find_layer_pins(const torch::nn::Module& module) {
  std::vector<tensor::PinRule> rules;
  for_each_layer(module, [&](const std::string& path, const ParallelLayer& layer) {
    if (layer.parts() > 1) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "the layer \"{}\" is divided among {} ranks already; Model::from_module divides whole ones", path,
              layer.parts()),
          "make the module where no TensorParallel lives");
    }
    tensor::PinRule& rule = rules.emplace_back(plan::pin_rule(path.empty() ? "*" : path, layer.pin()));
    rule.unit = layer.unit();
    rule.wish = true;
  });
  return rules;
}

}  // namespace shardpipe
