#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shardpipe::pt2 {

/// What a guard says of some inputs.
struct GuardResult {
  bool holds = true;
  /// What it looked at, for the message: ("x", "dimension 0 of x is 3").
  std::vector<std::pair<std::string, std::string>> seen;
};

/// Evaluates a guard as torch.export writes it, a Python expression such as
/// "L['x'].size()[0] == 2*L['d']['k'].size()[1]": numbers, + - * / // % **, comparisons (chains too), and, or, not,
/// max, min, Mod, FloorDiv and parentheses, over sizes, strides, numbers of dimensions and integer inputs. nullopt when
/// it is anything else, or names an input that is not there.
std::optional<GuardResult> evaluate_guard(std::string_view guard, const std::map<std::string, at::Tensor>& inputs);

}  // namespace shardpipe::pt2
