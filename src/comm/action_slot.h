#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace shardpipe::comm {

/// Where an action happens; -1 = does not apply.
struct ActionPlace {
  int stage = -1;
  int microbatch = -1;
  int from = -1;  ///< the rank that it receives from
  int to = -1;    ///< the rank that it sends to
};

/// What the compute thread does right now, for the watchdog to read: one writer, one reader, no lock and no clock,
/// since it is written for every action. The number is odd while an action runs and its text stands still.
class ActionSlot {
 public:
  static constexpr size_t kTextBytes = 40;  ///< longer texts are cut

  void begin(std::string_view text, const ActionPlace& place) {
    uint32_t number = number_.load(std::memory_order_relaxed);
    if ((number & 1) != 0) {
      number_.store(++number, std::memory_order_relaxed);
    }
    std::atomic_thread_fence(std::memory_order_release);
    uint64_t words[kWords] = {};
    std::memcpy(words, text.data(), text.size() < kTextBytes ? text.size() : kTextBytes);
    words[kWords - 2] = pack(place.stage, place.microbatch);
    words[kWords - 1] = pack(place.from, place.to);
    for (size_t i = 0; i < kWords; ++i) {
      words_[i].store(words[i], std::memory_order_relaxed);
    }
    number_.store(number + 1, std::memory_order_release);
  }

  void end() {
    const uint32_t number = number_.load(std::memory_order_relaxed);
    if ((number & 1) != 0) {
      number_.store(number + 1, std::memory_order_release);
    }
  }

  uint32_t number() const { return number_.load(std::memory_order_acquire); }
  bool active() const { return (number() & 1) != 0; }

  struct Snapshot {
    uint32_t number = 0;
    std::string text;
    ActionPlace place;
  };
  /// The action that runs, if one does and it did not change while it was read.
  std::optional<Snapshot> snapshot() const {
    const uint32_t before = number();
    if ((before & 1) == 0) {
      return std::nullopt;
    }
    uint64_t words[kWords];
    for (size_t i = 0; i < kWords; ++i) {
      words[i] = words_[i].load(std::memory_order_relaxed);
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    if (number_.load(std::memory_order_relaxed) != before) {
      return std::nullopt;
    }
    const char* text = reinterpret_cast<const char*>(words);
    return Snapshot{
        before,
        std::string(text, strnlen(text, kTextBytes)),
        {high(words[kWords - 2]), low(words[kWords - 2]), high(words[kWords - 1]), low(words[kWords - 1])}};
  }

 private:
  static constexpr size_t kWords = kTextBytes / 8 + 2;
  static uint64_t pack(int a, int b) { return uint64_t{static_cast<uint32_t>(a)} << 32 | static_cast<uint32_t>(b); }
  static int high(uint64_t word) { return static_cast<int>(static_cast<uint32_t>(word >> 32)); }
  static int low(uint64_t word) { return static_cast<int>(static_cast<uint32_t>(word)); }

  std::atomic<uint32_t> number_{0};
  std::atomic<uint64_t> words_[kWords] = {};
};

}  // namespace shardpipe::comm
