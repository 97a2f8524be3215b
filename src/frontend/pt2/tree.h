#pragma once

#include <string>
#include <vector>

#include "frontend/pt2/document.h"

namespace shardpipe::pt2 {

/// Names of the leaves of a call's inputs, in flattened order, from the in_spec that torch.export writes: the
/// parameters of forward, then keys and positions inside of them: "x", "batch.ids", "xs.0". Empty when the text is no
/// such spec.
std::vector<std::string> input_names(const std::string& spec, const std::vector<std::string>& forward_names);

/// Names of the leaves of what a call returns: keys of a dictionary, fields of a dataclass or of an output class of
/// transformers, positions of lists and tuples; one unnamed tensor is "0". Empty when the text is no such spec.
std::vector<std::string> output_names(const std::string& spec);

}  // namespace shardpipe::pt2
