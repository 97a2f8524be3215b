#include "checkpoint/pickle_globals.h"

#include <array>

namespace shardpipe::checkpoint {
namespace {

struct Row {
  std::string_view module;
  std::string_view name;
  PickleGlobal meaning;
};

constexpr std::array kFunctions = {
    Row{"torch._utils", "_rebuild_tensor", PickleGlobal::rebuild_tensor},
    Row{"torch._utils", "_rebuild_tensor_v2", PickleGlobal::rebuild_tensor_v2},
    Row{"torch._utils", "_rebuild_tensor_v3", PickleGlobal::rebuild_tensor_v3},
    Row{"torch._utils", "_rebuild_parameter", PickleGlobal::rebuild_parameter},
    Row{"torch._utils", "_rebuild_parameter_with_state", PickleGlobal::rebuild_parameter_with_state},
    Row{"torch._tensor", "_rebuild_from_type_v2", PickleGlobal::rebuild_from_type},
    Row{"torch", "Tensor", PickleGlobal::tensor_class},
    Row{"torch._tensor", "Tensor", PickleGlobal::tensor_class},
    Row{"torch.nn.parameter", "Parameter", PickleGlobal::tensor_class},
    Row{"torch.nn.parameter", "Buffer", PickleGlobal::tensor_class},
    Row{"collections", "OrderedDict", PickleGlobal::ordered_dict},
    Row{"torch", "Size", PickleGlobal::container},
    Row{"builtins", "set", PickleGlobal::container},
    Row{"builtins", "frozenset", PickleGlobal::container},
    Row{"builtins", "list", PickleGlobal::container},
    Row{"builtins", "tuple", PickleGlobal::container},
    Row{"__builtin__", "set", PickleGlobal::container},  // protocol 2 writes Python 2's names
    Row{"__builtin__", "frozenset", PickleGlobal::container},
    Row{"torch", "device", PickleGlobal::opaque},
    Row{"builtins", "complex", PickleGlobal::opaque},
    Row{"__builtin__", "complex", PickleGlobal::opaque},
    Row{"builtins", "bytearray", PickleGlobal::opaque},
    Row{"__builtin__", "bytearray", PickleGlobal::opaque},
    Row{"__builtin__", "bytes", PickleGlobal::opaque},
    Row{"_codecs", "encode", PickleGlobal::opaque},
};

}  // namespace

std::optional<KnownGlobal> find_global(std::string_view module, std::string_view name) {
  for (const Row& row : kFunctions) {
    if (row.module == module && row.name == name) {
      return KnownGlobal{row.meaning};
    }
  }
  if (module == "torch") {
    if (const ElementFormat* format = find_storage_type(name)) {
      return KnownGlobal{PickleGlobal::storage, format->type};
    }
    if (const ElementFormat* format = find_torch_type(name)) {
      return KnownGlobal{PickleGlobal::dtype, format->type};
    }
  }
  if (module == "torch.storage" && name == "UntypedStorage") {
    return KnownGlobal{PickleGlobal::storage, ElementType::uint8};
  }
  return std::nullopt;
}

}  // namespace shardpipe::checkpoint
