#include "frontend/pt2/targets.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "base/error.h"
#include "frontend/pt2/modules.h"

namespace shardpipe::pt2 {
namespace {

using graph::ScalarOperator;

constexpr std::array<std::pair<std::string_view, ScalarOperator>, 31> kScalars = {{
    {"_operator.add", ScalarOperator::add},
    {"_operator.sub", ScalarOperator::sub},
    {"_operator.mul", ScalarOperator::mul},
    {"_operator.floordiv", ScalarOperator::floordiv},
    {"_operator.mod", ScalarOperator::mod},
    {"_operator.truediv", ScalarOperator::truediv},
    {"_operator.pow", ScalarOperator::pow},
    {"_operator.neg", ScalarOperator::neg},
    {"_operator.pos", ScalarOperator::same},
    {"_operator.abs", ScalarOperator::absolute},
    {"_operator.eq", ScalarOperator::eq},
    {"_operator.ne", ScalarOperator::ne},
    {"_operator.lt", ScalarOperator::lt},
    {"_operator.le", ScalarOperator::le},
    {"_operator.gt", ScalarOperator::gt},
    {"_operator.ge", ScalarOperator::ge},
    {"_operator.and_", ScalarOperator::logical_and},
    {"_operator.or_", ScalarOperator::logical_or},
    {"torch.sym_max", ScalarOperator::max},
    {"torch.sym_min", ScalarOperator::min},
    {"torch.sym_not", ScalarOperator::logical_not},
    {"torch.sym_float", ScalarOperator::to_float},
    {"torch.sym_int", ScalarOperator::trunc},
    {"torch.sym_ite", ScalarOperator::choose},
    {"torch.sym_sqrt", ScalarOperator::sqrt},
    {"torch._sym_sqrt", ScalarOperator::sqrt},
    {"math.trunc", ScalarOperator::trunc},
    {"math.floor", ScalarOperator::floor},
    {"math.ceil", ScalarOperator::ceil},
    {"math.sqrt", ScalarOperator::sqrt},
    {"builtins.round", ScalarOperator::round},
}};

constexpr std::array<std::string_view, 6> kRegions = {
    "wrap_with_set_grad_enabled", "wrap_with_autocast",        "wrap", "strict_mode",
    "tag_activation_checkpoint",  "wrap_activation_checkpoint"};

constexpr std::string_view kHigherOrder = "torch.ops.higher_order.";
constexpr std::string_view kOperators = "torch.ops.";

// "aten.add.Tensor" -> "aten::add.Tensor"; the overload "default" has no name.
std::string operator_name(std::string_view target) {
  const size_t space = target.find('.');
  const size_t dot = target.rfind('.');
  if (space == std::string_view::npos || dot == space) {
    return std::string(target);
  }
  std::string name(target.substr(0, space));
  name += "::";
  name += target.substr(space + 1, dot - space - 1);
  const std::string_view overload = target.substr(dot + 1);
  return overload == "default" ? name : name + "." + std::string(overload);
}

bool is_assertion(std::string_view name) {
  constexpr std::array<std::string_view, 3> kPrefixes = {
      "aten::_assert_", "aten::sym_constrain_range", "aten::_functional_assert_"};
  return std::any_of(
      kPrefixes.begin(), kPrefixes.end(), [&](std::string_view prefix) { return name.starts_with(prefix); });
}

void collect(const Document& exported, std::set<std::string>& seen, std::vector<std::string>& unknown) {
  for (const Document& node : list_of(exported.at("nodes"))) {
    const std::string& target = text_of(node.at("target"));
    if (parse_target(target).kind == Target::Kind::unknown && seen.insert(target).second) {
      std::string path;
      const auto metadata = node.find("metadata");
      if (metadata != node.end() && metadata->is_object() && metadata->contains("nn_module_stack")) {
        const std::vector<ModuleCall> stack = parse_module_stack(text_of(metadata->at("nn_module_stack")));
        path = stack.empty() ? "" : stack.back().path;
      }
      unknown.push_back(fmt::format("{} (node {} of \"{}\")", target, text_of(node.at("name")), path));
    }
    for (const Document& input : list_of(node.at("inputs"))) {
      const Document& argument = input.at("arg");
      if (argument.is_object() && argument.contains("as_graph")) {
        collect(argument.at("as_graph").at("graph"), seen, unknown);
      }
    }
  }
}

}  // namespace

Target parse_target(const std::string& text) {
  if (text.starts_with(kHigherOrder)) {
    const std::string name = text.substr(kHigherOrder.size());
    const bool region = std::find(kRegions.begin(), kRegions.end(), name) != kRegions.end();
    return {region ? Target::Kind::region : name == "cond" ? Target::Kind::cond : Target::Kind::higher_order, name};
  }
  for (const auto& [name, scalar] : kScalars) {
    if (text == name) {
      return {Target::Kind::scalar, text, scalar};
    }
  }
  if (!text.starts_with(kOperators)) {
    return {Target::Kind::unknown, text};
  }
  const std::string name = operator_name(std::string_view(text).substr(kOperators.size()));
  if (is_assertion(name)) {
    return {Target::Kind::assertion, name};
  }
  const size_t dot = name.find('.', std::min(name.find("::"), name.size()));
  const c10::OperatorName full(name.substr(0, dot), dot == std::string::npos ? "" : name.substr(dot + 1));
  return {c10::Dispatcher::singleton().findSchema(full) ? Target::Kind::call : Target::Kind::unknown, name};
}

std::vector<std::string> unknown_operators(const Document& exported) {
  std::set<std::string> seen;
  std::vector<std::string> unknown;
  collect(exported, seen, unknown);
  return unknown;
}

}  // namespace shardpipe::pt2
