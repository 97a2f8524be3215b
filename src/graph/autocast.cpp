#include "graph/autocast.h"

#include <ATen/autocast_mode.h>

#include <array>

namespace shardpipe::graph {
namespace {

// A region holds wherever the tensors are.
constexpr std::array kDevices = {at::kCPU, at::kCUDA};

void set(at::DeviceType device, const Autocast& state) {
  at::autocast::set_autocast_enabled(device, state.enabled);
  at::autocast::set_autocast_dtype(device, state.dtype);
  at::autocast::set_autocast_cache_enabled(state.cache);
}

void set(const std::vector<Autocast>& states) {
  for (size_t i = 0; i < kDevices.size(); ++i) {
    set(kDevices[i], states[i]);
  }
}

std::vector<Autocast> current() {
  std::vector<Autocast> states;
  for (const at::DeviceType device : kDevices) {
    states.push_back(
        {at::autocast::get_autocast_dtype(device), at::autocast::is_autocast_enabled(device),
         at::autocast::is_autocast_cache_enabled(), 0});
  }
  return states;
}

}  // namespace

void AutocastScope::enter(const std::optional<Autocast>& wanted) {
  if (wanted == now_) {
    return;
  }
  if (callers_.empty()) {
    callers_ = current();
  }
  if (now_ && (!wanted || wanted->region != now_->region)) {
    at::autocast::clear_cache();
  }
  set(wanted ? std::vector(kDevices.size(), *wanted) : callers_);
  now_ = wanted;
}

AutocastScope::~AutocastScope() {
  if (now_) {
    at::autocast::clear_cache();
    set(callers_);
  }
}

}  // namespace shardpipe::graph
