#pragma once

#include <c10/core/Device.h>

#include <string>

#include "graph/graph.h"

namespace shardpipe::graph {

/// "cpu", "cuda". Throws Error(usage) for other names.
c10::DeviceType device_type(const std::string& name);

/// Devices of a type that this process can use; of the CPU one.
int device_count(c10::DeviceType type);

/// The device of that name with this number, modulo their count. Throws Error(usage) for other names, where LibTorch
/// was built without the device, and where the host has none.
c10::Device find_device(const std::string& name, int number);

/// Whether an operator's argument names a device.
bool is_device(const c10::Argument& formal);

/// The program where its tensors are on a device: what names the CPU, or makes a tensor without naming a device or
/// having one to follow, names that device. The values' contents stay where they are.
Graph on_device(const Graph& graph, c10::Device device);

}  // namespace shardpipe::graph
