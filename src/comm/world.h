#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/connections.h"
#include "comm/environment.h"
#include "comm/group.h"
#include "comm/monitor.h"
#include "comm/transport.h"
#include "mesh/mesh.h"

namespace shardpipe::comm {

/// timeout: of each action, and of the ranks' meeting.
struct WorldOptions : MonitorOptions {
  TransportChoice transport = TransportChoice::automatic;
};

/// The ranks of a job, seen from one of them. A world of one rank has no store, sockets or threads. Calls that involve
/// other ranks are made by all ranks in the same order, from one thread.
class World {
 public:
  /// Meets the other ranks. Throws Error(rank) naming host:port when the port is busy or the ranks do not meet within
  /// the timeout; which ranks are missing, or come twice, is said.
  static World connect(const Environment& environment, const WorldOptions& options = {});
  World(World&&) noexcept;
  /// finish(), where nothing has failed. Otherwise leaves everything as it is, so that fail() can still report.
  ~World();

  int rank() const;
  int size() const;
  /// Among the ranks of this host.
  int local_rank() const;
  int local_world_size() const;

  /// This rank's tensors are on `device` from now on, the CPU's by default. Groups that are made after it talk from
  /// device to device where they can: where no two of their ranks have the same one. Collective.
  void set_device(at::Device device);
  at::Device device() const;

  /// Connects this rank's groups: one for each axis along which the mesh has more than one rank. Throws Error(usage)
  /// when the mesh does not have size() ranks. `pairs`: ranks along pp that send each other what is on devices.
  void create_groups(const mesh::Mesh& mesh, const RankPairs& pairs = {});
  /// This rank's group along an axis; a group of one before create_groups or where the axis has one rank.
  const Transport& transport(mesh::Axis axis) const;
  /// All ranks, in order.
  const Transport& transport() const;

  /// Collectives along an axis; a group of one before create_groups or where the axis has one rank.
  const Group& group(mesh::Axis axis) const;
  /// Collectives of all ranks.
  const Group& group() const;
  /// Collectives of any ranks of the world in this order, this one among them; the same group when asked again. All of
  /// them call it, in the same order where they share several groups. Throws Error(internal) for lists that are no
  /// group of this rank, Error(rank) when they cannot connect within the timeout.
  Group group(const std::vector<int>& ranks);

  /// Replaces `bytes` on every rank by those of `root`. Any size; sent in pieces along a binomial tree.
  void broadcast(std::string& bytes, int root);
  /// Rank 0 gets everyone's bytes in order of rank, the others an empty list.
  std::vector<std::string> gather(const std::string& bytes);
  /// Returns when all ranks have called it.
  void barrier();

  Monitor& monitor();
  /// Monitor::report_failure: true when the caller prints the line and exits with its status, else it exits with 4.
  bool report_failure(const Error& error) noexcept;

  /// Returns when everything sent has left, and on the rank that serves the store when all ranks got here; the world is
  /// of no use then. Throws Error(rank) when some rank fails before.
  void finish();

  /// For the end of main(): reports the failure, prints the line if no other rank's came first, and returns the status
  /// to exit with. Works with and without a world, also after its destructor ran on the way here; without one,
  /// `environment` is used to agree with the other ranks on who prints. Leave the process without much ado after it
  /// (std::_Exit).
  static int fail(const Error& error, const std::optional<Environment>& environment = {});

 private:
  struct Impl;
  explicit World(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace shardpipe::comm
