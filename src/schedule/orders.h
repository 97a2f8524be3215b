#pragma once

#include <vector>

#include "schedule/action.h"

// The compute list of one rank for each schedule; builders.h checks the numbers. `p` ranks, `v` stages a rank, `m`
// microbatches.
namespace shardpipe::schedule {

struct Shape {
  int p = 1;
  int v = 1;
  int m = 1;
};

/// Every forward, stage after stage, then every backward: fill-drain (GPipe), and with several stages a rank
/// breadth-first (looped BFS, arXiv 2211.05953).
std::vector<Action> breadth_first_order(const Shape& shape, int rank);

/// 1F1B (PipeDream-Flush, arXiv 2006.09503): min(p - rank - 1, m) forwards, then a forward before a backward.
std::vector<Action> one_f_one_b_order(const Shape& shape, int rank);

/// Interleaved 1F1B (arXiv 2104.04473): rounds of p microbatches visit the rank's stages in turn; 2 (p - rank - 1) +
/// (v - 1) p forwards first, all of them when m = p. m is a multiple of p.
std::vector<Action> interleaved_order(const Shape& shape, int rank);

/// ZB-H1 (arXiv 2401.10241): 1F1B with backwards in two parts, where the W of a microbatch follows the I `rank`
/// microbatches later: as many microbatches in flight on every rank as 1F1B has on rank 0.
std::vector<Action> zb_h1_order(const Shape& shape, int rank);

/// ZB-V (arXiv 2401.10241, section 6): stages rank and 2 p - 1 - rank, so that the last stage is on rank 0.
std::vector<Action> zb_v_order(const Shape& shape, int rank);

/// Forwards only, as `interleaved` and `looped` have them: rounds of `round` microbatches visit the stages in turn.
std::vector<Action> forward_order(const std::vector<int>& stages, int m, int round);

}  // namespace shardpipe::schedule
