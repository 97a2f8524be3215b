#pragma once

// What make_plan() and explain() share.
#include "api/impl.h"
#include "plan/plan.h"
#include "runtime/weights.h"
#include "shardpipe/options.h"
#include "shardpipe/tensors.h"

namespace shardpipe {

/// Cores of this host, at least 1.
int num_cores();
/// Threads of each of so many ranks of a host: those given, or for 0 an equal part of the cores, at least 1. Throws
/// Error(usage) for negative numbers.
int threads_of_rank(int given, int local_ranks);

/// Gives this rank the device that the plan is for, and connects its groups. Collective. Throws Error(usage) where this
/// host has no such device.
void connect(comm::World& world, const plan::Plan& plan);

/// Whether the plan's program generates.
bool has_caches(const plan::Plan& plan);

/// What the nodes cost where that decides the cuts: measured, or by the model, for the sizes of the example; for
/// generation for those of a step. Refers to its arguments.
plan::CostFunction cost_function(
    const runtime::TensorSource& tensors, const PlanOptions& options, const NamedTensors& example);

/// Plans in this process, for as many ranks as the layout has: no world is needed. `options.threads` is what each rank
/// will have, not 0. Throws as make_plan().
plan::Plan plan_for(const Model& model, const PlanOptions& options, const NamedTensors& example = {});

}  // namespace shardpipe
