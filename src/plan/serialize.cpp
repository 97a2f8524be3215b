#include "base/error.h"
#include "base/hash.h"
#include "graph/text.h"
#include "kernels/register.h"
#include "plan/layout_json.h"
#include "plan/plan.h"
#include "tensor/collectives.h"

namespace shardpipe::plan {
namespace {

constexpr int kVersion = 6;

// The graphs of the plan: one, or one a part.
std::vector<const graph::Graph*> graphs_of(const Plan& plan) {
  std::vector<const graph::Graph*> graphs;
  for (const graph::Graph& part : plan.parts) {
    graphs.push_back(&part);
  }
  return graphs.empty() ? std::vector{&plan.graph} : graphs;
}

Json to_json(const Plan& plan) {
  Json json;
  json["family"] = plan.family;
  json["dtype"] = graph::dtype_name(plan.dtype);
  json["layout"] = layout_to_json(plan.layout);
  json["schedule_csv"] = plan.schedule_csv;
  json["threads"] = plan.threads;
  json["device"] = plan.device;
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
  json["own_pieces"] = plan.own_pieces;
  json["shards"] = Json::object();
  for (const auto& [name, shard] : plan.shards) {
    json["shards"][name] = {shard.dim, shard.blocks, shard.units};
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
  plan.device = json.at("device");
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
  plan.own_pieces = json.at("own_pieces");
  for (const auto& [name, shard] : json.at("shards").items()) {
    plan.shards[name] = {
        shard.at(0).get<int>(), shard.at(1).get<std::vector<int64_t>>(), shard.at(2).get<std::vector<int64_t>>()};
  }
  return plan;
}

}  // namespace

std::string serialize(const Plan& plan) {
  Json json = to_json(plan);
  std::string texts;
  for (const graph::Graph* part : graphs_of(plan)) {
    const std::string text = graph::print(*part);
    json["graph_bytes"].push_back(text.size());
    texts += text;
  }
  const std::string body = json.dump() + "\n" + texts;
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
  std::vector<size_t> sizes;
  try {
    const Json json = parse_json(body.substr(0, line), where);
    plan = from_json(json);
    sizes = json.at("graph_bytes").get<std::vector<size_t>>();
  } catch (const nlohmann::json::exception& error) {
    throw_input("{} is damaged: {}", where, error.what());
  }
  kernels::register_operators();
  tensor::register_collectives();
  std::string_view rest = body.substr(std::min(line + 1, body.size()));
  std::vector<graph::Graph> graphs;
  for (const size_t size : sizes) {
    graphs.push_back(graph::parse(rest.substr(0, size), where));
    rest.remove_prefix(std::min(size, rest.size()));
  }
  if (graphs.empty()) {
    throw_input("{} is damaged: it has no graph", where);
  }
  plan.graph = graphs.front();
  if (graphs.size() > 1) {
    plan.parts = std::move(graphs);
  }
  plan.stages = partition::cut(plan.graph, plan.cuts);
  return plan;
}

}  // namespace shardpipe::plan
