#include "comm/reduce_tensors.h"

#include <ATen/Functions.h>

#include <limits>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

/// What elements of a type are held as while they are combined.
struct Form {
  at::ScalarType held;             ///< integers: of the same size and signed; bool: bytes of 0 and 1
  at::ScalarType combined;         ///< differs for floats of 16 and 8 bits only
  bool is_unsigned_order = false;  ///< integers that `held` would put in another order
};

Form form_of(at::ScalarType type, ReduceOp op) {
  switch (type) {
    case at::kFloat:
    case at::kDouble:
      return {type, type};
    case at::kBFloat16:
    case at::kHalf:
    case at::kFloat8_e4m3fn:
    case at::kFloat8_e4m3fnuz:
    case at::kFloat8_e5m2:
    case at::kFloat8_e5m2fnuz:
      return {type, at::kFloat};
    case at::kByte:
    case at::kChar:
    case at::kShort:
    case at::kInt:
    case at::kLong:
      return {type, type};
    case at::kBool:
      return {at::kByte, at::kByte};
    case at::kUInt16:
      return {at::kShort, at::kShort, true};
    case at::kUInt32:
      return {at::kInt, at::kInt, true};
    case at::kUInt64:
      return {at::kLong, at::kLong, true};
    case at::kComplexFloat:
    case at::kComplexDouble:
      if (op == ReduceOp::sum || op == ReduceOp::product) {
        return {type, type};
      }
      break;
    default:
      break;
  }
  throw_internal("tensors of {} cannot be reduced by {}", c10::toString(type), to_string(op));
}

/// The bit that turns the order of unsigned integers into that of signed ones.
int64_t sign_bit(at::ScalarType type) {
  return type == at::kShort ? std::numeric_limits<int16_t>::min()
         : type == at::kInt ? std::numeric_limits<int32_t>::min()
                            : std::numeric_limits<int64_t>::min();
}

/// Of two zeros the first, where at::minimum and at::maximum take either.
at::Tensor extremum(const at::Tensor& so_far, const at::Tensor& next, bool is_min) {
  at::Tensor take = is_min ? at::lt(next, so_far) : at::lt(so_far, next);
  if (at::isFloatingType(next.scalar_type())) {
    take = take.logical_or_(at::isnan(next));
  }
  return at::where(take, next, so_far);
}

}  // namespace

void reduce_by_operators(const at::Tensor& out, const std::vector<at::Tensor>& parts, ReduceOp op) {
  if (out.scalar_type() == at::kBool) {
    op = op == ReduceOp::sum || op == ReduceOp::max ? ReduceOp::max : ReduceOp::min;
  }
  const Form form = form_of(out.scalar_type(), op);
  if (out.numel() == 0) {
    return;
  }
  const bool is_order = op == ReduceOp::min || op == ReduceOp::max;
  const auto operand = [&](const at::Tensor& part) {
    at::Tensor value = part.view({-1}).view(form.held).to(form.combined);
    return is_order && form.is_unsigned_order ? value.bitwise_xor(sign_bit(form.held)) : value;
  };
  at::Tensor sum = operand(parts[0]);
  for (size_t i = 1; i < parts.size(); ++i) {
    const at::Tensor next = operand(parts[i]);
    sum = op == ReduceOp::sum       ? at::add(sum, next)
          : op == ReduceOp::product ? at::mul(sum, next)
                                    : extremum(sum, next, op == ReduceOp::min);
  }
  if (is_order && form.is_unsigned_order) {
    sum = sum.bitwise_xor(sign_bit(form.held));
  }
  out.view({-1}).view(form.held).copy_(sum);
}

void reduce_tensors(const at::Tensor& out, const std::vector<at::Tensor>& parts, ReduceOp op) {
  if (!out.device().is_cpu()) {
    reduce_by_operators(out, parts, op);
    return;
  }
  std::vector<const void*> ins;
  ins.reserve(parts.size());
  for (const at::Tensor& part : parts) {
    ins.push_back(part.const_data_ptr());
  }
  reduce(out.scalar_type(), op, out.mutable_data_ptr(), ins, out.numel());
}

}  // namespace shardpipe::comm
