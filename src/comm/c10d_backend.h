#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "comm/group.h"
#include "comm/transport.h"

namespace shardpipe::comm {

/// A group as c10d knows them, for code that speaks c10d: over shared memory or Gloo, as the group is. CPU tensors;
/// sums, products, minima, maxima and averages (of floating types), in the order of the ranks. Collectives are done
/// when the call returns; send and recv, with tags of their own, when their Work is waited for. Not there: bitwise
/// operations, sparse tensors, recv from any rank.
c10::intrusive_ptr<c10d::Backend> make_c10d_backend(const Transport& transport, const Group& group);

/// A process group with that backend for the CPU, registered under `name` for the operators of _c10d_functional, which
/// find groups by name.
c10::intrusive_ptr<c10d::ProcessGroup> make_process_group(
    const Transport& transport, const Group& group, const std::string& name);

}  // namespace shardpipe::comm
