#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "frontend/pt2/document.h"
#include "graph/graph.h"

namespace shardpipe::pt2 {

/// What the names of one graph (or sub-graph) stand for: values, or constants that were passed in.
using Scope = std::unordered_map<std::string, graph::Argument>;

/// What a name stands for. Throws Error(input) for one that is not defined.
const graph::Argument& lookup(const Scope& scope, const std::string& name);

/// An argument as it is written, without regard to a schema. Devices become the CPU. Throws Error(input) for kinds that
/// Shardpipe does not run (custom objects, tokens).
graph::Argument plain_argument(const Document& json, const Scope& scope);

/// The same as an argument of `type`, what a schema asks for: ints become floats, single numbers lists, empty lists get
/// their element type.
graph::Argument typed_argument(const Document& json, const Scope& scope, const c10::Type& type);

/// The constant as a value of `type`, with the same rules.
c10::IValue fit(const c10::IValue& constant, const c10::Type& type);

}  // namespace shardpipe::pt2
