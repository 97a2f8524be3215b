#include "comm/nccl_api.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <optional>

#include "base/log.h"

namespace shardpipe::comm {
namespace {

template <typename Function>
bool look_up(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

std::optional<NcclApi> load() {
  if (!c10::impl::hasDeviceGuardImpl(c10::DeviceType::CUDA)) {
    return std::nullopt;
  }
  // Never unloaded. A LibTorch with CUDA has it loaded already.
  void* library = ::dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = ::dlerror();
    log_info("no NCCL: {}", why != nullptr ? why : "libnccl.so.2 cannot be loaded");
    return std::nullopt;
  }
  NcclApi api;
  int version = 0;
  const bool complete =
      look_up(library, "ncclGetVersion", api.get_version) && look_up(library, "ncclGetUniqueId", api.get_unique_id) &&
      look_up(library, "ncclCommInitRankConfig", api.comm_init_rank_config) &&
      look_up(library, "ncclCommAbort", api.comm_abort) &&
      look_up(library, "ncclCommGetAsyncError", api.comm_get_async_error) &&
      look_up(library, "ncclGetErrorString", api.get_error_string) &&
      look_up(library, "ncclGetLastError", api.get_last_error) && look_up(library, "ncclGroupStart", api.group_start) &&
      look_up(library, "ncclGroupEnd", api.group_end) && look_up(library, "ncclSend", api.send) &&
      look_up(library, "ncclRecv", api.recv) && api.get_version(&version) == kNcclSuccess;
  if (!complete || version < static_cast<int>(NcclConfig().version)) {
    log_info("no NCCL: version {} is too old", version);
    return std::nullopt;
  }
  return api;
}

}  // namespace

const NcclApi* NcclApi::find() {
  static const std::optional<NcclApi> api = load();
  return api ? &*api : nullptr;
}

}  // namespace shardpipe::comm
