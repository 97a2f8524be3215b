#pragma once

#include "base/json.h"
#include "shardpipe/options.h"

namespace shardpipe::plan {

/// A layout as plans, artefacts and pools of workers pass it on: all of its fields. The reverse throws
/// nlohmann::json::exception for what is missing or of another type.
Json layout_to_json(const LayoutOptions& layout);
LayoutOptions layout_from_json(const Json& json);

}  // namespace shardpipe::plan
