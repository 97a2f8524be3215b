#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "schedule/action.h"
#include "schedule/lower.h"

namespace shardpipe::schedule {

/// What a schedule is called on the command line: fill-drain, 1f1b, interleaved, looped-bfs, zb-h1, zb-v.
const std::vector<std::string>& schedule_names();

/// Stages a rank that a schedule has where nobody says how many: 2 of interleaved, looped-bfs and zb-v, else 1.
int default_virtual_stages(std::string_view name);

/// The rank of a stage: stage mod num_ranks; of zb-v, which has two stages a rank, stage or 2 num_ranks - 1 - stage.
int rank_of_stage(std::string_view name, int stage, int num_ranks);

/// The compute lists of a schedule, `virtual_stages` a rank. With `backward` false the forwards only, in the schedule's
/// order, for any number of microbatches. Throws Error(usage) for an unknown name, numbers below 1 or too large, and
/// numbers that the schedule does not have: stages a rank other than 1 of 1f1b and zb-h1 and other than 2 of zb-v, and,
/// with backwards, interleaved with one stage a rank or with microbatches that are no multiple of the ranks.
Schedule make_schedule(std::string_view name, int num_ranks, int virtual_stages, int num_microbatches, bool backward);

/// make_schedule("fill-drain") for any number of stages, stage s on rank s mod num_ranks (0 = as many as stages).
/// Throws Error(usage) when a number is below 1.
Schedule fill_drain(int num_stages, int num_microbatches, bool backward = false, int num_ranks = 0);

/// Time that every rank idles in one step, where all stages cost the same, F of the forward, I and W of the backward,
/// and messages nothing; the makespan is v m (F + I + W) and this. NaN where the schedule has no closed form: zb-h1 and
/// zb-v have one for F = I = W and enough microbatches. From: docs/guide/schedules.md.
double closed_form_bubble(
    std::string_view name,
    int num_ranks,
    int virtual_stages,
    int num_microbatches,
    double forward,
    double input_gradient,
    double weight_gradient);

}  // namespace shardpipe::schedule
