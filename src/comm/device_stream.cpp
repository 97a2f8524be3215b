#include "comm/device_stream.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <chrono>
#include <thread>

namespace shardpipe::comm {

c10::Stream current_stream(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

c10::Stream side_stream(at::Device device) {
  return device.is_cpu() ? current_stream(device)
                         : c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, true);
}

void* native_handle(const c10::Stream& stream) {
  return stream.device_type() == c10::kCPU ? nullptr : stream.native_handle();
}

StreamPoint::StreamPoint(const c10::Stream& stream) {
  if (stream.device_type() != c10::kCPU) {
    event_.emplace(stream.device_type());
    event_->record(stream);
  }
}

void StreamPoint::block(const c10::Stream& stream) const {
  if (event_) {
    event_->block(stream);
  }
}

void wait_for(const StreamPoint& point, Monitor& monitor) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  while (!point.reached()) {
    monitor.check();
    // What takes long may be noticed late.
    if (Clock::now() - start < std::chrono::microseconds(200)) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
}

}  // namespace shardpipe::comm
