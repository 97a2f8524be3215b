#include "tensor/collectives.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/AutogradState.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <map>
#include <utility>

#include "base/error.h"
#include "tensor/cross_entropy.h"
#include "tensor/placement.h"

namespace shardpipe::tensor {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

thread_local std::map<std::string, AxisGroup*, std::less<>> groups;

at::Tensor reduced(const at::Tensor& x, std::string_view axis) {
  at::Tensor sum = x.clone(at::MemoryFormat::Contiguous);
  axis_group(axis).all_reduce(sum);
  return sum;
}

Shard shard_of(int64_t dim, at::IntArrayRef blocks, at::IntArrayRef units) {
  return {static_cast<int>(dim), blocks.vec(), units.vec()};
}

at::Tensor gathered(const at::Tensor& x, const Shard& shard, std::string_view axis) {
  AxisGroup& group = axis_group(axis);
  const int64_t extent = shard.whole(x.size(shard.dim), group.part());
  std::vector<at::Tensor> pieces;
  for (int part = 0; part < group.parts(); ++part) {
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes[static_cast<size_t>(shard.dim)] = shard.local(extent, part);
    pieces.push_back(at::empty(sizes, x.options()));
  }
  group.all_gather(x.contiguous(), pieces);
  return join(pieces, shard);
}

at::Tensor piece(const at::Tensor& x, const Shard& shard, std::string_view axis) {
  return take(x, shard, axis_group(axis).part());
}

// Each operator on plain tensors, and with its gradient.

at::Tensor all_reduce(const at::Tensor& x, std::string_view axis) {
  return reduced(x, axis);
}

struct AllReduce : Function<AllReduce> {
  static at::Tensor forward(AutogradContext* /*context*/, const at::Tensor& x, const std::string& axis) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return reduced(x, axis);
  }
  static variable_list backward(AutogradContext* /*context*/, variable_list gradients) { return {gradients[0], {}}; }
};

at::Tensor enter(const at::Tensor& x, std::string_view /*axis*/) {
  return x.view_as(x);
}

struct Enter : Function<Enter> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::string& axis) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->saved_data["axis"] = axis;
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {reduced(gradients[0], context->saved_data["axis"].toStringRef()), {}};
  }
};

void save(AutogradContext* context, const Shard& shard, const std::string& axis) {
  context->saved_data["dim"] = static_cast<int64_t>(shard.dim);
  context->saved_data["blocks"] = shard.blocks;
  context->saved_data["units"] = shard.units;
  context->saved_data["axis"] = axis;
}

Shard saved_shard(AutogradContext* context) {
  return {
      static_cast<int>(context->saved_data["dim"].toInt()), context->saved_data["blocks"].toIntVector(),
      context->saved_data["units"].toIntVector()};
}

at::Tensor all_gather(
    const at::Tensor& x, int64_t dim, at::IntArrayRef blocks, at::IntArrayRef units, std::string_view axis) {
  return gathered(x, shard_of(dim, blocks, units), axis);
}

struct AllGather : Function<AllGather> {
  static at::Tensor forward(
      AutogradContext* context, const at::Tensor& x, const Shard& shard, const std::string& axis) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    save(context, shard, axis);
    return gathered(x, shard, axis);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {piece(gradients[0], saved_shard(context), context->saved_data["axis"].toStringRef()).contiguous(), {}, {}};
  }
};

at::Tensor take_part(
    const at::Tensor& x, int64_t dim, at::IntArrayRef blocks, at::IntArrayRef units, std::string_view axis) {
  return piece(x, shard_of(dim, blocks, units), axis).contiguous();
}

struct TakePart : Function<TakePart> {
  static at::Tensor forward(
      AutogradContext* context, const at::Tensor& x, const Shard& shard, const std::string& axis) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    save(context, shard, axis);
    return piece(x, shard, axis).clone(at::MemoryFormat::Contiguous);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {gathered(gradients[0], saved_shard(context), context->saved_data["axis"].toStringRef()), {}, {}};
  }
};

at::Tensor all_reduce_autograd(const at::Tensor& x, std::string_view axis) {
  return AllReduce::apply(x, std::string(axis));
}

at::Tensor enter_autograd(const at::Tensor& x, std::string_view axis) {
  return Enter::apply(x, std::string(axis));
}

at::Tensor all_gather_autograd(
    const at::Tensor& x, int64_t dim, at::IntArrayRef blocks, at::IntArrayRef units, std::string_view axis) {
  return AllGather::apply(x, shard_of(dim, blocks, units), std::string(axis));
}

at::Tensor take_part_autograd(
    const at::Tensor& x, int64_t dim, at::IntArrayRef blocks, at::IntArrayRef units, std::string_view axis) {
  return TakePart::apply(x, shard_of(dim, blocks, units), std::string(axis));
}

// Made of operators that have gradients.
at::Tensor embedding_part(
    const at::Tensor& weight,
    const at::Tensor& indices,
    int64_t rows,
    at::IntArrayRef units,
    int64_t padding_idx,
    std::string_view axis) {
  if (weight.size(0) == 0) {
    std::vector<int64_t> sizes = indices.sizes().vec();
    sizes.push_back(weight.size(1));
    return at::zeros(sizes, weight.options().requires_grad(false));
  }
  const int64_t first = Shard{0, {rows}, units.vec()}.begin(rows, axis_group(axis).part());
  const at::Tensor local = indices - first;
  const at::Tensor elsewhere = local.lt(0).logical_or_(local.ge(weight.size(0)));
  const int64_t padding = padding_idx - first;
  const bool pads = padding_idx >= 0 && padding >= 0 && padding < weight.size(0);
  // Row 0 stands for the others; what it gives, and the gradient it gets, is masked.
  const at::Tensor found = at::embedding(weight, local.masked_fill(elsewhere, 0), pads ? padding : -1);
  return found.masked_fill(elsewhere.unsqueeze(-1), 0);
}

}  // namespace

AxisGroup& axis_group(std::string_view axis) {
  const auto at = groups.find(axis);
  if (at == groups.end() || at->second == nullptr) {
    throw_internal("a collective operator over the axis \"{}\" is called outside of it", axis);
  }
  return *at->second;
}

AxisScope::AxisScope(std::string axis, AxisGroup& group)
    : axis_(std::move(axis)),
      before_(std::exchange(groups[axis_], &group)),
      threads_before_(c10::AutogradState::get_tls_state().get_multithreading_enabled()) {
  c10::AutogradState::get_tls_state().set_multithreading_enabled(false);
}

AxisScope::~AxisScope() {
  c10::AutogradState::get_tls_state().set_multithreading_enabled(threads_before_);
  groups[axis_] = before_;
}

void register_collectives() {
  static const bool registered = [] {
    static torch::Library definitions(torch::Library::FRAGMENT, "shardpipe", std::nullopt, __FILE__, __LINE__);
    definitions.def("all_reduce(Tensor x, str axis) -> Tensor");
    definitions.def("enter(Tensor x, str axis) -> Tensor");
    definitions.def("all_gather(Tensor x, int dim, int[] blocks, int[] units, str axis) -> Tensor");
    definitions.def("take_part(Tensor x, int dim, int[] blocks, int[] units, str axis) -> Tensor");
    definitions.def(
        "embedding_part(Tensor weight, Tensor indices, int rows, int[] units, int padding_idx, str axis) -> Tensor");
    definitions.impl("embedding_part", torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, embedding_part));
    definitions.def(
        "cross_entropy_part(Tensor x, Tensor target, int classes, int[] units, int reduction, int ignore_index, str "
        "axis) "
        "-> Tensor");
    definitions.impl(
        "cross_entropy_part", torch::dispatch(c10::DispatchKey::CompositeImplicitAutograd, cross_entropy_part));
    static torch::Library plain(
        torch::Library::IMPL, "shardpipe", c10::DispatchKey::CompositeExplicitAutograd, __FILE__, __LINE__);
    plain.impl("all_reduce", all_reduce);
    plain.impl("enter", enter);
    plain.impl("all_gather", all_gather);
    plain.impl("take_part", take_part);
    static torch::Library autograd(torch::Library::IMPL, "shardpipe", c10::DispatchKey::Autograd, __FILE__, __LINE__);
    autograd.impl("all_reduce", all_reduce_autograd);
    autograd.impl("enter", enter_autograd);
    autograd.impl("all_gather", all_gather_autograd);
    autograd.impl("take_part", take_part_autograd);
    return true;
  }();
  (void)registered;
}

}  // namespace shardpipe::tensor
