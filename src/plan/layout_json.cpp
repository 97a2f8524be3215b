#include "plan/layout_json.h"

#include <array>

#include "base/error.h"

namespace shardpipe::plan {
namespace {

using Style = TensorPin::Style;
constexpr std::array<std::pair<std::string_view, Style>, 4> kStyles = {
    {{"colwise", Style::colwise},
     {"rowwise", Style::rowwise},
     {"replicate", Style::replicate},
     {"vocab", Style::vocab}}};

Style style_of(const Json& json, const std::string& pattern, const std::string& where) {
  for (const auto& [name, style] : kStyles) {
    if (json.is_string() && json.get<std::string>() == name) {
      return style;
    }
  }
  throw_usage(
      "{}: \"{}\" is pinned to {}, must be colwise, rowwise, replicate or vocab", where, pattern,
      json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

TensorPin pin_of(const Json& json, const std::string& pattern, const std::string& where) {
  if (!json.is_object()) {
    return {style_of(json, pattern, where)};
  }
  TensorPin pin;
  bool styled = false;
  for (const auto& [key, value] : json.items()) {
    if (key == "style") {
      pin.style = style_of(value, pattern, where);
      styled = true;
      continue;
    }
    bool* const flag = key == "gather_output"       ? &pin.gather_output
                       : key == "input_is_parallel" ? &pin.input_is_parallel
                                                    : nullptr;
    if (flag == nullptr || !value.is_boolean()) {
      throw_usage(
          "{}: \"{}\" has \"{}\", a pin has \"style\" and true or false for \"gather_output\" and "
          "\"input_is_parallel\"",
          where, pattern, key);
    }
    *flag = value.get<bool>();
  }
  if (!styled) {
    throw_usage("{}: \"{}\" lacks \"style\": colwise, rowwise, replicate or vocab", where, pattern);
  }
  return pin;
}

}  // namespace

Json tp_plan_to_json(const std::map<std::string, TensorPin>& pins) {
  Json json = Json::object();
  for (const auto& [pattern, pin] : pins) {
    json[pattern] = {
        {"style", kStyles[static_cast<size_t>(pin.style)].first},
        {"gather_output", pin.gather_output},
        {"input_is_parallel", pin.input_is_parallel}};
  }
  return json;
}

std::map<std::string, TensorPin> tp_plan_from_json(const Json& json, const std::string& where) {
  if (!json.is_object()) {
    throw_input("{} must hold one JSON object: module patterns and how their weights lie", where);
  }
  std::map<std::string, TensorPin> pins;
  for (const auto& [pattern, pin] : json.items()) {
    pins[pattern] = pin_of(pin, pattern, where);
  }
  return pins;
}

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
      {"memory", layout.memory_bytes},
      {"tp_plan", tp_plan_to_json(layout.tp_plan)}};
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
  layout.tp_plan = tp_plan_from_json(json.at("tp_plan"), "a layout");
  return layout;
}

}  // namespace shardpipe::plan
