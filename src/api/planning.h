#pragma once

// What make_plan() and explain() share.
#include "plan/plan.h"
#include "runtime/weights.h"
#include "shardpipe/options.h"
#include "shardpipe/tensors.h"

namespace shardpipe {

/// Cores of this host, at least 1.
int num_cores();
/// Threads of each of so many ranks of a host: those asked for, or else an equal part of the cores, at least 1. Throws
/// Error(usage) when a negative number is asked for.
int threads_of_rank(const PlanOptions& options, int local_ranks);

/// Whether the plan's program generates.
bool has_caches(const plan::Plan& plan);

/// What the nodes cost where that decides the cuts: measured, or by the model, for the sizes of the example; for
/// generation for those of a step. Refers to its arguments.
plan::CostFunction cost_function(
    const runtime::TensorSource& tensors, const PlanOptions& options, const NamedTensors& example);

}  // namespace shardpipe
