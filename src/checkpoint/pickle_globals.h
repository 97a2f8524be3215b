#pragma once

#include <optional>
#include <string_view>

#include "checkpoint/element_type.h"

namespace shardpipe::checkpoint {

/// What a name that a pickle imports stands for.
enum class PickleGlobal : uint8_t {
  rebuild_tensor,                ///< (storage, offset, shape, strides)
  rebuild_tensor_v2,             ///< (…, requires_grad, hooks[, metadata])
  rebuild_tensor_v3,             ///< (…, requires_grad, hooks, dtype[, metadata]): types without a storage class
  rebuild_parameter,             ///< (tensor, requires_grad, hooks)
  rebuild_parameter_with_state,  ///< (tensor, requires_grad, hooks, state)
  rebuild_from_type,             ///< (callable, class, its arguments, state): a tensor with attributes
  tensor_class,                  ///< what rebuild_from_type may name
  ordered_dict,
  container,  ///< of one argument, which it equals to us: torch.Size, set, list, tuple, frozenset
  opaque,     ///< plain data of no interest: torch.device, complex, bytes
  storage,    ///< a storage class, of `dtype`
  dtype,      ///< torch.float32
};

struct KnownGlobal {
  PickleGlobal meaning;
  ElementType dtype = ElementType::undefined;
};

/// nullopt: refuse it.
std::optional<KnownGlobal> find_global(std::string_view module, std::string_view name);

}  // namespace shardpipe::checkpoint
