#include "plan/layout_json.h"

namespace shardpipe::plan {

Json layout_to_json(const LayoutOptions& layout) {
  return {
      {"pp", layout.pp},
      {"virtual", layout.virtual_stages},
      {"dp", layout.dp},
      {"tp", layout.tp},
      {"chunks", layout.chunks},
      {"split", layout.split},
      {"profile", layout.profile},
      {"cuts", layout.cuts},
      {"schedule", layout.schedule},
      {"memory", layout.memory_bytes}};
}

LayoutOptions layout_from_json(const Json& json) {
  LayoutOptions layout;
  layout.pp = json.at("pp");
  layout.virtual_stages = json.at("virtual");
  layout.dp = json.at("dp");
  layout.tp = json.at("tp");
  layout.chunks = json.at("chunks");
  layout.split = json.at("split");
  layout.profile = json.at("profile");
  layout.cuts = json.at("cuts").get<std::vector<std::string>>();
  layout.schedule = json.at("schedule");
  layout.memory_bytes = json.at("memory");
  return layout;
}

}  // namespace shardpipe::plan
