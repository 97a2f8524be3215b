#include "shardpipe/build_info.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/headeronly/version.h>

#include "comm/connections.h"
#include "comm/nccl.h"
#include "frontend/hf/registry.h"
#include "graph/device.h"
#include "kernels/simd_level.h"
#include "shardpipe/version.h"

namespace shardpipe {

BuildInfo build_info() {
  BuildInfo info;
  info.version = SHARDPIPE_VERSION;
  info.torch = TORCH_VERSION;
  info.simd = kernels::to_string(kernels::simd_level());
  info.transports = comm::available_transports();
  info.cuda = c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA);
  info.gpus = graph::device_count(c10::DeviceType::CUDA);
  info.nccl = comm::has_nccl();
  if (info.nccl && info.gpus > 0) {
    info.transports.emplace_back("nccl");
  }
  for (const hf::Family& family : hf::families()) {
    info.families.emplace_back(family.model_type);
  }
  return info;
}

}  // namespace shardpipe
