#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "frontend/trace/recorder.h"
#include "frontend/trace/trace.h"

namespace shardpipe::trace {

/// One run of a program: what it recorded and what it returned.
struct Run {
  Recorder recorder;
  std::vector<std::pair<std::string, graph::ValueId>> outputs;
};

/// One graph from runs that differ in the sizes of the named dimensions (fit.h) and must agree in all else. `wanted`
/// receives the runs that are needed besides; the graph is not to be used then. Throws Error(usage) as trace().
graph::Graph merge_runs(
    const Program& program,
    const std::vector<std::string>& dimensions,
    const std::vector<graph::Dimensions>& sizes,
    const std::vector<Run>& runs,
    std::set<graph::Dimensions>& wanted);

}  // namespace shardpipe::trace
