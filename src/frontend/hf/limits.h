#pragma once

#include <cstdint>

namespace shardpipe::hf {

// Largest sizes a config.json may ask for: far above any model, and small enough that no tensor's bytes overflow int64
// and that a wrong file cannot exhaust memory while the model is traced (about 1 MB a layer).
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxHeads = 1 << 16;
inline constexpr int64_t kMaxHeadDim = 1 << 16;
inline constexpr int64_t kMaxFeatures = 1 << 24;
inline constexpr int64_t kMaxVocabulary = 1 << 28;
inline constexpr int64_t kMaxPositionCount = int64_t{1} << 40;
inline constexpr int64_t kMaxDistance = 1 << 16;  // of relative positions: plans list them

}  // namespace shardpipe::hf
