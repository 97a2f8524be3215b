#include "shardpipe/build_info.h"

#include <torch/headeronly/version.h>

#include "comm/connections.h"
#include "frontend/hf/registry.h"
#include "kernels/simd_level.h"
#include "shardpipe/version.h"

namespace shardpipe {

BuildInfo build_info() {
  BuildInfo info;
  info.version = SHARDPIPE_VERSION;
  info.torch = TORCH_VERSION;
  info.simd = kernels::to_string(kernels::simd_level());
  info.transports = comm::available_transports();
  for (const hf::Family& family : hf::families()) {
    info.families.emplace_back(family.model_type);
  }
  return info;
}

}  // namespace shardpipe
