#include "comm/nccl_communicator.h"

#include <fmt/format.h>

#include "base/error.h"
#include "comm/device_stream.h"

namespace shardpipe::comm {
namespace {

[[noreturn]] void throw_failure(const NcclApi& api, NcclComm* comm, NcclResult result) {
  // The last error may be one that was dealt with long ago; an empty text is common.
  const char* detail = api.get_last_error(comm);
  const bool has_detail = detail != nullptr && *detail != '\0';
  throw NcclFailure(
      one_line(fmt::format("{}{}{}", api.get_error_string(result), has_detail ? ": " : "", has_detail ? detail : "")),
      result == kNcclRemoteError || result == kNcclSystemError);
}

}  // namespace

NcclId NcclCommunicator::make_id(const NcclApi& api) {
  NcclId id{};
  const NcclResult result = api.get_unique_id(&id);
  if (result != kNcclSuccess) {
    throw_failure(api, nullptr, result);
  }
  return id;
}

NcclCommunicator::NcclCommunicator(const NcclApi& api, const NcclId& id, int size, int rank, int max_blocks)
    : api_(api) {
  NcclConfig config;
  if (max_blocks > 0) {
    config.max_ctas = max_blocks;
  }
  check(api_.comm_init_rank_config(&comm_, size, id, rank, &config));
}

NcclCommunicator::~NcclCommunicator() {
  api_.comm_abort(comm_);
}

void NcclCommunicator::check(NcclResult result) const {
  if (result != kNcclSuccess) {
    throw_failure(api_, comm_, result);
  }
}

void NcclCommunicator::exchange(
    std::span<const Piece> sends, std::span<const Piece> receives, const c10::Stream& stream) {
  NcclResult earlier = kNcclSuccess;
  check(api_.comm_get_async_error(comm_, &earlier));
  check(earlier);
  void* const handle = native_handle(stream);
  NcclResult first = kNcclSuccess;
  const auto note = [&](NcclResult result) {
    if (first == kNcclSuccess) {
      first = result;
    }
  };
  check(api_.group_start());
  for (const Piece& piece : sends) {
    note(api_.send(piece.tensor.const_data_ptr(), piece.tensor.nbytes(), kNcclUint8, piece.peer, comm_, handle));
  }
  for (const Piece& piece : receives) {
    note(api_.recv(piece.tensor.mutable_data_ptr(), piece.tensor.nbytes(), kNcclUint8, piece.peer, comm_, handle));
  }
  note(api_.group_end());
  check(first);
}

}  // namespace shardpipe::comm
