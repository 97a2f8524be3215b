#include "plan/explain_sharding.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "plan/footprint.h"
#include "plan/units.h"

namespace shardpipe::plan {
namespace {

// "model.layers.3.mlp" -> "model.layers.*.mlp"
std::string without_numbers(const std::string& name) {
  std::string pattern;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string piece = name.substr(begin, end - begin);
    const bool number = !piece.empty() && piece.find_first_not_of("0123456789") == std::string::npos;
    pattern += (begin == 0 ? "" : ".") + (number ? "*" : piece);
    begin = end + 1;
  }
  return pattern;
}

// Rows without their number of repetitions, which is put in front.
std::vector<std::vector<std::string>> counted(
    std::vector<std::string> head, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::pair<std::vector<std::string>, int>> groups;
  for (const std::vector<std::string>& row : rows) {
    const auto known =
        std::find_if(groups.begin(), groups.end(), [&](const auto& group) { return group.first == row; });
    if (known == groups.end()) {
      groups.emplace_back(row, 1);
    } else {
      ++known->second;
    }
  }
  head.insert(head.begin(), "");
  std::vector<std::vector<std::string>> table = {std::move(head)};
  for (auto& [row, count] : groups) {
    row.insert(row.begin(), fmt::format("{} x", count));
    table.push_back(row);
  }
  return table;
}

}  // namespace

std::vector<WeightReport> weight_reports(const Plan& plan) {
  std::vector<WeightReport> reports;
  if (plan.layout.tp == 1) {
    return reports;
  }
  for (const graph::ValueId id : plan.graph.used_tensors()) {
    const graph::Value& value = plan.graph.values[static_cast<size_t>(id)];
    if (value.kind != graph::ValueKind::parameter || !value.shape || !value.dtype) {
      continue;
    }
    WeightReport report;
    report.name = value.name;
    report.shape = graph::evaluate(plan.whole_shape(value).value(), {});
    report.dtype = graph::dtype_name(*value.dtype);
    const auto bytes_each = static_cast<int64_t>(c10::elementSize(*value.dtype));
    const auto shard = plan.shards.find(value.name);
    const auto reason = plan.replicated.find(value.name);
    report.reason = reason == plan.replicated.end() ? "" : reason->second;
    for (int part = 0; part < plan.layout.tp; ++part) {
      std::vector<int64_t> shape = report.shape;
      if (shard != plan.shards.end()) {
        report.dim = shard->second.dim;
        report.blocks = shard->second.blocks;
        int64_t& extent = shape[static_cast<size_t>(shard->second.dim)];
        extent = shard->second.local(extent, part);
        report.extents.push_back(extent);
      }
      report.bytes.push_back(c10::multiply_integers(shape) * bytes_each);
    }
    reports.push_back(std::move(report));
  }
  return reports;
}

std::vector<CollectiveReport> collective_reports(const Plan& plan, const std::vector<Step>& steps) {
  std::vector<CollectiveReport> reports;
  for (const tensor::Collective& collective : plan.collectives) {
    CollectiveReport report{collective.op, collective.module, collective.backward, "", "", {}};
    if (collective.value != graph::kNoValue) {
      const graph::Value& value = plan.graph.values[static_cast<size_t>(collective.value)];
      report.dtype = value.dtype ? graph::dtype_name(*value.dtype) : "";
      report.shape = value.shape ? graph::to_string(*value.shape) : "";
      for (const Step& step : steps) {
        report.bytes.push_back(known_bytes(value, step.sizes));
      }
    }
    report.bytes.resize(steps.size(), 0);
    reports.push_back(std::move(report));
  }
  return reports;
}

Json to_json(const WeightReport& weight) {
  Json json = {{"name", weight.name}, {"dtype", weight.dtype}, {"shape", weight.shape}};
  json["placement"] = weight.dim < 0 ? "replicated" : "sharded";
  if (weight.dim >= 0) {
    json["dim"] = weight.dim;
    json["extents"] = weight.extents;
    json["blocks"] = weight.blocks;
  }
  json["bytes"] = weight.bytes;
  if (!weight.reason.empty()) {
    json["reason"] = weight.reason;
  }
  return json;
}

std::vector<std::vector<std::string>> weight_rows(const std::vector<WeightReport>& weights) {
  std::vector<std::vector<std::string>> rows;
  for (const WeightReport& weight : weights) {
    const std::string placement = weight.dim >= 0
                                      ? fmt::format("dimension {}: {}", weight.dim, fmt::join(weight.extents, " + "))
                                  : weight.reason.empty() ? "whole"
                                                          : "whole: " + weight.reason;
    rows.push_back({without_numbers(weight.name), fmt::format("[{}]", fmt::join(weight.shape, ", ")), placement});
  }
  return counted({"weight", "shape", "each rank of tp"}, rows);
}

std::vector<std::vector<std::string>> collective_rows(
    const std::vector<CollectiveReport>& collectives, const std::vector<StepReport>& steps) {
  std::vector<std::string> head = {"collective", "in", "type"};
  for (const StepReport& step : steps) {
    head.push_back(step.name);
  }
  std::vector<std::vector<std::string>> rows;
  for (const CollectiveReport& collective : collectives) {
    std::vector<std::string> row = {
        collective.op + (collective.backward ? ", backward" : ""), without_numbers(collective.module),
        collective.dtype + collective.shape};
    for (const int64_t bytes : collective.bytes) {
      row.push_back(bytes_text(static_cast<double>(bytes)));
    }
    rows.push_back(std::move(row));
  }
  return counted(std::move(head), rows);
}

}  // namespace shardpipe::plan
