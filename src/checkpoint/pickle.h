#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/element_type.h"

namespace shardpipe::checkpoint {

/// A tensor as torch.save describes it: a view of a storage.
struct PickledTensor {
  std::string storage;  ///< its key: the archive's record "data/<key>"
  ElementType dtype = ElementType::undefined;
  int64_t offset = 0;  ///< in elements
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  bool conjugate = false;  ///< torch's lazy bits: the value is that of the view conjugated, negated
  bool negative = false;
};

/// What a pickle written by torch.save holds, as far as tensors and plain containers go. Values are numbered; the
/// arena's memory is proportional to the pickle's bytes. Strings are views of these.
class Pickle {
 public:
  using Id = uint32_t;
  enum class Kind : uint8_t {
    none,
    boolean,
    integer,
    real,
    text,
    list,
    tuple,
    set,
    dict,
    storage,
    tensor,
    opaque,    ///< plain data that no state dictionary needs: bytes, complex numbers, devices, integers above 64 bits
    dtype,     ///< torch.float32
    function,  ///< one of the callables that are known, called or not
  };

  Id root() const { return root_; }
  Kind kind(Id id) const { return values_[id].kind; }
  /// Of a text.
  std::string_view text(Id id) const;
  /// The members of a list, tuple or set; of a dict key, value, key, value …; a key may be there several times.
  std::span<const Id> items(Id id) const;
  /// Throws Error(input) naming `name` when the shape is impossible.
  PickledTensor tensor(Id id, std::string_view name) const;

 private:
  friend class PickleMachine;
  struct Value {
    Kind kind = Kind::none;
    uint16_t depth = 0;  // of containers, as far as known when something was put into them
    uint32_t extra = 0;  // length of a text; of a container the index in containers_, plus one: none without members
    int64_t number = 0;  // or where a text begins, the bits of a real, the index in tensors_ or storages_
  };
  struct Storage {
    Id key;
    ElementType dtype;  // uint8 for an untyped one
  };
  struct Tensor {
    Id storage;
    Id offset;
    Id shape;
    Id strides;
    ElementType dtype;
    bool conjugate;
    bool negative;
  };
  std::span<const std::byte> bytes_;
  std::string where_;
  std::vector<Value> values_;
  std::vector<std::vector<Id>> containers_;
  std::vector<Storage> storages_;
  std::vector<Tensor> tensors_;
  Id root_ = 0;
};

/// Limits: torch.save nests a few levels and takes some hundred bytes a tensor.
inline constexpr int kMaxPickleDepth = 256;
inline constexpr size_t kMaxPickleBytes = size_t{128} << 20;
/// Of a tensor and of its storage: a pickle may hold a long text once and name it often.
inline constexpr size_t kMaxPickledNameBytes = 4096;

/// Reads a pickle of protocol 2 to 5. Nothing is imported or executed: the callables that torch.save writes for tensors
/// and plain containers (pickle_globals.h) have a meaning here, any other is refused by name, called or not.
/// `bytes` must outlive the result. Throws Error(input) naming `where` for what is refused, damaged, nested deeper than
/// kMaxPickleDepth or larger than kMaxPickleBytes. Format: Python's pickletools; torch/_utils.py for the callables.
Pickle parse_pickle(std::span<const std::byte> bytes, const std::string& where);

}  // namespace shardpipe::checkpoint
