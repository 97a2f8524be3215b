#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "frontend/pt2/arguments.h"
#include "frontend/pt2/modules.h"
#include "frontend/pt2/symbols.h"
#include "frontend/pt2/targets.h"

namespace shardpipe::pt2 {

/// What surrounds a node: no_grad and autocast regions, and the module of the operator whose sub-graph holds it.
struct Region {
  bool grad_enabled = true;
  std::optional<graph::Autocast> autocast;
  std::optional<std::string> module;
};

/// Turns the nodes of an exported graph into nodes of ours.
class NodeBuilder {
 public:
  /// `device`: where the program was exported, "cpu" or "meta": autocast regions of other devices do nothing.
  NodeBuilder(const Symbols& symbols, std::string device) : symbols_(symbols), device_(std::move(device)) {}

  /// Adds the nodes of `exported` ({"nodes", "tensor_values", …}) to `graph` and their results to `scope`. Sub-graphs
  /// of regions are put in line, those of cond become branches; assertions are left out. Throws Error(input) naming
  /// node, operator and module path.
  void add(graph::Graph& graph, const Document& exported, Scope& scope, const Region& region);

  /// A value of the graph that holds `argument`: a node makes it of a constant. `module` is that node's.
  graph::ValueId value_of(graph::Graph& graph, const graph::Argument& argument, const std::string& module);

  /// Dtype and shape of the tensor `name` of `exported`, where it says so.
  void describe(graph::Value& value, const std::string& name, const Document& exported) const;

  /// A node that no module is known of, without operator.
  graph::Node unplaced_node();

  /// Gives every node of `graph` its module path, and the graph its modules. Call once, after all nodes were added.
  void set_modules(graph::Graph& graph) const;

 private:
  void add_node(
      graph::Graph& graph, const Document& exported, const Document& json, Scope& scope, const Region& region);
  void add_call(graph::Graph& graph, const Document& exported, const Document& json, Scope& scope, graph::Node node);
  void add_scalar(graph::Graph& graph, const Document& json, Scope& scope, graph::Node node);
  void add_higher_order(
      graph::Graph& graph,
      const Document& exported,
      const Document& json,
      Scope& scope,
      Region region,
      const Target& target);
  graph::Argument as_float(graph::Graph& graph, const graph::Argument& argument, const graph::Node& user);
  graph::Node new_node(const Region& region, std::optional<std::string> module);
  std::shared_ptr<const graph::Graph> branch(
      const Document& sub, const graph::Graph& outer, const graph::Node& node, size_t num_results);

  const Symbols& symbols_;
  std::string device_;
  int32_t next_id_ = 0;
  int32_t next_region_ = 0;
  int depth_ = 0;                                  // of branches
  std::vector<std::optional<std::string>> paths_;  // of the nodes of the outermost graph, by id
  std::map<std::string, std::string> modules_;     // path -> class
};

}  // namespace shardpipe::pt2
