#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <vector>

namespace shardpipe::runtime {

/// The backward of a recorded computation in two parts: the gradients of its inputs, which another stage waits for, and
/// those of its weights, which nobody does (zero-bubble schedules, arXiv 2401.10241). Together they compute what one
/// backward would, each operator's gradient once: the first part keeps what arrives at the operators that use weights.
///
/// A weight that several operators use on the way to the inputs, one behind the other, would be reached twice; then the
/// first part computes everything and the second only hands it out.
class SplitBackward {
 public:
  using Tensors = torch::autograd::variable_list;

  /// `gradients`: of the roots, all defined. `inputs`, `weights`: leaves that require grad.
  SplitBackward(Tensors roots, Tensors gradients, Tensors inputs, Tensors weights);

  /// By input; undefined where the roots do not depend on it. Call once, first.
  Tensors input_gradients();
  /// By weight; undefined where the roots do not depend on it. Call once, after input_gradients(); ends the recording.
  Tensors weight_gradients();

 private:
  /// An operator on the way to the inputs that also leads to weights, and the gradients that arrived at it.
  struct Station {
    c10::intrusive_ptr<torch::autograd::Node> node;
    std::vector<size_t> weights;
    Tensors arrived;  // by result of the operator
  };

  bool find_stations();

  Tensors roots_;
  Tensors gradients_;
  Tensors inputs_;
  Tensors weights_;
  std::vector<Station> stations_;
  std::vector<size_t> from_roots_;  // weights that are reached without a station
  bool split_ = false;
  Tensors ready_;  // weights' gradients, where the backward is not split
};

}  // namespace shardpipe::runtime
