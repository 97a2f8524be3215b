#include "plan/explain.h"
#include "plan/explain_sharding.h"

namespace shardpipe::plan {
namespace {

Json sizes_json(const graph::Dimensions& sizes) {
  Json json = Json::object();
  for (const auto& [name, size] : sizes) {
    json[name] = size;
  }
  return json;
}

Json layout_json(const LayoutOptions& layout, const std::string& split) {
  Json json = {{"pp", layout.pp}, {"virtual", layout.virtual_stages}, {"dp", layout.dp}, {"tp", layout.tp}};
  json["split"] = split;
  json["schedule"] = layout.schedule;
  if (layout.memory_bytes > 0) {
    json["memory_bytes"] = layout.memory_bytes;
  }
  return json;
}

// An object with a key a step; `make(i)` gives what step i has.
template <typename F>
Json by_step(const Explanation& explanation, F make) {
  Json json = Json::object();
  for (size_t i = 0; i < explanation.steps.size(); ++i) {
    json[explanation.steps[i].name] = make(i);
  }
  return json;
}

Json stage_json(const Explanation& explanation, const StageReport& stage) {
  Json json;
  json["stage"] = stage.stage;
  json["rank"] = stage.rank;
  json["layers"] = stage.layers;
  json["first_layer"] = stage.first_layer.empty() ? Json() : Json(stage.first_layer);
  json["last_layer"] = stage.last_layer.empty() ? Json() : Json(stage.last_layer);
  json["operators"] = stage.operators;
  json["repeated_operators"] = stage.repeated_operators;
  json["parameters"] = stage.parameters;
  json["parameter_bytes"] = stage.parameter_bytes;
  json["weight_bytes"] = stage.weight_bytes;
  json["steps"] = by_step(explanation, [&](size_t i) {
    return Json{
        {"flops", stage.flops[i]},
        {"activation_bytes", stage.activation_bytes[i]},
        {"cache_bytes", stage.cache_bytes[i]},
        {"forward_s", stage.forward_s[i]}};
  });
  return json;
}

Json edge_json(const Explanation& explanation, const EdgeReport& edge) {
  Json json;
  json["from_stage"] = edge.from_stage;
  json["to_stage"] = edge.to_stage;
  json["value"] = edge.value;
  json["module"] = edge.module;
  json["dtype"] = edge.dtype.empty() ? Json() : Json(edge.dtype);
  json["shape"] = edge.shape.empty() ? Json() : Json(edge.shape);
  json["steps"] = by_step(explanation, [&](size_t i) {
    return Json{{"shape", edge.sizes[i]}, {"bytes", edge.bytes[i]}, {"transfer_s", edge.transfer_s[i]}};
  });
  return json;
}

template <typename T, typename F>
Json list_of(const std::vector<T>& items, F make) {
  Json list = Json::array();
  for (const T& item : items) {
    list.push_back(make(item));
  }
  return list;
}

}  // namespace

Json to_json(const Explanation& e) {
  Json json;
  json["model"] = e.model;
  json["family"] = e.family;
  json["program"] = e.program;
  json["dtype"] = e.dtype;
  json["layout"] = layout_json(e.layout, e.split);
  json["cores"] = e.cores;
  json["threads"] = e.threads;
  json["device"] = e.device;
  json["kernels"] = e.kernels;
  json["kernel_choice"] = e.choice ? e.choice->to_json() : Json();
  json["costs"] = e.profile ? "profile" : "model";
  json["rates"] = {
      {"flops_per_second", e.rates.flops_per_second},
      {"bytes_per_second", e.rates.bytes_per_second},
      {"transfer_bytes_per_second", e.rates.transfer_bytes_per_second},
      {"node_seconds", e.rates.node_seconds},
      {"message_seconds", e.rates.message_seconds},
      {"message_busy_seconds", e.rates.message_busy_seconds}};
  json["missing_weights"] = e.missing_weights.empty() ? Json() : Json(e.missing_weights);
  json["parameters"] = e.parameters;
  json["parameter_bytes"] = e.parameter_bytes;
  json["request_s"] = e.request_s;
  json["steps"] = by_step(e, [&](size_t i) {
    const StepReport& step = e.steps[i];
    return Json{
        {"sizes", sizes_json(step.sizes)},
        {"microbatches", step.microbatches},
        {"count", step.count},
        {"step_s", step.step_s},
        {"together", step.together},
        {"bubble", step.bubble},
        {"bottleneck", step.bottleneck},
        {"balance", step.balance}};
  });
  json["stages"] = list_of(e.stages, [&](const StageReport& stage) { return stage_json(e, stage); });
  json["ranks"] = list_of(e.ranks, [](const RankReport& rank) {
    return Json{
        {"rank", rank.rank},
        {"pp", rank.at.pp},
        {"dp", rank.at.dp},
        {"tp", rank.at.tp},
        {"stages", rank.stages},
        {"parameters", rank.parameters},
        {"parameter_bytes", rank.parameter_bytes},
        {"weight_bytes", rank.weight_bytes},
        {"peak_bytes", rank.peak_bytes}};
  });
  json["edges"] = list_of(e.edges, [&](const EdgeReport& edge) { return edge_json(e, edge); });
  json["layer_class"] = e.layer_class.empty() ? Json() : Json(e.layer_class);
  json["layers"] = list_of(e.layers, [&](const LayerReport& layer) {
    Json entry = {
        {"name", layer.name},
        {"stage", layer.stage},
        {"parameters", layer.parameters},
        {"parameter_bytes", layer.parameter_bytes}};
    entry["steps"] = by_step(e, [&](size_t i) {
      return Json{{"flops", layer.flops[i]}, {"forward_s", layer.forward_s[i]}};
    });
    return entry;
  });
  json["weights"] = list_of(e.weights, [](const WeightReport& weight) { return to_json(weight); });
  json["collectives"] = list_of(e.collectives, [&](const CollectiveReport& collective) {
    Json entry = {{"op", collective.op}, {"module", collective.module}, {"backward", collective.backward}};
    entry["dtype"] = collective.dtype.empty() ? Json() : Json(collective.dtype);
    entry["shape"] = collective.shape.empty() ? Json() : Json(collective.shape);
    entry["steps"] = by_step(e, [&](size_t i) { return Json{{"bytes", collective.bytes[i]}}; });
    return entry;
  });
  json["shared"] = list_of(e.shared, [](const SharedReport& tensor) {
    return Json{{"name", tensor.name}, {"bytes", tensor.bytes}, {"stages", tensor.stages}};
  });
  json["operators_without_row"] = list_of(e.operators, [](const OperatorReport& op) {
    return Json{{"name", op.name}, {"count", op.count}};
  });
  json["alternatives"] = list_of(e.alternatives, [&](const Alternative& other) {
    Json entry = {{"pp", other.pp}, {"threads", other.threads}, {"request_s", other.request_s}};
    entry["steps"] = by_step(e, [&](size_t i) {
      return Json{{"microbatches", other.microbatches[i]}, {"step_s", other.step_s[i]}};
    });
    return entry;
  });
  json["remark"] = e.remark.empty() ? Json() : Json(e.remark);
  return json;
}

}  // namespace shardpipe::plan
