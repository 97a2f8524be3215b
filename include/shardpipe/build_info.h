#pragma once

#include <string>
#include <vector>

#include "shardpipe/export.h"

namespace shardpipe {

/// What this build can do on this machine.
struct BuildInfo {
  std::string version;                  ///< Shardpipe's
  std::string torch;                    ///< LibTorch's
  std::string simd;                     ///< instruction sets that the kernels use here
  std::vector<std::string> transports;  ///< values of --transport that work
  std::vector<std::string> families;    ///< model_type of config.json
  bool cuda = false;                    ///< compiled with CUDA, whether this machine has a GPU or not
  int gpus = 0;                         ///< that --device cuda finds on this machine
  bool nccl = false;                    ///< NCCL is there too
};
SHARDPIPE_API BuildInfo build_info();

}  // namespace shardpipe
