#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <optional>

#include "comm/monitor.h"

namespace shardpipe::comm {

// Streams of any device. The CPU has one, on which what was called is done.

/// The stream that the device's operators are put on now.
c10::Stream current_stream(at::Device device);
/// One beside it, that the device takes before others.
c10::Stream side_stream(at::Device device);
/// What the device's own libraries call it; nullptr on the CPU.
void* native_handle(const c10::Stream& stream);

/// What a stream holds at the time of construction.
class StreamPoint {
 public:
  explicit StreamPoint(const c10::Stream& stream);
  /// What `stream` gets from now on comes after it.
  void block(const c10::Stream& stream) const;
  bool reached() const { return !event_ || event_->query(); }

 private:
  std::optional<c10::Event> event_;
};

/// Returns when the point is reached, as no wait inside of the device's libraries does: throws Error(rank) when some
/// rank has failed.
void wait_for(const StreamPoint& point, Monitor& monitor);

}  // namespace shardpipe::comm
