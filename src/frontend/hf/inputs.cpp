#include "frontend/hf/inputs.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"

namespace shardpipe::hf {

void add_optional_inputs(
    const std::vector<OptionalInput>& optional, std::vector<std::pair<std::string, at::Tensor>>& inputs) {
  const auto find = [&](const std::string& name) {
    return std::find_if(inputs.begin(), inputs.end(), [&](const auto& input) { return input.first == name; });
  };
  for (const OptionalInput& input : optional) {
    const auto like = find(input.like);
    if (find(input.name) == inputs.end() && like != inputs.end()) {
      at::Tensor made = at::full(like->second.sizes(), input.value, at::kLong);
      inputs.emplace_back(input.name, std::move(made));
    }
  }
}

void check_inputs(const FolderModel& model, const std::map<std::string, at::Tensor>& inputs) {
  for (const auto& [name, limit] : model.id_limits) {
    const auto found = inputs.find(name);
    if (found == inputs.end() || found->second.scalar_type() != at::kLong || found->second.numel() == 0) {
      continue;
    }
    const at::Tensor& ids = found->second;
    const auto [least, most] = ids.aminmax();
    const auto lowest = least.item<int64_t>();
    const auto highest = most.item<int64_t>();
    if (lowest < 0 || highest >= limit) {
      throw_usage("\"{}\" holds {}; 0 to {} are expected", name, lowest < 0 ? lowest : highest, limit - 1);
    }
    if (model.learned_positions && ids.dim() == 2 && ids.size(1) > model.max_positions) {
      throw_usage("\"{}\" has rows of {} tokens; the model has {} positions", name, ids.size(1), model.max_positions);
    }
  }
}

}  // namespace shardpipe::hf
