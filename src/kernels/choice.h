#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/json.h"

namespace shardpipe::kernels {

/// Which kernels the products of a model use: the arguments of shardpipe::linear by dtype. Rank 0 makes the choice, the
/// Plan records it, so that runs, ranks and resumed runs agree.
struct KernelChoice {
  int64_t few_rows_f32 = 16;  ///< products of up to this many rows run our own kernel; 0 = none
  int64_t few_rows_bf16 = 16;
  std::string many_f32 = "onednn";  ///< the others: "onednn" or "aten"
  std::string many_bf16 = "onednn";

  bool operator==(const KernelChoice&) const = default;

  Json to_json() const;
  /// Throws Error(input) naming `where` and the key when a key is missing or holds something else.
  static KernelChoice from_json(const Json& json, const std::string& where);
};

/// What holds without measuring; depends on nothing but the processor's instruction sets.
KernelChoice default_choice();

/// Times the candidates with `threads` threads (0 = as many as LibTorch uses now), about 100 ms.
KernelChoice measure(int64_t threads = 0);

/// $SHARDPIPE_CACHE_DIR, else $XDG_CACHE_HOME/shardpipe, else ~/.cache/shardpipe; empty when none of the three is set.
std::filesystem::path default_cache_dir();

/// The choice measured before for this processor, number of threads, LibTorch and set of kernels, else measures and
/// keeps the result in `cache_dir`. A folder that cannot be written and a damaged file cost a new measurement, no
/// error. $SHARDPIPE_MEASURE=0 gives default_choice().
KernelChoice load_or_measure(int64_t threads = 0, const std::filesystem::path& cache_dir = default_cache_dir());

}  // namespace shardpipe::kernels
