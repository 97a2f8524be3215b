#pragma once

#include <string>

#include "plan/explain.h"

namespace shardpipe::plan {

/// Stages as boxes from top to bottom, as wide as the time that they take; what goes to the next one between them, what
/// goes further as lines beside them. Inline SVG; colours are the classes s0 to s7 of the page.
std::string stage_diagram(const Explanation& explanation);

/// A stage's class.
std::string stage_class(int stage);

}  // namespace shardpipe::plan
