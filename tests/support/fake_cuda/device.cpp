#include "device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdlib>
#include <vector>

namespace shardpipe::fake_cuda {

namespace {

constexpr std::ptrdiff_t kMark = std::ptrdiff_t{1} << 62;
constexpr int kMaxDevices = 16;

thread_local c10::DeviceIndex t_current_device = 0;

c10::DeviceIndex read_device_count() {
  const char* text = std::getenv("SHARDPIPE_FAKE_CUDA_DEVICES");
  if (text == nullptr) {
    return 2;
  }
  char* end = nullptr;
  const long count = std::strtol(text, &end, 10);
  TORCH_CHECK(
      end != text && *end == '\0' && count >= 0 && count <= kMaxDevices, "SHARDPIPE_FAKE_CUDA_DEVICES is '", text,
      "', not a number of 0 to ", kMaxDevices);
  return static_cast<c10::DeviceIndex>(count);
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    c10::Storage host(
        c10::Storage::use_byte_size_t(), bytes, c10::GetCPUAllocator()->allocate(bytes), c10::GetCPUAllocator(), true);
    return device_data(std::move(host), resolve(c10::Device(c10::DeviceType::CUDA)));
  }
  void copy_data(void* target, const void* source, std::size_t bytes) const override {
    default_copy_data(to_host_address(target), to_host_address(source), bytes);
  }
};

DeviceAllocator& device_allocator() {
  static DeviceAllocator allocator;
  return allocator;
}

struct DeviceGuard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = c10::DeviceType::CUDA;

  DeviceGuard() = default;
  explicit DeviceGuard(c10::DeviceType) {}
  c10::DeviceType type() const override { return static_type; }
  c10::Device getDevice() const override { return {static_type, t_current_device}; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  void setDevice(c10::Device device) const override { set_current_device(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { t_current_device = device.index(); }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }

  // One stream a device, which has always finished.
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, resolve(device));
  }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return getStream(device); }
  c10::Stream getNewStream(c10::Device device, int) const override { return getStream(device); }
  void* getStreamNativeHandle(const c10::Stream) const override { return nullptr; }
  c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(c10::DeviceIndex) const override {}
  void record(void**, const c10::Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
};

// Draws nothing itself: operators get host().
struct DeviceGenerator final : c10::GeneratorImpl {
  explicit DeviceGenerator(c10::DeviceIndex index, at::Generator host = at::detail::createCPUGenerator())
      : c10::GeneratorImpl({c10::DeviceType::CUDA, index}, c10::DispatchKeySet(c10::DispatchKey::CUDA)),
        host_(std::move(host)) {}
  const at::Generator& host() const { return host_; }
  void set_current_seed(uint64_t seed) override { host_.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { host_.set_offset(offset); }
  uint64_t get_offset() const override { return host_.get_offset(); }
  uint64_t current_seed() const override { return host_.current_seed(); }
  uint64_t seed() override { return host_.seed(); }
  void set_state(const c10::TensorImpl& state) override { host_.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return host_.unsafeGetGeneratorImpl()->get_state(); }

 private:
  DeviceGenerator* clone_impl() const override { return new DeviceGenerator(device().index(), host_.clone()); }

  at::Generator host_;
};

[[maybe_unused]] const bool kAllocatorSet = [] {
  c10::SetAllocator(c10::DeviceType::CUDA, &device_allocator());
  return true;
}();

}  // namespace

c10::DeviceIndex device_count() {
  static const c10::DeviceIndex count = read_device_count();
  return count;
}

c10::DeviceIndex current_device() {
  return t_current_device;
}

void set_current_device(c10::DeviceIndex index) {
  t_current_device = resolve(c10::Device(c10::DeviceType::CUDA, index)).index();
}

c10::Device resolve(c10::Device device) {
  TORCH_CHECK(device_count() > 0, "No CUDA GPUs are available");
  const c10::DeviceIndex index = device.has_index() ? device.index() : t_current_device;
  TORCH_CHECK(
      index < device_count(), "CUDA error: invalid device ordinal (cuda:", static_cast<int>(index), " of ",
      static_cast<int>(device_count()), ")");
  return {c10::DeviceType::CUDA, index};
}

void* to_device_address(void* host) {
  return host == nullptr ? nullptr : static_cast<char*>(host) + kMark;
}

void* to_host_address(void* device) {
  return device == nullptr ? nullptr : static_cast<char*>(device) - kMark;
}

const void* to_host_address(const void* device) {
  return device == nullptr ? nullptr : static_cast<const char*>(device) - kMark;
}

c10::DataPtr device_data(c10::Storage host, c10::Device device) {
  void* address = to_device_address(host.mutable_data());
  auto* owner = new c10::Storage(std::move(host));
  return {address, owner, [](void* context) { delete static_cast<c10::Storage*>(context); }, device};
}

c10::Storage device_storage(c10::Storage host, c10::Device device) {
  const size_t bytes = host.nbytes();
  const bool resizable = host.resizable();
  return {c10::Storage::use_byte_size_t(), bytes, device_data(std::move(host), device), &device_allocator(), resizable};
}

const at::Generator& default_generator(c10::DeviceIndex index) {
  static const std::vector<at::Generator> generators = [] {
    std::vector<at::Generator> made;
    for (c10::DeviceIndex i = 0; i < device_count(); ++i) {
      made.push_back(new_generator(i));
    }
    return made;
  }();
  return generators.at(static_cast<size_t>(resolve(c10::Device(c10::DeviceType::CUDA, index)).index()));
}

at::Generator new_generator(c10::DeviceIndex index) {
  return at::make_generator<DeviceGenerator>(resolve(c10::Device(c10::DeviceType::CUDA, index)).index());
}

at::Generator host_generator(const at::Generator& generator, c10::Device device) {
  TORCH_CHECK(
      generator.device().type() == c10::DeviceType::CUDA, "Expected a 'cuda' device type for generator but found '",
      generator.device().type(), "'");
  TORCH_CHECK(
      generator.device() == device, "Expected a generator of ", device, " but found one of ", generator.device());
  return static_cast<DeviceGenerator*>(generator.unsafeGetGeneratorImpl())->host();
}

}  // namespace shardpipe::fake_cuda

namespace at::detail {
C10_REGISTER_GUARD_IMPL(CUDA, shardpipe::fake_cuda::DeviceGuard)
}  // namespace at::detail
