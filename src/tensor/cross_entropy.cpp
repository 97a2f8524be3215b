#include "tensor/cross_entropy.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "tensor/collectives.h"
#include "tensor/placement.h"

namespace shardpipe::tensor {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kMean = 1;
constexpr int64_t kSum = 2;

struct CrossEntropyPart : Function<CrossEntropyPart> {
  static at::Tensor forward(
      AutogradContext* context,
      const at::Tensor& x,
      const at::Tensor& target,
      const Shard& shard,
      int64_t reduction,
      int64_t ignore_index,
      const std::string& axis) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    AxisGroup& group = axis_group(axis);
    const int64_t dim = shard.dim;
    const at::ScalarType dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    // A part without classes has one that nothing falls into.
    const bool empty = x.size(dim) == 0;
    at::Tensor logits = x.to(dtype);
    if (empty) {
      std::vector<int64_t> one = x.sizes().vec();
      one[static_cast<size_t>(dim)] = 1;
      logits = at::full(one, -std::numeric_limits<double>::infinity(), logits.options());
    }

    std::vector<int64_t> sizes = logits.sizes().vec();
    sizes.erase(sizes.begin() + dim);
    std::vector<at::Tensor> maxima;
    for (int part = 0; part < group.parts(); ++part) {
      maxima.push_back(at::empty(sizes, logits.options()));
    }
    group.all_gather(logits.amax(dim).contiguous(), maxima);
    const at::Tensor shifted = logits - at::stack(maxima).amax(0).unsqueeze(dim);
    const at::Tensor exponentials = shifted.exp();

    // The target's logit is one part's; the others add zero.
    const at::Tensor local = target - shard.begin(shard.blocks[0], group.part());
    const at::Tensor ignored = target.eq(ignore_index);
    const at::Tensor elsewhere = local.lt(0).logical_or_(local.ge(x.size(dim))).logical_or_(ignored);
    const at::Tensor row = local.masked_fill(elsewhere, 0).unsqueeze(dim);
    at::Tensor sums =
        at::stack({exponentials.sum(dim), shifted.gather(dim, row).squeeze(dim).masked_fill(elsewhere, 0)});
    group.all_reduce(sums);
    const at::Tensor losses = (sums[0].log() - sums[1]).masked_fill(ignored, 0);

    at::Tensor scale = at::ones({}, logits.options());
    at::Tensor loss = losses;
    if (reduction == kMean) {
      scale = ignored.logical_not().sum().to(dtype).reciprocal();
      loss = losses.sum() * scale;
    } else if (reduction == kSum) {
      loss = losses.sum();
    }
    const at::Tensor softmax = exponentials / sums[0].unsqueeze(dim);
    context->save_for_backward({softmax, row, elsewhere, ignored, scale});
    context->saved_data["dim"] = dim;
    context->saved_data["empty"] = empty;
    context->saved_data["dtype"] = static_cast<int64_t>(x.scalar_type());
    return loss.to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const int64_t dim = context->saved_data["dim"].toInt();
    const at::Tensor& elsewhere = saved[2];
    // softmax - 1 at the target
    const at::Tensor ones = elsewhere.logical_not().unsqueeze(dim).to(saved[0].scalar_type());
    at::Tensor gradient = saved[0].scatter_add(dim, saved[1], ones.neg());
    gradient.masked_fill_(saved[3].unsqueeze(dim), 0);
    const at::Tensor given = gradients[0].to(gradient.scalar_type()) * saved[4];
    gradient.mul_(given.dim() == 0 ? given : given.unsqueeze(dim));
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    if (context->saved_data["empty"].toBool()) {
      gradient = gradient.narrow(dim, 0, 0);
    }
    return {gradient.to(dtype), {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor cross_entropy_part(
    const at::Tensor& x,
    const at::Tensor& target,
    int64_t classes,
    at::IntArrayRef units,
    int64_t reduction,
    int64_t ignore_index,
    std::string_view axis) {
  const Shard shard{x.dim() == 1 ? 0 : 1, {classes}, units.vec()};
  return CrossEntropyPart::apply(x, target, shard, reduction, ignore_index, std::string(axis));
}

}  // namespace shardpipe::tensor
