#pragma once

#include <map>
#include <string>

#include "base/json.h"
#include "shardpipe/options.h"

namespace shardpipe::plan {

/// A layout as plans, artefacts and pools of workers pass it on: all of its fields. The reverse throws
/// nlohmann::json::exception for what is missing or of another type.
Json layout_to_json(const LayoutOptions& layout);
LayoutOptions layout_from_json(const Json& json);

/// LayoutOptions::tp_plan as --tp-plan has it: {pattern: "colwise"} or {pattern: {"style": "colwise", "gather_output":
/// true}}. The reverse throws Error(input) for what is no object, Error(usage) for what is no pin, naming `where`.
Json tp_plan_to_json(const std::map<std::string, TensorPin>& pins);
std::map<std::string, TensorPin> tp_plan_from_json(const Json& json, const std::string& where);

}  // namespace shardpipe::plan
