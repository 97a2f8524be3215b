#pragma once

#include "checkpoint/pickle.h"
#include "fuzz/fuzz.h"

namespace shardpipe::fuzz {

/// Reads every value that is reachable from the root over dictionaries, as a reader of state dictionaries does, but to
/// any depth.
inline void walk(const checkpoint::Pickle& pickle, checkpoint::Pickle::Id id, int depth = 0) {
  using Kind = checkpoint::Pickle::Kind;
  const Kind kind = pickle.kind(id);
  if (kind == Kind::text) {
    require(pickle.text(id).size() <= SIZE_MAX / 2, "an impossible text");
  } else if (kind == Kind::tensor) {
    reads([&] {
      const checkpoint::PickledTensor tensor = pickle.tensor(id, "w");
      require(tensor.shape.size() == tensor.strides.size(), "a tensor with other counts of extents and strides");
      require(checkpoint::find_format(tensor.dtype) != nullptr, "a tensor without a type");
    });
  } else if (kind == Kind::dict && depth < 3) {
    const auto items = pickle.items(id);
    require(items.size() % 2 == 0, "a key without a value");
    for (const checkpoint::Pickle::Id item : items.first(std::min<size_t>(items.size(), 64))) {
      walk(pickle, item, depth + 1);
    }
  }
}

}  // namespace shardpipe::fuzz
