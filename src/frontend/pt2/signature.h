#pragma once

#include <string>

#include "base/json.h"
#include "frontend/pt2/exported.h"

namespace shardpipe::pt2 {

/// What check_inputs needs of an exported program: inputs, names of constants, ranges and guards.
Json signature_to_json(const ExportedModel& model);
/// The reverse: a model without graph and weights. Throws Error(input) naming `where` for anything else.
ExportedModel signature_from_json(const Json& json, const std::string& where);

}  // namespace shardpipe::pt2
