#pragma once

#include <fmt/format.h>

#include <chrono>
#include <exception>
#include <future>
#include <stdexcept>
#include <thread>
#include <utility>

#include "comm/store.h"

namespace shardpipe::comm {

/// Questions to the store that end also where no answer comes, because the link to its host is down: TCP itself gives
/// up after a quarter of an hour.
class BoundedStore {
 public:
  explicit BoundedStore(Store store) : store_(std::move(store)) {}

  /// What `call(store)` returns. Throws std::exception when the store is lost, also for all later questions.
  template <typename Call>
  auto ask(Call call) -> decltype(call(std::declval<Store&>())) {
    if (store_.is_server()) {
      return call(store_);
    }
    if (lost_) {
      throw std::runtime_error("it was lost before");
    }
    using Answer = decltype(call(store_));
    std::promise<Answer> promise;
    std::future<Answer> answer = promise.get_future();
    // Left behind if it hangs; the process is about to end.
    std::thread([store = store_, call = std::move(call), promise = std::move(promise)]() mutable {
      try {
        promise.set_value(call(store));
      } catch (...) {
        promise.set_exception(std::current_exception());
      }
    }).detach();
    lost_ = answer.wait_for(kLimit) != std::future_status::ready;
    if (lost_) {
      throw std::runtime_error(fmt::format("no answer within {} s", kLimit.count()));
    }
    return answer.get();
  }

 private:
  static constexpr std::chrono::seconds kLimit{3};
  Store store_;
  bool lost_ = false;
};

}  // namespace shardpipe::comm
