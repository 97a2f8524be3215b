#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/names.h"
#include "checkpoint/text.h"
#include "frontend/pt2/exported.h"

namespace shardpipe::pt2 {
namespace {

using graph::Value;
using graph::ValueKind;

bool contains(const std::vector<std::string>& sorted, const std::string& name) {
  return std::binary_search(sorted.begin(), sorted.end(), name);
}

std::vector<int64_t> numbers(const Value& value) {
  return value.shape ? graph::evaluate(*value.shape, {}) : std::vector<int64_t>();
}

// An archive without data does not say which parameters are tied, but the program then uses only one of them: the one
// that it does not use, of the same kind, is the other name of `missing` when the checkpoint has it alone.
std::optional<std::string> other_name(
    const ExportedModel& model,
    const std::set<graph::ValueId>& used,
    const Value& missing,
    const checkpoint::Checkpoint& beside) {
  std::vector<std::string> candidates;
  for (size_t id = 0; id < model.graph.values.size(); ++id) {
    const Value& value = model.graph.values[id];
    if (value.kind == ValueKind::parameter && !used.contains(static_cast<graph::ValueId>(id)) &&
        value.shape == missing.shape && value.dtype == missing.dtype && beside.contains(value.name)) {
      candidates.push_back(value.name);
    }
  }
  return candidates.size() == 1 ? std::optional(candidates.front()) : std::nullopt;
}

}  // namespace

std::map<std::string, WeightSource> find_weights(const ExportedModel& model, const checkpoint::Checkpoint* beside) {
  const std::vector<graph::ValueId> ids = model.graph.used_tensors();
  const std::set<graph::ValueId> used(ids.begin(), ids.end());
  std::map<std::string, std::string> from_beside;
  if (beside != nullptr) {
    std::vector<checkpoint::WantedTensor> wanted;
    checkpoint::NameRules rules;
    for (const graph::ValueId id : ids) {
      const Value& value = model.graph.values[static_cast<size_t>(id)];
      wanted.push_back({model.weights.at(value.name), numbers(value), checkpoint::WantedKind::optional});
      if (!value.tied_names.empty()) {
        rules.tied.push_back(value.tied_names);
        rules.tied.back().insert(rules.tied.back().begin(), model.weights.at(value.name));
      }
    }
    from_beside = checkpoint::resolve_names(*beside, wanted, rules).source;
  }
  std::map<std::string, WeightSource> sources;
  std::vector<std::string> missing;
  for (const graph::ValueId id : ids) {
    const Value& value = model.graph.values[static_cast<size_t>(id)];
    const std::string& name = model.weights.at(value.name);
    const auto found = from_beside.find(name);
    const bool has_data = !contains(model.without_data, value.name);
    if (found != from_beside.end()) {
      sources[value.name] = {true, found->second};
    } else if (has_data && (beside == nullptr || value.kind != ValueKind::parameter)) {
      sources[value.name] = {false, name};
    } else if (const auto other = beside == nullptr ? std::nullopt : other_name(model, used, value, *beside)) {
      log_info("{} is taken from {} of {}", name, *other, beside->path().string());
      sources[value.name] = {true, *other};
    } else {
      missing.push_back(value.name);
    }
  }
  if (missing.empty()) {
    return sources;
  }
  if (beside == nullptr) {
    throw Error(
        ErrorCode::input,
        fmt::format(
            "{} has no data for {} tensors: {}", model.path.string(), missing.size(),
            checkpoint::list_text(missing, 5)),
        "it was exported without weights: give them with --weights DIR");
  }
  const bool recipe = std::all_of(
      missing.begin(), missing.end(), [&](const std::string& name) { return contains(model.not_persistent, name); });
  throw Error(
      ErrorCode::input,
      fmt::format(
          "neither {} nor {} holds {} tensors of the program: {}", beside->path().string(), model.path.string(),
          missing.size(), checkpoint::list_text(missing, 5)),
      recipe ? "non-persistent buffers are in no state dictionary: export the program with those buffers real, or save "
               "them into the weights"
             : "the weights must be those of the exported model");
}

}  // namespace shardpipe::pt2
