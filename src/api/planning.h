#pragma once

#include "api/impl.h"

namespace shardpipe {

/// Threads of each rank: those given, or for 0 the cores of this host divided among its ranks, at least 1. Throws
/// Error(usage) for negative numbers.
int threads_of_ranks(int given, int local_ranks);

/// Plans in this process, for as many ranks as the layout has: no world is needed. `options.threads` is what each rank
/// will have, not 0. Throws as make_plan().
plan::Plan plan_for(const Model& model, const PlanOptions& options, const NamedTensors& example = {});

/// Whether the program of a plan generates.
bool has_caches(const plan::Plan& plan);

}  // namespace shardpipe
