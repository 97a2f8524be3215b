#include "frontend/pt2/tree.h"

#include "base/error.h"

namespace shardpipe::pt2 {
namespace {

// The strings of a list; empty when it is another kind of value.
std::vector<std::string> strings(const Document& json) {
  std::vector<std::string> result;
  if (json.is_array()) {
    for (const Document& item : json) {
      if (!item.is_string() && !item.is_number_integer()) {
        return {};
      }
      result.push_back(item.is_string() ? text_of(item) : std::to_string(integer_of(item)));
    }
  }
  return result;
}

// What the children of a node are called. The context holds the keys of a dictionary or output class; a dataclass and a
// defaultdict have them one level deeper.
std::vector<std::string> child_names(const Document& node, size_t count) {
  std::vector<std::string> names;
  const auto context = node.find("context");
  if (context != node.end() && context->is_string()) {
    const Document parsed = Document::parse(text_of(*context), nullptr, false);  // free text for some types
    names = strings(parsed);
    for (size_t i = 0; parsed.is_array() && i < parsed.size() && names.size() != count; ++i) {
      names = strings(parsed[i]);
    }
  }
  if (names.size() != count) {
    names.clear();
    for (size_t i = 0; i < count; ++i) {
      names.push_back(std::to_string(i));
    }
  }
  return names;
}

// A hostile tree would repeat a long name in each of many leaves.
constexpr size_t kMaxPathBytes = 4096;

std::string joined(const std::string& path, const std::string& name) {
  if (path.size() + name.size() > kMaxPathBytes) {
    throw_input("a call's specification has a path of more than {} bytes", kMaxPathBytes);
  }
  return path.empty() ? name : path + "." + name;
}

void collect(const Document& node, const std::string& path, std::vector<std::string>& leaves) {
  if (node.at("type").is_null()) {
    leaves.push_back(path);
    return;
  }
  const auto& children = list_of(node.at("children_spec"));
  const std::vector<std::string> names = child_names(node, children.size());
  for (size_t i = 0; i < children.size(); ++i) {
    collect(children[i], joined(path, names[i]), leaves);
  }
}

// The tree of "[1, {…}]".
Document tree_of(const std::string& spec) {
  const Document parsed = parse_sorted_json(spec, "a call's specification");
  constexpr int64_t kVersion = 1;
  if (integer_of(parsed.at(0)) != kVersion) {
    throw_input("a call's specification of version {}", integer_of(parsed.at(0)));
  }
  return parsed.at(1);
}

}  // namespace

std::vector<std::string> input_names(const std::string& spec, const std::vector<std::string>& forward_names) {
  std::vector<std::string> leaves;
  try {
    const Document tree = tree_of(spec);
    const auto& call = list_of(tree.at("children_spec"));
    if (call.size() != 2) {
      return {};
    }
    const auto& positional = list_of(call[0].at("children_spec"));
    for (size_t i = 0; i < positional.size(); ++i) {
      if (i >= forward_names.size()) {
        return {};
      }
      collect(positional[i], forward_names[i], leaves);
    }
    collect(call[1], "", leaves);
  } catch (const Document::exception&) {
    return {};
  } catch (const Error&) {
    return {};
  }
  return leaves;
}

std::vector<std::string> output_names(const std::string& spec) {
  std::vector<std::string> leaves;
  try {
    const Document tree = tree_of(spec);
    collect(tree, tree.at("type").is_null() ? "0" : "", leaves);
  } catch (const Document::exception&) {
    return {};
  } catch (const Error&) {
    return {};
  }
  return leaves;
}

}  // namespace shardpipe::pt2
