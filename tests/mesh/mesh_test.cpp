#include "mesh/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace shardpipe::mesh {
namespace {

TEST(Mesh, TpIsFastest) {
  const Mesh mesh(2, 3, 4);
  EXPECT_EQ(mesh.world_size(), 24);
  EXPECT_EQ(mesh.coordinates(17), (Coordinates{1, 1, 1}));
  for (int rank = 0; rank < mesh.world_size(); ++rank) {
    EXPECT_EQ(mesh.rank(mesh.coordinates(rank)), rank);
  }
}

TEST(Mesh, GroupsAlongAnAxis) {
  const Mesh mesh(2, 2, 2);
  EXPECT_EQ(mesh.group(3, Axis::tp), (std::vector<int>{2, 3}));
  EXPECT_EQ(mesh.group(3, Axis::dp), (std::vector<int>{1, 3}));
  EXPECT_EQ(mesh.group(3, Axis::pp), (std::vector<int>{3, 7}));
}

TEST(Mesh, RefusesImpossibleSizes) {
  for (const auto& [pp, dp, tp] : {std::tuple(0, 1, 1), {1, -1, 1}, {1, 1, 65537}, {256, 256, 2}}) {
    try {
      const Mesh mesh(pp, dp, tp);
      ADD_FAILURE() << pp << dp << tp;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage);
      EXPECT_THAT(
          error.message(),
          ::testing::AnyOf(::testing::HasSubstr("must be 1 to 65536"), ::testing::HasSubstr("131072 ranks")));
    }
  }
}

}  // namespace
}  // namespace shardpipe::mesh
