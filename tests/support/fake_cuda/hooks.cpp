// What LibTorch asks about CUDA without being built with it.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>

#include <map>
#include <mutex>

#include "device.h"

namespace shardpipe::fake_cuda {

namespace {

// Memory of the host that remembers that it was asked for as pinned.
class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr data = c10::GetCPUAllocator()->allocate(bytes);
    void* address = data.get();
    if (address == nullptr) {
      return data;
    }
    const std::lock_guard lock(mutex_);
    const auto place = blocks_.insert_or_assign(static_cast<const char*>(address), Block{bytes, std::move(data)}).first;
    return {address, const_cast<char*>(place->first), [](void* start) { instance().release(start); }, c10::kCPU};
  }
  void copy_data(void* target, const void* source, std::size_t bytes) const override {
    default_copy_data(target, source, bytes);
  }
  bool holds(const void* address) {
    const std::lock_guard lock(mutex_);
    auto next = blocks_.upper_bound(static_cast<const char*>(address));
    return next != blocks_.begin() &&
           static_cast<const char*>(address) < std::prev(next)->first + std::prev(next)->second.bytes;
  }
  static PinnedAllocator& instance() {
    static auto* allocator = new PinnedAllocator;  // outlives the last pinned tensor
    return *allocator;
  }

 private:
  struct Block {
    size_t bytes;
    c10::DataPtr data;
  };
  void release(const void* start) {
    const std::lock_guard lock(mutex_);
    blocks_.erase(static_cast<const char*>(start));
  }

  std::mutex mutex_;
  std::map<const char*, Block> blocks_;
};

}  // namespace

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}

  void init() const override { resolve(c10::Device(c10::DeviceType::CUDA)); }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count() > 0; }
  bool hasCUDA() const override { return device_count() > 0; }
  int getNumGPUs() const override { return device_count(); }
  c10::DeviceIndex deviceCount() const override { return device_count(); }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return device_count() > 0; }

  c10::DeviceIndex current_device() const override { return fake_cuda::current_device(); }
  c10::DeviceIndex getCurrentDevice() const override { return fake_cuda::current_device(); }
  void setCurrentDevice(c10::DeviceIndex index) const override { set_current_device(index); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    const c10::DeviceIndex before = fake_cuda::current_device();
    if (index >= 0) {
      set_current_device(index);
    }
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override { return exchangeDevice(index); }
  void deviceSynchronize(c10::DeviceIndex) const override {}

  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override { return default_generator(index); }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override { return new_generator(index); }

  bool isPinnedPtr(const void* data) const override { return PinnedAllocator::instance().holds(data); }
  at::Allocator* getPinnedMemoryAllocator() const override {
    resolve(c10::Device(c10::DeviceType::CUDA));
    return &PinnedAllocator::instance();
  }
  at::Allocator* getCUDADeviceAllocator() const override { return c10::GetAllocator(c10::DeviceType::CUDA); }
};

}  // namespace shardpipe::fake_cuda

// The registry's macros name the class without its namespace.
namespace at {
using CUDAHooks = shardpipe::fake_cuda::Hooks;
REGISTER_CUDA_HOOKS(CUDAHooks);
}  // namespace at
