#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace shardpipe::tensor {

/// What collectives took so far.
struct AxisTime {
  int64_t ns = 0;       ///< all in all
  int64_t wait_ns = 0;  ///< of it, waiting for other parts (and for messages, where the transport consists of them)
  int64_t bytes = 0;    ///< brought by this part
};

/// What the collective operators of a graph talk through: the parts of an axis, seen from one of them. All parts make
/// the same calls in the same order. Errors are the implementation's.
class AxisGroup {
 public:
  AxisGroup() = default;
  virtual ~AxisGroup() = default;
  AxisGroup(const AxisGroup&) = delete;
  AxisGroup& operator=(const AxisGroup&) = delete;

  virtual int parts() const = 0;
  virtual int part() const = 0;
  /// Replaces a contiguous tensor by its sum over the parts, added in the order of the parts: the same bits on each.
  virtual void all_reduce(at::Tensor& tensor) = 0;
  /// Fills each of `pieces` (contiguous, by part, whose shapes may differ) with that part's `mine` (contiguous).
  virtual void all_gather(const at::Tensor& mine, std::vector<at::Tensor>& pieces) = 0;
  virtual AxisTime time() const { return {}; }
};

/// While it lives, the collective operators that this thread calls, also in backwards, use the group for its axis.
/// Backwards of what is on a device run on this thread too, then, and not on one of LibTorch's own.
class AxisScope {
 public:
  AxisScope(std::string axis, AxisGroup& group);
  ~AxisScope();
  AxisScope(const AxisScope&) = delete;
  AxisScope& operator=(const AxisScope&) = delete;

 private:
  std::string axis_;
  AxisGroup* before_;
  bool threads_before_;
};

/// The group of this thread for an axis. Throws Error(internal) without an AxisScope of it.
AxisGroup& axis_group(std::string_view axis);

/// Registers, under the namespace `shardpipe`, with gradients (x is whole or one part's piece or summand of a whole):
///   all_reduce(Tensor x, str axis) -> Tensor
///     the sum of the parts' summands; its gradient goes to each summand as it is
///   enter(Tensor x, str axis) -> Tensor
///     x, where a whole tensor begins to be used piecewise; its gradient is the sum of the parts' gradients
///   all_gather(Tensor x, int dim, int[] blocks, int[] units, str axis) -> Tensor
///     the whole from its pieces; its gradient is this part's piece
///   take_part(Tensor x, int dim, int[] blocks, int[] units, str axis) -> Tensor
///     this part's piece; its gradient is gathered
///   embedding_part(Tensor weight, Tensor indices, int rows, int[] units, int padding_idx, str axis) -> Tensor
///     rows of a table of so many, of which this part holds its piece; zero for those of others. padding_idx as in
///     aten::embedding
///   cross_entropy_part(Tensor x, Tensor target, int classes, int[] units, int reduction, int ignore_index, str axis)
///     -> Tensor: see cross_entropy.h
/// Without an AxisScope of the axis they throw Error(internal). Further calls do nothing; safe from several threads.
void register_collectives();

}  // namespace shardpipe::tensor
