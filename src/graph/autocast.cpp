#include "graph/autocast.h"

#include <ATen/autocast_mode.h>

namespace shardpipe::graph {
namespace {

void set(const Autocast& state) {
  at::autocast::set_autocast_enabled(at::kCPU, state.enabled);
  at::autocast::set_autocast_dtype(at::kCPU, state.dtype);
  at::autocast::set_autocast_cache_enabled(state.cache);
}

}  // namespace

void AutocastScope::enter(const std::optional<Autocast>& wanted) {
  if (wanted == now_) {
    return;
  }
  if (!caller_) {
    caller_ = Autocast{
        at::autocast::get_autocast_dtype(at::kCPU), at::autocast::is_autocast_enabled(at::kCPU),
        at::autocast::is_autocast_cache_enabled(), 0};
  }
  if (now_ && (!wanted || wanted->region != now_->region)) {
    at::autocast::clear_cache();
  }
  set(wanted ? *wanted : *caller_);
  now_ = wanted;
}

AutocastScope::~AutocastScope() {
  if (now_) {
    at::autocast::clear_cache();
    set(*caller_);
  }
}

}  // namespace shardpipe::graph
