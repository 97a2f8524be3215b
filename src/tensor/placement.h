#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace shardpipe::tensor {

/// One dimension of a tensor divided among the parts of an axis. The dimension is one or more periods of `blocks`, and
/// each block is cut in the proportion of `units`, so that a part holds its piece of every block, one after the other:
///   9 heads of 64 as 6 + 3                       blocks {576}, units {2, 1}
///   a fused [q | k | v] of 9, 3 and 3 heads      blocks {576, 192, 192}, units {2, 1}
///   batch * heads, of any batch                  blocks {heads}
/// The sum of the units divides each block.
struct Shard {
  int dim = 0;
  std::vector<int64_t> blocks;
  std::vector<int64_t> units;  ///< by part

  bool operator==(const Shard&) const = default;

  int parts() const { return static_cast<int>(units.size()); }
  int64_t all_units() const;
  /// Elements of one period.
  int64_t period() const;
  /// Of `extent` (a multiple of the period, or of its local form) elements of the whole dimension those of a part.
  int64_t local(int64_t extent, int part) const;
  int64_t whole(int64_t local_extent, int part) const;
  /// Where the part's piece of a block begins, and how long it is.
  int64_t begin(int64_t block, int part) const;
  int64_t length(int64_t block, int part) const;
};

/// A part's piece: a view where it is one block, else a copy. Throws Error(internal) when the dimension's extent is no
/// multiple of the period.
at::Tensor take(const at::Tensor& whole, const Shard& shard, int part);

/// The whole from the pieces of all parts, in their order; a copy.
at::Tensor join(const std::vector<at::Tensor>& pieces, const Shard& shard);

/// `units` units over `parts` parts, as even as can be, larger parts first.
std::vector<int64_t> spread(int64_t units, int parts);

/// `heads` query heads over more parts than the `groups` key heads that they share, so that each part's heads are all
/// of one group; empty where that cannot be. group_of_part: which one.
std::vector<int64_t> spread_groups(int64_t heads, int64_t groups, int parts);
int64_t group_of_part(const std::vector<int64_t>& heads, int64_t groups, int part);

}  // namespace shardpipe::tensor
