#include "call.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "device.h"

namespace shardpipe::fake_cuda {

namespace {

bool is_device(c10::Device device) {
  return device.type() == c10::DeviceType::CUDA;
}

at::Tensor tensor_over(const c10::Storage& storage, c10::DispatchKey key, const at::Tensor& like) {
  c10::DispatchKeySet keys(key);
  if (like._is_zerotensor()) {
    keys = keys.add(c10::DispatchKey::ZeroTensor);
  }
  auto made =
      at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), keys, like.unsafeGetTensorImpl()->dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  made.unsafeGetTensorImpl()->_set_conj(like.is_conj());
  made.unsafeGetTensorImpl()->_set_neg(like.is_neg());
  return made;
}

// One call: which storage and which tensor of the CPU stands for which of a device.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : op_(op), name_(op.schema().name()) {}

  void run(torch::jit::Stack* stack) {
    const auto& arguments = op_.schema().arguments();
    const size_t first = stack->size() - arguments.size();
    for (size_t i = 0; i < arguments.size(); ++i) {
      find_devices((*stack)[first + i], arguments[i].name());
    }
    for (size_t i = 0; i < arguments.size(); ++i) {
      auto& value = (*stack)[first + i];
      value = argument_to_host(value, arguments[i]);
    }
    {
      const c10::impl::ExcludeDispatchKeyGuard below(
          c10::autograd_dispatch_keyset_with_ADInplaceOrView | c10::autocast_dispatch_keyset);
      op_.callBoxed(stack);
    }
    update_arguments();
    for (size_t i = stack->size() - op_.schema().returns().size(); i < stack->size(); ++i) {
      (*stack)[i] = result_to_device((*stack)[i]);
    }
  }

 private:
  struct StoragePair {
    c10::Storage device;
    c10::Storage host;
  };
  struct TensorPair {
    at::Tensor device;
    at::Tensor host;
  };

  // Copies between devices are what these are for.
  bool mixes_devices() const { return name_ == "aten::copy_" || name_ == "aten::_foreach_copy_"; }

  void find_devices(const c10::IValue& value, const std::string& argument) {
    if (value.isTensor()) {
      find_device(value.toTensor(), argument);
    } else if (value.isDevice()) {
      target_ = value.toDevice();
    } else if (value.isList()) {
      for (const c10::IValue& element : value.toListRef()) {
        find_devices(element, argument);
      }
    }
  }

  void find_device(const at::Tensor& tensor, const std::string& argument) {
    if (!tensor.defined()) {
      return;
    }
    if (is_device(tensor.device())) {
      TORCH_CHECK_NOT_IMPLEMENTED(
          tensor.layout() == c10::kStrided, "the stand-in for CUDA has strided tensors only (", name_, ")");
      check_same(tensor.device());
      device_ = tensor.device();
      return;
    }
    host_.push_back(tensor);
    const bool index = argument == "indices" && name_.find("index") != std::string::npos;
    if (tensor.dim() > 0 && !index) {
      check_same(tensor.device());
      full_host_ = tensor.device();
    }
  }

  void check_same(c10::Device device) const {
    for (const auto& other : {device_, full_host_}) {
      TORCH_CHECK(
          !other || *other == device || mixes_devices(),
          "Expected all tensors to be on the same device, but found at least two devices, ",
          is_device(device) ? device : *other, " and ", is_device(device) ? *other : device, "! (operator ", name_,
          ")");
    }
  }

  c10::IValue argument_to_host(const c10::IValue& value, const c10::Argument& argument) {
    if (argument.name() == "pin_memory") {
      TORCH_CHECK(
          value.isNone() || !value.toBool() || (target_ && !is_device(*target_)),
          "Only dense CPU tensors can be pinned");
      return value;
    }
    if (value.isNone()) {
      return is_generator(argument) ? c10::IValue(draw_from({})) : value;
    }
    if (value.isTensor()) {
      return to_host(value.toTensor());
    }
    if (value.isDevice()) {
      return is_device(value.toDevice()) ? c10::Device(c10::kCPU) : value.toDevice();
    }
    if (value.isGenerator()) {
      return draw_from(value.toGenerator());
    }
    if (value.isStorage()) {
      return value.toStorage().device_type() == c10::DeviceType::CUDA ? to_host(value.toStorage()) : value.toStorage();
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& element : value.toTensorVector()) {
        list.push_back(to_host(element));
      }
      return list;
    }
    if (value.isList() && !value.toList().empty() && has_tensor(value)) {
      c10::List<std::optional<at::Tensor>> list;
      for (const c10::IValue& element : value.toListRef()) {
        list.push_back(element.isNone() ? std::nullopt : std::optional(to_host(element.toTensor())));
      }
      return list;
    }
    return value;
  }

  static bool has_tensor(const c10::IValue& list) {
    for (const c10::IValue& element : list.toListRef()) {
      if (element.isTensor()) {
        return true;
      }
    }
    return false;
  }

  static bool is_generator(const c10::Argument& argument) {
    const auto* optional = argument.type()->castRaw<c10::OptionalType>();
    return optional != nullptr && optional->getElementType()->kind() == c10::TypeKind::GeneratorType;
  }

  at::Generator draw_from(const std::optional<at::Generator>& generator) const {
    const c10::Device device = result_device();
    return is_device(device) ? host_generator(generator ? *generator : default_generator(device.index()), device)
                             : generator.value_or(at::Generator());
  }

  // Where fresh results go: to the device that the caller names, else to that of the tensors.
  c10::Device result_device() const {
    const c10::Device device = target_ ? *target_ : device_ ? *device_ : c10::Device(c10::DeviceType::CUDA);
    return is_device(device) ? resolve(device) : device;
  }

  c10::Storage to_host(const c10::Storage& device) {
    for (const StoragePair& pair : storages_) {
      if (pair.device.unsafeGetStorageImpl() == device.unsafeGetStorageImpl()) {
        return pair.host;
      }
    }
    c10::Storage host(
        c10::Storage::use_byte_size_t(), device.nbytes(),
        c10::DataPtr(to_host_address(device.mutable_data()), c10::kCPU), c10::GetCPUAllocator(), device.resizable());
    storages_.push_back({device, host});
    return host;
  }

  at::Tensor to_host(const at::Tensor& tensor) {
    if (!tensor.defined() || !is_device(tensor.device())) {
      return tensor;
    }
    for (const TensorPair& pair : tensors_) {
      if (pair.device.is_same(tensor)) {
        return pair.host;
      }
    }
    at::Tensor host = tensor_over(to_host(tensor.storage()), c10::DispatchKey::CPU, tensor);
    tensors_.push_back({tensor, host});
    return host;
  }

  c10::Storage to_device(const c10::Storage& host, c10::Device device) {
    for (const StoragePair& pair : storages_) {
      if (pair.host.unsafeGetStorageImpl() == host.unsafeGetStorageImpl()) {
        return pair.device;
      }
    }
    c10::Storage made = device_storage(host, device);
    storages_.push_back({made, host});
    return made;
  }

  // What the operator did to the tensors it was given: new memory (resize_), another storage (set_), another shape.
  void update_arguments() {
    for (const StoragePair& pair : storages_) {
      auto* storage = pair.device.unsafeGetStorageImpl();
      if (pair.host.data() != to_host_address(pair.device.data())) {
        storage->set_data_ptr_noswap(device_data(pair.host, pair.device.device()));
      }
      storage->set_nbytes(pair.host.nbytes());
    }
    for (const TensorPair& pair : tensors_) {
      auto* device = pair.device.unsafeGetTensorImpl();
      const c10::Storage now = to_device(pair.host.storage(), pair.device.device());
      if (now.unsafeGetStorageImpl() != device->storage().unsafeGetStorageImpl()) {
        device->set_storage_keep_dtype(now);
      }
      if (pair.host.sizes() != pair.device.sizes() || pair.host.strides() != pair.device.strides() ||
          pair.host.storage_offset() != pair.device.storage_offset()) {
        device->set_sizes_and_strides(pair.host.sizes(), pair.host.strides(), pair.host.storage_offset());
      }
    }
  }

  c10::IValue result_to_device(const c10::IValue& value) {
    if (value.isTensor()) {
      return to_device(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& element : value.toTensorVector()) {
        list.push_back(to_device(element));
      }
      return list;
    }
    return value;
  }

  at::Tensor to_device(const at::Tensor& result) {
    const auto same = [&](const at::Tensor& tensor) { return tensor.is_same(result); };
    if (!result.defined() || std::any_of(host_.begin(), host_.end(), same)) {
      return result;
    }
    for (const TensorPair& pair : tensors_) {
      if (pair.host.is_same(result)) {
        return pair.device;
      }
    }
    const c10::Device device = result_device();
    if (!is_device(device)) {
      return result;
    }
    TORCH_CHECK_NOT_IMPLEMENTED(
        result.layout() == c10::kStrided, "the stand-in for CUDA has strided tensors only (", name_, ")");
    // A view is an inference tensor where its base is one.
    const auto base = std::find_if(tensors_.begin(), tensors_.end(), [&](const TensorPair& pair) {
      return pair.host.storage().unsafeGetStorageImpl() == result.storage().unsafeGetStorageImpl();
    });
    const c10::InferenceMode mode(
        base == tensors_.end() ? c10::InferenceMode::is_enabled() : base->device.is_inference());
    return tensor_over(to_device(result.storage(), device), c10::DispatchKey::CUDA, result);
  }

  const c10::OperatorHandle& op_;
  const std::string& name_;
  std::optional<c10::Device> target_;     // argument `device`
  std::optional<c10::Device> device_;     // of the device tensors
  std::optional<c10::Device> full_host_;  // the CPU, where a tensor of it may not stand beside a device's
  std::vector<at::Tensor> host_;          // held, so that no result gets the address of one
  std::vector<StoragePair> storages_;
  std::vector<TensorPair> tensors_;
};

}  // namespace

void call_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::string_view name(op.schema().name());
  // Where PyTorch has a kernel for the CPU alone.
  const bool host_only = !name.starts_with("aten::") || name.starts_with("aten::mkldnn_") ||
                         name.find("_for_cpu") != std::string_view::npos ||
                         !op.hasComputedKernelForDispatchKey(c10::DispatchKey::CPU);
  TORCH_CHECK_NOT_IMPLEMENTED(
      !host_only, "Could not run '", op.operator_name(), "' with arguments from the 'CUDA' backend.");
  call_any_on_host(op, stack);
}

void call_any_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Call(op).run(stack);
}

}  // namespace shardpipe::fake_cuda
