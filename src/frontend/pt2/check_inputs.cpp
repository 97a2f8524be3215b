#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/text.h"
#include "frontend/pt2/exported.h"
#include "frontend/pt2/guard.h"

namespace shardpipe::pt2 {
namespace {

using graph::Dimensions;
using graph::Size;
using Inputs = std::map<std::string, at::Tensor>;

void check_names(const ExportedModel& model, const Inputs& inputs) {
  std::vector<std::string> names;
  for (const ExportedInput& input : model.inputs) {
    names.push_back(input.name);
    if (!inputs.contains(input.name)) {
      throw Error(
          ErrorCode::usage, fmt::format("the input {} is missing", checkpoint::in_quotes(input.name)),
          inputs.empty() ? "none was given"
                         : fmt::format("{} was given", checkpoint::in_quotes(inputs.begin()->first)));
    }
  }
  for (const auto& [name, tensor] : inputs) {
    const auto constant = std::find_if(
        model.constant_inputs.begin(), model.constant_inputs.end(),
        [&, key = name](const ConstantInput& one) { return one.name == key; });
    if (constant != model.constant_inputs.end()) {
      throw Error(
          ErrorCode::usage,
          fmt::format("the input {} is a constant of the exported program", checkpoint::in_quotes(name)),
          "leave it out, or export the program with a tensor");
    }
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw Error(
          ErrorCode::usage, fmt::format("the program has no input {}", checkpoint::in_quotes(name)),
          names.empty() ? "it takes none"
                        : "it takes " + checkpoint::list_text(checkpoint::nearest_names(name, names, names.size()), 8));
    }
  }
}

void check_kind(const ExportedInput& input, const at::Tensor& tensor) {
  if (input.type != graph::ValueType::tensor) {
    const bool integral = at::isIntegralType(tensor.scalar_type(), true);
    if (tensor.numel() != 1 || (!integral && input.type != graph::ValueType::number)) {
      throw_usage(
          "the input {} is {} {}, it must be one number of the kind that the program takes",
          checkpoint::in_quotes(input.name), graph::dtype_name(tensor.scalar_type()),
          checkpoint::shape_text(tensor.sizes()));
    }
    return;
  }
  if (input.dtype && tensor.scalar_type() != *input.dtype) {
    throw_usage(
        "the input {} is {}, the program takes {}", checkpoint::in_quotes(input.name),
        graph::dtype_name(tensor.scalar_type()), graph::dtype_name(*input.dtype));
  }
  if (input.shape && tensor.dim() != static_cast<int64_t>(input.shape->size())) {
    throw_usage(
        "the input {} has {} dimensions ({}), the program takes {} ({})", checkpoint::in_quotes(input.name),
        tensor.dim(), checkpoint::shape_text(tensor.sizes()), input.shape->size(), graph::to_string(*input.shape));
  }
}

// The value of a dimension from a*dimension + b = actual; nullopt when that is not the form of `size`.
std::optional<std::pair<std::string, std::optional<int64_t>>> solve(const Size& size, int64_t actual) {
  int64_t factor = 0;
  int64_t offset = 0;
  std::string name;
  for (const auto& [symbols, coefficient] : size.terms()) {
    if (symbols.empty()) {
      offset = coefficient;
    } else if (symbols.size() == 1 && name.empty()) {
      name = symbols.front();
      factor = coefficient;
    } else {
      return std::nullopt;
    }
  }
  int64_t rest = 0;
  if (name.empty() || __builtin_sub_overflow(actual, offset, &rest)) {
    return std::nullopt;
  }
  const bool whole = factor == 1 || (factor != -1 && rest % factor == 0);
  return std::pair(name, whole ? std::optional(rest / factor) : std::nullopt);
}

// Visits every extent of every input: its expression, the actual value, and how to call it in a message.
template <typename F>
void for_each_extent(const ExportedModel& model, const Inputs& inputs, F visit) {
  for (const ExportedInput& input : model.inputs) {
    const at::Tensor& tensor = inputs.at(input.name);
    const std::string name = checkpoint::in_quotes(input.name);
    if (input.shape && input.type == graph::ValueType::tensor) {
      for (size_t dim = 0; dim < input.shape->size(); ++dim) {
        visit(
            (*input.shape)[dim], tensor.size(static_cast<int64_t>(dim)),
            fmt::format("dimension {} of the input {}", dim, name));
      }
    } else if (input.shape && input.shape->size() == 1) {
      visit(input.shape->front(), tensor.item<int64_t>(), "the input " + name);
    }
  }
}

Dimensions find_dimensions(const ExportedModel& model, const Inputs& inputs) {
  Dimensions dimensions;
  for (const bool plain : {true, false}) {
    for_each_extent(model, inputs, [&](const Size& size, int64_t actual, const std::string&) {
      const auto solved = solve(size, actual);
      if (solved && (!plain || size == Size::symbol(solved->first)) && solved->second) {
        dimensions.try_emplace(solved->first, *solved->second);
      }
    });
  }
  return dimensions;
}

void check_extents(const ExportedModel& model, const Inputs& inputs, const Dimensions& dimensions) {
  for_each_extent(model, inputs, [&](const Size& size, int64_t actual, const std::string& what) {
    if (size.is_constant()) {
      if (size.constant() != actual) {
        throw_usage("{} is {}, the program was exported for {}", what, actual, size.constant());
      }
      return;
    }
    for (const std::string& symbol : size.symbols()) {
      if (!dimensions.contains(symbol)) {
        throw_usage("{} is {}, the program takes {}, which no {} gives", what, actual, size.str(), symbol);
      }
    }
    const int64_t expected = size.evaluate(dimensions);
    if (expected != actual) {
      throw_usage("{} is {}, it must be {} ({})", what, actual, expected, size.str());
    }
  });
}

void check_range(const Size& size, const DimensionRange& range, int64_t actual, const std::string& what) {
  const std::string max = range.max ? std::to_string(*range.max) : "any";
  if (actual < range.min || (range.max && actual > *range.max)) {
    throw_usage("{} is {}, the program was exported for {} from {} to {}", what, actual, size.str(), range.min, max);
  }
}

}  // namespace

Dimensions check_inputs(const ExportedModel& model, const Inputs& inputs) {
  check_names(model, inputs);
  for (const ExportedInput& input : model.inputs) {
    check_kind(input, inputs.at(input.name));
  }
  const Dimensions dimensions = find_dimensions(model, inputs);
  check_extents(model, inputs, dimensions);
  for (const auto& [text, range] : model.ranges) {
    const Size size = Size::parse(text);
    const std::vector<std::string> symbols = size.symbols();
    if (!std::all_of(symbols.begin(), symbols.end(), [&](const auto& symbol) { return dimensions.contains(symbol); })) {
      continue;
    }
    std::string what = "the size " + text;
    for_each_extent(model, inputs, [&](const Size& extent, int64_t, const std::string& where) {
      what = extent == size && what[4] == 's' ? where : what;
    });
    check_range(size, range, size.evaluate(dimensions), what);
  }
  for (const std::string& guard : model.guards) {
    const std::optional<GuardResult> result = evaluate_guard(guard, inputs);
    if (!result) {
      log_debug("the guard {} is not checked", guard);
    } else if (!result->holds) {
      std::vector<std::string> seen;
      for (const auto& [name, text] : result->seen) {
        seen.push_back(text);
      }
      throw_usage("the program was exported for inputs with {}; {}", guard, fmt::format("{}", fmt::join(seen, ", ")));
    }
  }
  return dimensions;
}

}  // namespace shardpipe::pt2
