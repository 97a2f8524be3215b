#include "checkpoint/names.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

constexpr size_t kNamesInWarning = 5;

// The checkpoint's names a tensor may go by, the likeliest first.
std::vector<std::string> spellings(const std::string& name, const std::vector<std::string>& prefixes) {
  std::vector<std::string> result = {name};
  for (const std::string& prefix : prefixes) {
    result.push_back(name.starts_with(prefix) ? name.substr(prefix.size()) : prefix + name);
  }
  return result;
}

using NameSet = std::unordered_set<std::string_view>;

// The spelling under which the checkpoint holds `name` itself, its tied names aside.
std::optional<std::string> find_spelling(
    const Checkpoint& checkpoint,
    const std::string& name,
    const std::vector<std::string>& prefixes,
    const NameSet& wanted) {
  for (std::string& spelling : spellings(name, prefixes)) {
    if (checkpoint.contains(spelling) && (spelling == name || !wanted.contains(spelling))) {
      return std::move(spelling);
    }
  }
  return std::nullopt;
}

[[noreturn]] void throw_missing(
    const WantedTensor& tensor,
    const std::vector<std::string>* group,
    const Checkpoint& checkpoint,
    const NameRules& rules) {
  std::string tried = "prefixes tried: ";
  tried += rules.prefixes.empty() ? "none" : list_text(rules.prefixes, rules.prefixes.size());
  if (group != nullptr) {
    tried += fmt::format("; tied names: {}", list_text(*group, group->size()));
  }
  const auto& names = checkpoint.names();
  throw Error(
      ErrorCode::input,
      fmt::format(
          "{} {} is missing in {} ({}); its {} tensors include {}",
          tensor.kind == WantedKind::buffer ? "buffer" : "weight", in_quotes(tensor.name), checkpoint.path().string(),
          tried, names.size(), names.empty() ? "none" : list_text(nearest_names(tensor.name, names), 3)),
      "does the checkpoint belong to this config.json?");
}

void check_shape(const WantedTensor& tensor, const std::string& source, const Checkpoint& checkpoint) {
  const auto& shape = checkpoint.info(source).shape;
  if (shape != tensor.shape) {
    throw_input(
        "{} has shape {} in {}, the model's {} has shape {}", in_quotes(source), shape_text(shape),
        checkpoint.path().string(), in_quotes(tensor.name), shape_text(tensor.shape));
  }
}

bool same_values(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && at::equal(a, b.to(a.scalar_type()));
}

bool is_ignored(const std::string& name, const NameRules& rules) {
  return std::any_of(rules.ignored.begin(), rules.ignored.end(), [&](const std::string& pattern) {
    return matches_pattern(pattern, name);
  });
}

}  // namespace

Resolution resolve_names(
    const Checkpoint& checkpoint, const std::vector<WantedTensor>& wanted, const NameRules& rules) {
  NameSet wanted_names;
  for (const WantedTensor& tensor : wanted) {
    wanted_names.insert(tensor.name);
  }
  const auto find = [&](const std::string& name) {
    return find_spelling(checkpoint, name, rules.prefixes, wanted_names);
  };
  struct Group {
    const std::vector<std::string>* names = nullptr;
    std::optional<std::string> source;
  };
  std::unordered_map<std::string_view, Group> group_of;
  std::unordered_set<std::string> known;  // names that are used, or are a tied tensor's second copy
  for (const auto& names : rules.tied) {
    Group group{&names, {}};
    for (const std::string& name : names) {
      if (const auto spelling = find(name)) {
        group.source = group.source ? group.source : spelling;
        known.insert(*spelling);
      }
    }
    for (const std::string& name : names) {
      group_of.emplace(name, group);
    }
  }

  Resolution result;
  std::unordered_map<std::string, const WantedTensor*> users;
  for (const WantedTensor& tensor : wanted) {
    const auto found = group_of.find(tensor.name);
    const Group group = found == group_of.end() ? Group{nullptr, find(tensor.name)} : found->second;
    if (!group.source) {
      if (tensor.kind != WantedKind::optional) {
        throw_missing(tensor, group.names, checkpoint, rules);
      }
      result.absent.push_back(tensor.name);
      continue;
    }
    check_shape(tensor, *group.source, checkpoint);
    const auto [user, first] = users.emplace(*group.source, &tensor);
    if (!first) {
      const auto other = group_of.find(user->second->name);
      if (group.names == nullptr || other == group_of.end() || other->second.names != group.names) {
        throw_input(
            "{} in {} fits two weights of the model, {} and {}, which are not tied", in_quotes(*group.source),
            checkpoint.path().string(), in_quotes(user->second->name), in_quotes(tensor.name));
      }
    }
    known.insert(*group.source);
    result.source.emplace(tensor.name, *group.source);
  }
  for (const std::string& name : checkpoint.names()) {
    if (!known.contains(name) && !is_ignored(name, rules)) {
      result.surplus.push_back(name);
    }
  }
  return result;
}

void warn_of_surplus(const Resolution& resolution, const Checkpoint& checkpoint) {
  if (!resolution.surplus.empty()) {
    log_warning(
        "{} of {} tensors in {} are not used by the model: {}", resolution.surplus.size(), checkpoint.names().size(),
        checkpoint.path().string(), list_text(resolution.surplus, kNamesInWarning));
  }
}

std::vector<std::vector<std::string>> tied_by_content(const Checkpoint& checkpoint, const NameRules& rules) {
  std::vector<std::vector<std::string>> result;
  for (const auto& group : rules.tied) {
    std::vector<std::string> kept;
    std::optional<std::string> first;
    for (const std::string& member : group) {
      const auto spelling = find_spelling(checkpoint, member, rules.prefixes, {});
      if (spelling && first && !same_values(checkpoint.tensor(*first), checkpoint.tensor(*spelling))) {
        continue;
      }
      kept.push_back(member);
      first = first ? first : spelling;
    }
    if (kept.size() > 1) {
      result.push_back(std::move(kept));
    }
  }
  return result;
}

bool matches_pattern(std::string_view pattern, std::string_view text) {
  // Greedy, going back to the last * on a mismatch: linear for one *, never exponential.
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace shardpipe::checkpoint
