#include "comm/group.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <numeric>

#include "base/error.h"

namespace shardpipe::comm {

namespace {

/// Where a call works: on the device of its tensors, or on the CPU.
struct Place {
  GroupBackend& backend;
  at::Device device;
  bool fits(const at::Tensor& tensor) const { return tensor.is_contiguous() && tensor.device() == device; }
};

}  // namespace

struct Group::State {
  std::shared_ptr<GroupBackend> backend;
  std::shared_ptr<GroupBackend> device_backend;
  std::vector<int> ranks;
  int rank = 0;
  std::shared_ptr<Monitor> monitor;
  GroupStatistics statistics;

  Place place(const at::Tensor& tensor) const {
    if (!tensor.is_cpu() && device_backend) {
      return {*device_backend, tensor.device()};
    }
    return {*backend, at::kCPU};
  }
};

namespace {

using Tensors = std::vector<at::Tensor>;

void check(const char* what, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_meta() || tensor.layout() != at::kStrided) {
    throw_internal(
        "{} needs a tensor with elements in memory, this one is {}", what,
        !tensor.defined()  ? "undefined"
        : tensor.is_meta() ? "on meta"
                           : "not strided");
  }
}

void check(const char* what, const Tensors& parts, const at::Tensor& own, int rank, int size) {
  check(what, own);
  if (std::ssize(parts) != size) {
    throw_internal("{} is given {} tensors, the group has {} ranks", what, parts.size(), size);
  }
  for (const at::Tensor& part : parts) {
    check(what, part);
    if (part.scalar_type() != own.scalar_type()) {
      throw_internal(
          "{} is given tensors of {} and {}", what, c10::toString(own.scalar_type()),
          c10::toString(part.scalar_type()));
    }
    if (part.device() != own.device()) {
      throw_internal("{} is given tensors on {} and {}", what, own.device().str(), part.device().str());
    }
  }
  if (parts[rank].numel() != own.numel()) {
    throw_internal(
        "{}: rank {} of the group has {} elements, its place in the list {}", what, rank, own.numel(),
        parts[rank].numel());
  }
}

/// Contiguous stand-ins for outputs at the place of the call, copied back at the end.
class Outputs {
 public:
  Outputs(const Tensors& tensors, const Place& place, bool read = false) : tensors_(tensors), dense_(tensors) {
    for (at::Tensor& tensor : dense_) {
      if (!place.fits(tensor)) {
        tensor = read ? tensor.to(place.device).contiguous()
                      : at::empty(tensor.sizes(), tensor.options().device(place.device));
      }
    }
  }
  const Tensors& dense() const { return dense_; }
  void copy_back() {
    for (size_t i = 0; i < dense_.size(); ++i) {
      if (!dense_[i].is_same(tensors_[i])) {
        tensors_[i].copy_(dense_[i]);
      }
    }
  }

 private:
  Tensors tensors_;
  Tensors dense_;
};

Tensors contiguous(const Tensors& tensors, const Place& place) {
  Tensors dense;
  dense.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    dense.push_back(tensor.to(place.device).contiguous());
  }
  return dense;
}

int64_t total_bytes(const Tensors& tensors) {
  return std::accumulate(tensors.begin(), tensors.end(), int64_t{0}, [](int64_t sum, const at::Tensor& tensor) {
    return sum + tensor.numel() * tensor.element_size();
  });
}

/// Counts a call and its time, and says to the monitor what goes on.
class Call {
 public:
  Call(Monitor* monitor, const char* name, CollectiveStatistics& statistics, int64_t bytes)
      : action_(monitor, name), statistics_(statistics) {
    ++statistics_.calls;
    statistics_.bytes += bytes;
  }
  ~Call() { statistics_.ns += std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count(); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  struct Action {
    Action(Monitor* monitor, const char* name) {
      if (monitor != nullptr) {
        scope.emplace(*monitor, name);
      }
    }
    std::optional<ActionScope> scope;
  };
  Action action_;
  const at::NoGradGuard no_grad_;
  CollectiveStatistics& statistics_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

Group::Group() : Group(nullptr, {0}, 0, nullptr) {}

Group::Group(
    std::shared_ptr<GroupBackend> backend,
    std::vector<int> ranks,
    int rank,
    std::shared_ptr<Monitor> monitor,
    std::shared_ptr<GroupBackend> device_backend)
    : state_(std::make_shared<State>()) {
  state_->backend = std::move(backend);
  state_->device_backend = std::move(device_backend);
  state_->ranks = std::move(ranks);
  state_->rank = rank;
  state_->monitor = std::move(monitor);
}

int Group::rank() const {
  return state_->rank;
}

int Group::size() const {
  return static_cast<int>(state_->ranks.size());
}

const std::vector<int>& Group::ranks() const {
  return state_->ranks;
}

std::string Group::transport() const {
  return size() == 1 ? "self" : state_->backend->name();
}

GroupStatistics Group::statistics() const {
  GroupStatistics statistics = state_->statistics;
  for (const auto& backend : {state_->backend, state_->device_backend}) {
    statistics.wait_ns += backend ? backend->wait_ns() : 0;
  }
  return statistics;
}

void Group::all_reduce(const at::Tensor& tensor, ReduceOp op) const {
  check("all_reduce", tensor);
  const Call call(state_->monitor.get(), "all_reduce", state_->statistics.all_reduce, total_bytes({tensor}));
  if (size() == 1 || tensor.numel() == 0) {
    return;
  }
  const Place place = state_->place(tensor);
  if (place.fits(tensor)) {
    place.backend.all_reduce(tensor, op);
    return;
  }
  Outputs outputs({tensor}, place, true);
  place.backend.all_reduce(outputs.dense()[0], op);
  outputs.copy_back();
}

void Group::all_gather(const Tensors& outs, const at::Tensor& in) const {
  check("all_gather", outs, in, rank(), size());
  const Call call(state_->monitor.get(), "all_gather", state_->statistics.all_gather, total_bytes({in}));
  if (size() == 1) {
    outs[0].copy_(in.reshape(outs[0].sizes()));
    return;
  }
  const Place place = state_->place(in);
  Outputs outputs(outs, place);
  place.backend.all_gather(outputs.dense(), in.to(place.device).contiguous());
  outputs.copy_back();
}

void Group::reduce_scatter(const at::Tensor& out, const Tensors& ins, ReduceOp op) const {
  check("reduce_scatter", ins, out, rank(), size());
  const Call call(state_->monitor.get(), "reduce_scatter", state_->statistics.reduce_scatter, total_bytes(ins));
  if (size() == 1) {
    out.copy_(ins[0].reshape(out.sizes()));
    return;
  }
  const Place place = state_->place(out);
  Outputs outputs({out}, place);
  place.backend.reduce_scatter(outputs.dense()[0], contiguous(ins, place), op);
  outputs.copy_back();
}

void Group::all_to_all(const Tensors& outs, const Tensors& ins) const {
  if (std::ssize(ins) != size()) {
    throw_internal("all_to_all is given {} tensors, the group has {} ranks", ins.size(), size());
  }
  check("all_to_all", outs, ins[rank()], rank(), size());
  check("all_to_all", ins, outs[rank()], rank(), size());
  const Call call(state_->monitor.get(), "all_to_all", state_->statistics.all_to_all, total_bytes(ins));
  if (size() == 1) {
    outs[0].copy_(ins[0].reshape(outs[0].sizes()));
    return;
  }
  const Place place = state_->place(outs[0]);
  Outputs outputs(outs, place);
  place.backend.all_to_all(outputs.dense(), contiguous(ins, place));
  outputs.copy_back();
}

void Group::broadcast(const at::Tensor& tensor, int root) const {
  check("broadcast", tensor);
  if (root < 0 || root >= size()) {
    throw_internal("broadcast from rank {} in a group of {}", root, size());
  }
  const Call call(
      state_->monitor.get(), "broadcast", state_->statistics.broadcast, root == rank() ? total_bytes({tensor}) : 0);
  if (size() == 1 || tensor.numel() == 0) {
    return;
  }
  const Place place = state_->place(tensor);
  Outputs outputs({tensor}, place, true);
  place.backend.broadcast(outputs.dense()[0], root);
  if (root != rank()) {
    outputs.copy_back();
  }
}

void Group::barrier() const {
  const Call call(state_->monitor.get(), "barrier", state_->statistics.barrier, 0);
  if (size() > 1) {
    state_->backend->barrier();
  }
}

}  // namespace shardpipe::comm
