#include "mesh/mesh.h"

#include <cstdint>

#include "base/error.h"

namespace shardpipe::mesh {

const char* to_string(Axis axis) {
  switch (axis) {
    case Axis::pp:
      return "pp";
    case Axis::dp:
      return "dp";
    case Axis::tp:
      return "tp";
  }
  return "?";
}

Mesh::Mesh(int pp, int dp, int tp) : pp_(pp), dp_(dp), tp_(tp) {
  constexpr int64_t kMaxRanks = 65536;
  for (const Axis axis : kAxes) {
    if (size(axis) < 1 || size(axis) > kMaxRanks) {
      throw_usage("--{} is {}, must be 1 to {}", to_string(axis), size(axis), kMaxRanks);
    }
  }
  const int64_t world = int64_t{pp} * dp * tp;
  if (world > kMaxRanks) {
    throw_usage("--pp {} x --dp {} x --tp {} is {} ranks, at most {} are possible", pp, dp, tp, world, kMaxRanks);
  }
}

int Mesh::size(Axis axis) const {
  return axis == Axis::pp ? pp_ : axis == Axis::dp ? dp_ : tp_;
}

Coordinates Mesh::coordinates(int rank) const {
  return {rank / (dp_ * tp_), rank / tp_ % dp_, rank % tp_};
}

int Mesh::rank(const Coordinates& at) const {
  return (at.pp * dp_ + at.dp) * tp_ + at.tp;
}

std::vector<int> Mesh::group(int rank, Axis axis) const {
  std::vector<int> ranks;
  Coordinates at = coordinates(rank);
  int& moving = axis == Axis::pp ? at.pp : axis == Axis::dp ? at.dp : at.tp;
  for (moving = 0; moving < size(axis); ++moving) {
    ranks.push_back(this->rank(at));
  }
  return ranks;
}

}  // namespace shardpipe::mesh
