#include "checkpoint/pickle.h"

#include <bit>
#include <cstring>

#include "base/error.h"
#include "checkpoint/pickle_machine.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {

Pickle parse_pickle(std::span<const std::byte> bytes, const std::string& where) {
  return PickleMachine(bytes, where).run();
}

std::string_view Pickle::text(Id id) const {
  const Value& value = values_[id];
  return {reinterpret_cast<const char*>(bytes_.data()) + value.number, value.extra};
}

std::span<const Pickle::Id> Pickle::items(Id id) const {
  const uint32_t index = values_[id].extra;
  return index == 0 ? std::span<const Id>() : std::span<const Id>(containers_[index - 1]);
}

PickledTensor Pickle::tensor(Id id, std::string_view name) const {
  const Tensor& described = tensors_[static_cast<size_t>(values_[id].number)];
  const Storage& storage = storages_[static_cast<size_t>(values_[described.storage].number)];
  // Before anything is copied: a pickle may name one long list or text in each of many tensors.
  const std::pair<size_t, size_t> dims = {items(described.shape).size(), items(described.strides).size()};
  const int64_t offset = values_[described.offset].number;
  if (offset < 0 || dims.first != dims.second || dims.first > kMaxPickledDims) {
    throw_input(
        "tensor {} in {} has offset {}, {} extents and {} strides; as many of these as of those, at most {}, and an "
        "offset from 0 on are expected",
        in_quotes(name), where_, offset, dims.first, dims.second, kMaxPickledDims);
  }
  if (text(storage.key).size() > kMaxPickledNameBytes) {
    throw_input(
        "tensor {} in {} lies in a storage whose name has {} bytes; at most {} are read", in_quotes(name), where_,
        text(storage.key).size(), kMaxPickledNameBytes);
  }
  PickledTensor result;
  result.storage = text(storage.key);
  result.dtype = described.dtype;
  result.offset = offset;
  result.conjugate = described.conjugate;
  result.negative = described.negative;
  const auto numbers = [&](Id list, const char* what) {
    std::vector<int64_t> list_numbers;
    for (const Id item : items(list)) {
      if (values_[item].kind != Kind::integer || values_[item].number < 0) {
        throw_input("tensor {} in {} has {} that is no number from 0 on", in_quotes(name), where_, what);
      }
      list_numbers.push_back(values_[item].number);
    }
    return list_numbers;
  };
  result.shape = numbers(described.shape, "an extent");
  result.strides = numbers(described.strides, "a stride");
  return result;
}

}  // namespace shardpipe::checkpoint
