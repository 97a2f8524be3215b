// The devices of the stand-in for CUDA: their memory, their count and the current one.
//
// A device's memory is the host's, but its addresses carry a mark that makes them non-canonical: code of the host that
// follows a device pointer dies with SIGSEGV instead of reading what a real device would hide.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/Allocator.h>
#include <c10/core/Device.h>
#include <c10/core/Storage.h>

namespace shardpipe::fake_cuda {

// SHARDPIPE_FAKE_CUDA_DEVICES (0 to 16), 2 without it; throws c10::Error for anything else.
c10::DeviceIndex device_count();

c10::DeviceIndex current_device();
void set_current_device(c10::DeviceIndex index);

// `device` with an index: the current device's where it has none. Throws as CUDA does for a device that is not there.
c10::Device resolve(c10::Device device);

// Address of a device for a host's address and back; null stays null.
void* to_device_address(void* host);
void* to_host_address(void* device);
const void* to_host_address(const void* device);

// Memory of `device` that is the memory of `host`, a storage of the CPU, which it keeps.
c10::DataPtr device_data(c10::Storage host, c10::Device device);
c10::Storage device_storage(c10::Storage host, c10::Device device);

// Its numbers are those of a CPU generator with the same seed.
const at::Generator& default_generator(c10::DeviceIndex index);
at::Generator new_generator(c10::DeviceIndex index);

// The generator of the CPU that draws for `generator`; throws as CUDA does where that belongs to another device.
at::Generator host_generator(const at::Generator& generator, c10::Device device);

}  // namespace shardpipe::fake_cuda
