#pragma once

#include <string>

#include "schedule/simulate.h"

namespace shardpipe::schedule {

struct GridOptions {
  size_t max_columns = 200;  ///< of a longer schedule the beginning is shown, and a line says so
  size_t max_ranks = 64;     ///< likewise
};

/// The schedule as text: a row a rank, a column a unit of time: the longest that divides all times, where they are
/// whole numbers, else the shortest action's. An action stands where it starts, "--" where it goes on, "." where the
/// rank idles.
std::string grid(const Simulation& simulation, const GridOptions& options = {});

}  // namespace shardpipe::schedule
