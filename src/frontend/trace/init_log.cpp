#include "frontend/trace/init_log.h"

#include <ATen/core/enum_tag.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "graph/device.h"
#include "graph/graph.h"

namespace shardpipe::trace {
namespace {

const c10::StorageImpl* storage_of(const at::Tensor& tensor) {
  return tensor.storage().unsafeGetStorageImpl();
}

// In-place operators that set every element of their first argument.
bool sets_all(const c10::OperatorHandle& op) {
  static const std::set<std::string> names = {"aten::uniform_",     "aten::normal_",   "aten::fill_",
                                              "aten::zero_",        "aten::copy_",     "aten::random_",
                                              "aten::bernoulli_",   "aten::cauchy_",   "aten::log_normal_",
                                              "aten::exponential_", "aten::geometric_"};
  return names.count(op.operator_name().name) > 0;
}

bool covers_storage(const at::Tensor& tensor) {
  return tensor.is_non_overlapping_and_dense() && tensor.storage_offset() == 0 &&
         tensor.nbytes() == tensor.storage().nbytes();
}

}  // namespace

InitialisationLog::TensorId InitialisationLog::add(const at::Tensor& tensor, const at::Tensor& real) {
  const auto id = static_cast<TensorId>(known_.size());
  known_.push_back(
      {tensor, tensor.storage(), tensor.sizes().vec(), tensor.strides().vec(), tensor.storage_offset(), kNoCall, real});
  ids_[tensor.unsafeGetTensorImpl()] = id;
  first_on_.try_emplace(storage_of(tensor), id);
  return id;
}

bool InitialisationLog::is_current(const Known& known, const at::Tensor& tensor) const {
  return known.storage.unsafeGetStorageImpl() == storage_of(tensor) && known.sizes == tensor.sizes() &&
         known.strides == tensor.strides() && known.offset == tensor.storage_offset();
}

// set_data(), data() and torch::empty() make tensor objects that no operator returns.
InitialisationLog::TensorId InitialisationLog::add_view(TensorId base, const at::Tensor& tensor) {
  static const c10::OperatorHandle as_strided = graph::find_operator("aten::as_strided");
  Call call{as_strided};
  call.arguments = {
      known_[static_cast<size_t>(base)].tensor, tensor.sizes().vec(), tensor.strides().vec(), tensor.storage_offset()};
  call.operands = {base};
  call.read = {{base, storage_of(tensor)}};
  const TensorId id = add(tensor);
  call.results = {id};
  push(std::move(call));
  return id;
}

InitialisationLog::TensorId InitialisationLog::find(const at::Tensor& tensor) {
  if (!tensor.is_meta()) {
    const auto [outside, added] = outside_.try_emplace(tensor.unsafeGetTensorImpl(), kNone);
    if (added) {
      outside->second = add(to_meta(tensor), tensor);
    }
    return outside->second;
  }
  const auto found = ids_.find(tensor.unsafeGetTensorImpl());
  if (found != ids_.end() && is_current(known_[static_cast<size_t>(found->second)], tensor)) {
    return found->second;
  }
  const auto base = first_on_.find(storage_of(tensor));
  return base == first_on_.end() ? kNone : add_view(base->second, tensor);
}

void InitialisationLog::call(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::vector<c10::Argument>& formals = op.schema().arguments();
  const size_t base = stack->size() - formals.size();
  Call call{op};
  std::vector<at::Tensor> operands;
  std::vector<at::Tensor> written;
  for (size_t i = 0; i < formals.size(); ++i) {
    c10::IValue& value = (*stack)[base + i];
    if (graph::is_device(formals[i])) {
      call.arguments.emplace_back(c10::Device(at::kCPU));
      value = c10::Device(at::kMeta);
      continue;
    }
    value = map_tensors(value, [&](const at::Tensor& tensor) {
      if (!tensor.defined()) {
        return tensor;
      }
      const TensorId id = find(tensor);
      if (id == kNone) {
        throw Error(
            ErrorCode::usage,
            fmt::format(
                "operator {} of the module's factory uses a tensor of shape {} on meta that was made outside of it",
                c10::toString(op.operator_name()), c10::str(tensor.sizes())),
            "make it in the factory, or give an initialiser");
      }
      call.operands.push_back(id);
      operands.push_back(known_[static_cast<size_t>(id)].tensor);
      if (is_written(formals[i])) {
        written.push_back(operands.back());
      }
      return operands.back();
    });
    call.arguments.push_back(value.isList() ? value.deepcopy() : value);
  }
  for (size_t i = 0; i < operands.size(); ++i) {
    call.read.emplace_back(call.operands[i], storage_of(operands[i]));
  }
  const auto on_same_memory = [&](const auto& read) { return read.second == call.read[0].second; };
  if (!written.empty() && sets_all(op) && covers_storage(written[0]) &&
      std::count_if(call.read.begin(), call.read.end(), on_same_memory) == 1) {
    call.overwritten = storage_of(written[0]);
  }
  run_on_meta(op, stack, base);
  bool numbers_only = stack->size() > base;
  const auto made = [&](const at::Tensor& result) {
    numbers_only = false;
    const bool is_new = result.defined() && ids_.count(result.unsafeGetTensorImpl()) == 0;
    call.results.push_back(is_new ? add(result) : kNone);
    if (is_new && call.operands.empty()) {
      for (size_t i = 0; i < formals.size(); ++i) {
        if (formals[i].name() == "dtype") {
          call.arguments[i] = result.scalar_type();  // the default may be another one later
        }
      }
    }
    return result;
  };
  for (size_t r = base; r < stack->size(); ++r) {
    map_tensors((*stack)[r], made);
  }
  if (numbers_only) {
    if (ran_on_cpu(op)) {
      refuse_reading(op);
    }
    return;
  }
  call.random = op.hasTag(at::Tag::nondeterministic_seeded);
  add_call(std::move(call), written);
}

void InitialisationLog::add_call(Call call, const std::vector<at::Tensor>& written) {
  for (const at::Tensor& tensor : written) {
    call.written.push_back(storage_of(tensor));
    refresh(tensor);
  }
  for (const TensorId result : call.results) {
    if (result == kNone) {
      continue;
    }
    // A view shares an operand's memory.
    const Storage storage = known_[static_cast<size_t>(result)].storage.unsafeGetStorageImpl();
    if (std::none_of(call.read.begin(), call.read.end(), [&](const auto& read) { return read.second == storage; })) {
      call.written.push_back(storage);
    }
  }
  push(std::move(call));
}

void InitialisationLog::push(Call call) {
  for (const TensorId result : call.results) {
    if (result != kNone) {
      known_[static_cast<size_t>(result)].call = calls_.size();
    }
  }
  for (const Storage storage : call.written) {
    writers_[storage].push_back(calls_.size());
  }
  calls_.push_back(std::move(call));
}

// Operators such as t_ and resize_ change the object.
void InitialisationLog::refresh(const at::Tensor& tensor) {
  Known& known = known_[static_cast<size_t>(ids_.at(tensor.unsafeGetTensorImpl()))];
  known.storage = tensor.storage();
  known.sizes = tensor.sizes().vec();
  known.strides = tensor.strides().vec();
  known.offset = tensor.storage_offset();
}

}  // namespace shardpipe::trace
