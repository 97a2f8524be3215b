#pragma once

#include <cstdint>

namespace shardpipe::text::jinja {

/// What one rendering may cost. A template comes with a downloaded checkpoint, so nothing it can ask for may be without
/// bound: every evaluated node, produced list element and 16 bytes of text count one step.
inline constexpr uint64_t kMaxSteps = 20'000'000;
/// Deepest nesting of a value, of the source, and of calls while rendering.
inline constexpr int kMaxValueDepth = 500;
inline constexpr int kMaxSyntaxDepth = 150;
inline constexpr int kMaxChain = 500;  ///< operators, filters and subscripts applied one after another
inline constexpr int kMaxEvaluationDepth = 1500;

/// The steps of the rendering that runs on this thread, from construction to destruction.
class Budget {
 public:
  explicit Budget(uint64_t steps = kMaxSteps);
  ~Budget();
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

 private:
  friend void charge(uint64_t steps);
  uint64_t left_;
  Budget* outer_;
};

/// Takes steps from this thread's budget (none: free). Throws Error(input) when it is spent.
void charge(uint64_t steps);

/// charge() for text of this many bytes that is about to be made or read.
void charge_bytes(uint64_t bytes);

}  // namespace shardpipe::text::jinja
