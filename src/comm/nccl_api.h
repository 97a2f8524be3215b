#pragma once

#include <cstddef>
#include <limits>

namespace shardpipe::comm {

// NCCL's C interface, as far as it is used: declared as in its header nccl.h, whose first layers every version since
// 2.18 has. The header itself needs those of CUDA, which packages of LibTorch bring in part only; and a library that is
// looked up when ranks connect need not be there where nobody has a GPU.

struct NcclComm;  ///< ncclComm_t points to one

/// ncclResult_t
enum NcclResult : int {
  kNcclSuccess = 0,
  kNcclSystemError = 2,
  kNcclRemoteError = 6,
  kNcclInProgress = 7,
};

/// ncclUniqueId
struct NcclId {
  char internal[128];
};

/// ncclConfig_t as of 2.18; NCCL goes by `size` and `version`.
struct NcclConfig {
  static constexpr int kUndefined = std::numeric_limits<int>::min();
  size_t size = sizeof(NcclConfig);
  unsigned int magic = 0xcafebeef;
  unsigned int version = 21800;
  int blocking = 1;
  int cga_cluster_size = kUndefined;
  int min_ctas = kUndefined;
  int max_ctas = kUndefined;
  const char* net_name = nullptr;
  int split_share = kUndefined;
  int later = kUndefined;  ///< room at the end, which later versions use
};

constexpr int kNcclUint8 = 1;  ///< ncclDataType_t

struct NcclApi {
  NcclResult (*get_version)(int* version) = nullptr;
  NcclResult (*get_unique_id)(NcclId* id) = nullptr;
  NcclResult (*comm_init_rank_config)(NcclComm** comm, int num_ranks, NcclId id, int rank, NcclConfig* config) =
      nullptr;
  NcclResult (*comm_abort)(NcclComm* comm) = nullptr;
  NcclResult (*comm_get_async_error)(NcclComm* comm, NcclResult* error) = nullptr;
  const char* (*get_error_string)(NcclResult result) = nullptr;
  const char* (*get_last_error)(NcclComm* comm) = nullptr;
  NcclResult (*group_start)() = nullptr;
  NcclResult (*group_end)() = nullptr;
  NcclResult (*send)(const void* data, size_t count, int type, int peer, NcclComm* comm, void* stream) = nullptr;
  NcclResult (*recv)(void* data, size_t count, int type, int peer, NcclComm* comm, void* stream) = nullptr;

  /// The library that this program's LibTorch uses; nullptr where it has none or one older than 2.18.
  static const NcclApi* find();
};

}  // namespace shardpipe::comm
