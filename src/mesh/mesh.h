#pragma once

#include <array>
#include <string>
#include <vector>

namespace shardpipe::mesh {

/// The axes of a mesh in the order of rank numbers: pp slowest, tp fastest.
enum class Axis { pp, dp, tp };
inline constexpr std::array<Axis, 3> kAxes = {Axis::pp, Axis::dp, Axis::tp};
const char* to_string(Axis axis);

/// Where a rank sits.
struct Coordinates {
  int pp = 0;
  int dp = 0;
  int tp = 0;
  bool operator==(const Coordinates&) const = default;
};

/// pp x dp x tp ranks; rank = (pp_index * dp + dp_index) * tp + tp_index.
class Mesh {
 public:
  /// Throws Error(usage) when a size is below 1 or the product is above 65,536.
  Mesh(int pp, int dp, int tp);

  int size(Axis axis) const;
  int world_size() const { return pp_ * dp_ * tp_; }
  Coordinates coordinates(int rank) const;
  int rank(const Coordinates& at) const;

  /// The ranks that differ from `rank` only along `axis`, itself included, in the order of that axis.
  std::vector<int> group(int rank, Axis axis) const;

 private:
  int pp_;
  int dp_;
  int tp_;
};

}  // namespace shardpipe::mesh
