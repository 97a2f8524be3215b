#include "runtime/split_backward.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace shardpipe::runtime {
namespace {

using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::Node;
using torch::autograd::variable_list;
using Nodes = std::unordered_set<const Node*>;

// Who uses a node's result, for all nodes that the roots depend on.
using Users = std::unordered_map<const Node*, std::vector<c10::intrusive_ptr<Node>>>;

Users find_users(const variable_list& roots) {
  Users users;
  Nodes seen;
  std::vector<c10::intrusive_ptr<Node>> open;
  const auto visit = [&](const c10::intrusive_ptr<Node>& node) {
    if (node && seen.insert(node.get()).second) {
      open.push_back(node);
    }
  };
  for (const at::Tensor& root : roots) {
    visit(torch::autograd::impl::gradient_edge(root).function);
  }
  while (!open.empty()) {
    const c10::intrusive_ptr<Node> node = std::move(open.back());
    open.pop_back();
    for (const Edge& edge : node->next_edges()) {
      if (edge.is_valid()) {
        users[edge.function.get()].push_back(node);
        visit(edge.function);
      }
    }
  }
  return users;
}

// Calls `visit(user)` for all that depends on the node, through those for which it returns true.
template <typename F>
void walk_users(const Users& users, const Node* node, F visit) {
  Nodes seen = {node};
  std::vector<const Node*> open = {node};
  while (!open.empty()) {
    const auto found = users.find(open.back());
    open.pop_back();
    if (found == users.end()) {
      continue;
    }
    for (const c10::intrusive_ptr<Node>& user : found->second) {
      if (seen.insert(user.get()).second && visit(user)) {
        open.push_back(user.get());
      }
    }
  }
}

edge_list edges_of(const variable_list& tensors) {
  edge_list edges;
  for (const at::Tensor& tensor : tensors) {
    edges.push_back(torch::autograd::impl::gradient_edge(tensor));
  }
  return edges;
}

variable_list execute(
    const edge_list& roots, const variable_list& gradients, const edge_list& outputs, bool keep_graph) {
  if (roots.empty() || outputs.empty()) {
    return variable_list(outputs.size());
  }
  return torch::autograd::Engine::get_default_engine().execute(
      roots, gradients, keep_graph, /*create_graph=*/false, /*accumulate_grad=*/false, outputs);
}

}  // namespace

SplitBackward::SplitBackward(Tensors roots, Tensors gradients, Tensors inputs, Tensors weights)
    : roots_(std::move(roots)),
      gradients_(std::move(gradients)),
      inputs_(std::move(inputs)),
      weights_(std::move(weights)),
      ready_(weights_.size()) {
  split_ = find_stations();
  if (!split_) {  // those that were found before
    stations_.clear();
    from_roots_.clear();
  }
}

bool SplitBackward::find_stations() {
  const Users users = find_users(roots_);
  Nodes to_inputs;  // nodes through which a gradient flows to an input
  for (const Edge& edge : edges_of(inputs_)) {
    walk_users(users, edge.function.get(), [&](const auto& user) { return to_inputs.insert(user.get()).second; });
  }
  Nodes root_nodes;
  for (const Edge& edge : edges_of(roots_)) {
    root_nodes.insert(edge.function.get());
  }
  const edge_list leaves = edges_of(weights_);
  for (size_t w = 0; w < weights_.size(); ++w) {
    std::vector<c10::intrusive_ptr<Node>> met;
    bool root = root_nodes.count(leaves[w].function.get()) > 0;
    walk_users(users, leaves[w].function.get(), [&](const c10::intrusive_ptr<Node>& user) {
      if (to_inputs.count(user.get()) > 0) {
        met.push_back(user);
        return false;
      }
      root = root || root_nodes.count(user.get()) > 0;
      return true;
    });
    if (met.size() + (root ? 1 : 0) > 1) {
      return false;
    }
    if (root) {
      from_roots_.push_back(w);
    } else if (!met.empty()) {
      auto station =
          std::find_if(stations_.begin(), stations_.end(), [&](const Station& known) { return known.node == met[0]; });
      if (station == stations_.end()) {
        station = stations_.insert(stations_.end(), Station{met[0], {}, {}});
      }
      station->weights.push_back(w);
    }
  }
  return true;
}

SplitBackward::Tensors SplitBackward::input_gradients() {
  const edge_list roots = edges_of(roots_);
  edge_list wanted = edges_of(inputs_);
  if (!split_) {
    const edge_list weights = edges_of(weights_);
    wanted.insert(wanted.end(), weights.begin(), weights.end());
    Tensors all = execute(roots, gradients_, wanted, false);
    const auto middle = all.begin() + static_cast<ptrdiff_t>(inputs_.size());
    ready_.assign(middle, all.end());
    all.erase(middle, all.end());
    roots_.clear();
    return all;
  }
  for (const Station& station : stations_) {
    for (uint32_t result = 0; result < station.node->num_inputs(); ++result) {
      wanted.emplace_back(station.node, result);
    }
  }
  Tensors all = inputs_.empty() ? Tensors(wanted.size()) : execute(roots, gradients_, wanted, true);
  auto next = all.begin() + static_cast<ptrdiff_t>(inputs_.size());
  for (Station& station : stations_) {
    const auto end = next + static_cast<ptrdiff_t>(station.node->num_inputs());
    station.arrived.assign(next, end);
    next = end;
  }
  all.resize(inputs_.size());
  if (from_roots_.empty()) {
    roots_.clear();
    gradients_.clear();
  }
  return all;
}

SplitBackward::Tensors SplitBackward::weight_gradients() {
  const auto take = [&](const edge_list& roots, const Tensors& gradients, const std::vector<size_t>& weights) {
    edge_list wanted;
    for (const size_t w : weights) {
      wanted.push_back(torch::autograd::impl::gradient_edge(weights_[w]));
    }
    Tensors found = execute(roots, gradients, wanted, false);
    for (size_t i = 0; i < weights.size(); ++i) {
      ready_[weights[i]] = std::move(found[i]);
    }
  };
  for (Station& station : stations_) {
    edge_list roots;
    Tensors gradients;
    for (uint32_t result = 0; result < station.arrived.size(); ++result) {
      if (station.arrived[result].defined()) {
        roots.emplace_back(station.node, result);
        gradients.push_back(std::move(station.arrived[result]));
      }
    }
    take(roots, gradients, station.weights);
  }
  if (!from_roots_.empty()) {
    take(edges_of(roots_), gradients_, from_roots_);
  }
  stations_.clear();
  roots_.clear();
  gradients_.clear();
  return std::move(ready_);
}

}  // namespace shardpipe::runtime
