#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shardpipe::pt2 {

/// One module of a call stack: "model.layers.0" and "LlamaDecoderLayer".
struct ModuleCall {
  std::string path;
  std::string class_name;
};

/// The modules that were running when a node was recorded, outermost first, from the text that torch.export writes
/// ("key,path,type;…"). Empty when the node has none. The second call of one module has the path of the first.
std::vector<ModuleCall> parse_module_stack(std::string_view text);

/// Nodes that no module is known of: the longest path that holds the nearest known neighbours on both sides.
std::vector<std::string> fill_paths(const std::vector<std::optional<std::string>>& paths);

}  // namespace shardpipe::pt2
