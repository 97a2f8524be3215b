#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace shardpipe::runtime {

/// What a command (generate, run, train) does at the edges of a step: it gives the inputs, takes the outputs, and knows
/// which microbatches take part. Every rank has one, and all answer alike, so that both ends of a message know its
/// shape.
class StepDriver {
 public:
  StepDriver() = default;
  virtual ~StepDriver() = default;
  StepDriver(const StepDriver&) = delete;
  StepDriver& operator=(const StepDriver&) = delete;

  /// Whether the microbatch takes part in its current step; the actions of one that does not are passed over.
  virtual bool active(int microbatch) const = 0;
  /// An input of the graph, asked for right before the forward of each stage that uses it.
  virtual c10::IValue input(int microbatch, const std::string& name) = 0;
  /// The graph's outputs that a stage computed, right after its forward; in the order of the stage's outputs.
  virtual void outputs(int microbatch, const std::vector<std::pair<std::string, c10::IValue>>& values) = 0;
};

/// The driver of steps whose messages have shapes that every rank can compute: generation.
class TokenDriver : public StepDriver {
 public:
  /// Values of the graph's named dimensions in the microbatch's current step.
  virtual const graph::Dimensions& dimensions(int microbatch) const = 0;
  /// The tensor that SEND_T sends and RECV_T receives into: what the last stage chose for the microbatch.
  virtual at::Tensor tokens(int microbatch) = 0;
  /// tokens() holds the choice of the current step (sent, or received): moves the microbatch to its next step.
  virtual void advance(int microbatch) = 0;
};

/// Values that a stage computed for other stages, then outputs of the model.
using StageValues = std::vector<std::pair<graph::ValueId, c10::IValue>>;

/// The driver of a batch of microbatches, with backwards or without.
class BatchDriver : public StepDriver {
 public:
  bool active(int /*microbatch*/) const override { return true; }
  /// What a stage's forward computed for other stages and for the caller, if anybody wants to look at it.
  virtual void computed(int /*stage*/, int /*microbatch*/, const StageValues& /*values*/) {}
  /// Whether the loss is, or is made of, this output.
  virtual bool differentiates(const std::string& output) const = 0;
  /// The loss's gradient with respect to the output of the microbatch; undefined for none.
  virtual at::Tensor gradient(int microbatch, const std::string& output) = 0;
};

}  // namespace shardpipe::runtime
