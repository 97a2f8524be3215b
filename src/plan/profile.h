#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>

#include "graph/graph.h"
#include "partition/balance.h"
#include "tensor/collectives.h"

namespace shardpipe::plan {

/// The tensor of a parameter, buffer or shared state.
using LoadTensor = std::function<at::Tensor(const graph::Value& value)>;

/// Sizes of a graph's named dimensions that follow from the shapes of inputs; those of `sizes` where none does.
graph::Dimensions dimensions_of(
    const graph::Graph& graph, const std::map<std::string, at::Tensor>& inputs, const graph::Dimensions& sizes = {});

/// A tensor for an input or state whose content does not matter; one number for an input that is a number.
at::Tensor zeros(const graph::Value& value, const graph::Dimensions& sizes);

/// What a graph costs by measurement.
struct Profile {
  partition::Costs costs;  ///< seconds; transfers are the cost model's
  double together = 1;     ///< times the work of one rank that so many do at the same time
};

/// Runs the layers one after the other with the threads of this process, some passes over all of them, so that the
/// caches and what is allocated are as in earnest; takes each layer's typical time and divides it among the layer's
/// nodes as the cost model does. For several ranks then runs as many parts of the layers at the same time, each part
/// again and again, and compares: they share cores, caches and memory. `tp`: the group for collectives along "tp", if
/// the graph has some; used by several threads. `inputs`: an example; zeros of the named dimensions' sizes (16 where
/// `sizes` has none) where it lacks one. Throws Error(usage) when the example cannot be run.
Profile measure_costs(
    const graph::Graph& graph,
    const std::map<std::string, at::Tensor>& inputs,
    const graph::Dimensions& sizes,
    const LoadTensor& load,
    int ranks = 1,
    tensor::AxisGroup* tp = nullptr);

}  // namespace shardpipe::plan
