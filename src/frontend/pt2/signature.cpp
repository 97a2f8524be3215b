#include "frontend/pt2/signature.h"

#include "base/error.h"

namespace shardpipe::pt2 {
namespace {

using graph::ValueType;

constexpr std::pair<ValueType, const char*> kTypes[] = {
    {ValueType::tensor, "tensor"},
    {ValueType::integer, "integer"},
    {ValueType::number, "number"},
    {ValueType::boolean, "boolean"},
    {ValueType::string, "string"}};

std::string type_name(ValueType type) {
  for (const auto& [known, name] : kTypes) {
    if (known == type) {
      return name;
    }
  }
  throw_internal("an input of type {}", static_cast<int>(type));
}

ValueType parse_type(const std::string& text, const std::string& where) {
  for (const auto& [type, name] : kTypes) {
    if (text == name) {
      return type;
    }
  }
  throw_input("{}: \"{}\" is no type of an input", where, text);
}

Json to_json(const ExportedInput& input) {
  Json json = {{"name", input.name}, {"type", type_name(input.type)}};
  if (input.dtype) {
    json["dtype"] = graph::dtype_name(*input.dtype);
  }
  if (input.shape) {
    json["shape"] = Json::array();
    for (const graph::Size& extent : *input.shape) {
      json["shape"].push_back(extent.str());
    }
  }
  return json;
}

ExportedInput input_from_json(const Json& json, const std::string& where) {
  ExportedInput input;
  input.name = json.at("name");
  input.type = parse_type(json.at("type"), where);
  if (json.contains("dtype")) {
    const std::string dtype = json.at("dtype");
    input.dtype = graph::parse_dtype(dtype);
    if (!input.dtype) {
      throw_input("{}: \"{}\" is no dtype", where, dtype);
    }
  }
  if (json.contains("shape")) {
    input.shape.emplace();
    for (const Json& extent : json.at("shape")) {
      input.shape->push_back(graph::Size::parse(extent.get<std::string>()));
    }
  }
  return input;
}

}  // namespace

Json signature_to_json(const ExportedModel& model) {
  Json json;
  json["inputs"] = Json::array();
  for (const ExportedInput& input : model.inputs) {
    json["inputs"].push_back(to_json(input));
  }
  json["constants"] = Json::array();
  for (const ConstantInput& input : model.constant_inputs) {
    json["constants"].push_back(input.name);
  }
  json["ranges"] = Json::object();
  for (const auto& [name, range] : model.ranges) {
    json["ranges"][name] = {range.min, range.max ? Json(*range.max) : Json()};
  }
  json["guards"] = model.guards;
  return json;
}

ExportedModel signature_from_json(const Json& json, const std::string& where) {
  ExportedModel model;
  try {
    for (const Json& input : json.at("inputs")) {
      model.inputs.push_back(input_from_json(input, where));
    }
    for (const Json& name : json.at("constants")) {
      model.constant_inputs.push_back({name.get<std::string>(), {}});
    }
    for (const auto& [name, range] : json.at("ranges").items()) {
      const Json& max = range.at(1);
      model.ranges[name] = {
          range.at(0).get<int64_t>(), max.is_null() ? std::nullopt : std::optional(max.get<int64_t>())};
    }
    model.guards = json.at("guards").get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception& error) {
    throw_input("{}: {}", where, error.what());
  }
  return model;
}

}  // namespace shardpipe::pt2
