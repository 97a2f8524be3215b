#include "base/error.h"
#include "base/hash.h"
#include "graph/text.h"
#include "kernels/register.h"
#include "plan/layout_json.h"
#include "plan/plan.h"

namespace shardpipe::plan {
namespace {

constexpr int kVersion = 4;

Json to_json(const Plan& plan) {
  Json json;
  json["family"] = plan.family;
  json["dtype"] = graph::dtype_name(plan.dtype);
  json["layout"] = layout_to_json(plan.layout);
  json["schedule_csv"] = plan.schedule_csv;
  json["threads"] = plan.threads;
  json["kernels"] = plan.kernels;
  json["choice"] = plan.choice.to_json();
  json["cuts"] = plan.cuts;
  json["checkpoints"] = plan.checkpoints;
  json["weights"] = Json::object();
  for (const auto& [name, source] : plan.weights) {
    json["weights"][name] = {source.checkpoint, source.name};
  }
  json["frozen"] = plan.frozen;
  json["scalars"] = Json::array();
  for (const ScalarOutput& scalar : plan.scalars) {
    json["scalars"].push_back(to_json(scalar));
  }
  return json;
}

Plan from_json(const Json& json) {
  Plan plan;
  plan.family = json.at("family");
  const std::string dtype = json.at("dtype");
  plan.dtype = graph::parse_dtype(dtype).value();
  plan.layout = layout_from_json(json.at("layout"));
  plan.schedule_csv = json.at("schedule_csv");
  plan.place_stages();
  plan.threads = json.at("threads");
  plan.kernels = json.at("kernels");
  plan.choice = kernels::KernelChoice::from_json(json.at("choice"), "the plan");
  plan.cuts = json.at("cuts").get<partition::CutPoints>();
  plan.checkpoints = json.at("checkpoints").get<std::vector<std::string>>();
  for (const auto& [name, source] : json.at("weights").items()) {
    plan.weights[name] = {source.at(0).get<int>(), source.at(1).get<std::string>()};
  }
  plan.frozen = json.at("frozen").get<std::set<std::string>>();
  for (const Json& scalar : json.at("scalars")) {
    plan.scalars.push_back(scalar_from_json(scalar));
  }
  return plan;
}

}  // namespace

std::string serialize(const Plan& plan) {
  const std::string body = to_json(plan).dump() + "\n" + graph::print(plan.graph);
  return fmt::format("shardpipe-plan {} {:016x}\n{}", kVersion, fnv1a(body), body);
}

Plan parse(std::string_view text, const std::string& where) {
  const size_t first = std::min(text.find('\n'), text.size());
  const std::string_view header = text.substr(0, first);
  const std::string prefix = fmt::format("shardpipe-plan {} ", kVersion);
  if (!header.starts_with("shardpipe-plan ")) {
    throw_input("{} is not a plan", where);
  }
  if (!header.starts_with(prefix)) {
    throw_input("{} is a plan of another version (\"{}\"), this program reads version {}", where, header, kVersion);
  }
  const std::string_view body = text.substr(std::min(first + 1, text.size()));
  if (header.substr(prefix.size()) != fmt::format("{:016x}", fnv1a(body))) {
    throw_input("{} is damaged: its hash does not fit its content", where);
  }
  const size_t line = std::min(body.find('\n'), body.size());
  Plan plan;
  try {
    plan = from_json(parse_json(body.substr(0, line), where));
  } catch (const nlohmann::json::exception& error) {
    throw_input("{} is damaged: {}", where, error.what());
  }
  kernels::register_operators();
  plan.graph = graph::parse(body.substr(std::min(line + 1, body.size())), where);
  plan.stages = partition::cut(plan.graph, plan.cuts);
  return plan;
}

}  // namespace shardpipe::plan
