#include "graph/device.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/cuda.h>

#include <algorithm>

#include "base/error.h"

namespace shardpipe::graph {
namespace {

bool has_tensors(const c10::Type& type) {
  const auto contained = type.containedTypes();
  return type.kind() == c10::TypeKind::TensorType ||
         std::any_of(contained.begin(), contained.end(), [](const auto& inner) { return has_tensors(*inner); });
}

bool makes_tensors(const c10::FunctionSchema& schema) {
  return std::none_of(schema.arguments().begin(), schema.arguments().end(), [](const c10::Argument& formal) {
    return has_tensors(*formal.type());
  });
}

}  // namespace

c10::DeviceType device_type(const std::string& name) {
  if (name == "cpu") {
    return c10::kCPU;
  }
  if (name == "cuda") {
    return c10::kCUDA;
  }
  throw Error(ErrorCode::usage, fmt::format("--device \"{}\" is not known", name), "use --device cpu or cuda");
}

int device_count(c10::DeviceType type) {
  return type == c10::kCPU ? 1 : static_cast<int>(torch::cuda::device_count());
}

c10::Device find_device(const std::string& name, int number) {
  const c10::DeviceType type = device_type(name);
  if (type == c10::kCPU) {
    return type;
  }
  if (!c10::impl::hasDeviceGuardImpl(type)) {
    throw Error(
        ErrorCode::usage, fmt::format("--device {}: this program was built with a LibTorch without CUDA", name),
        "use --device cpu, or build with a LibTorch for CUDA (TORCH_DIR)");
  }
  const int count = device_count(type);
  if (count == 0) {
    throw Error(
        ErrorCode::usage, fmt::format("--device {}: LibTorch finds no such device on this host", name),
        "look at the driver and at CUDA_VISIBLE_DEVICES, or use --device cpu");
  }
  return {type, static_cast<c10::DeviceIndex>(number % count)};
}

bool is_device(const c10::Argument& formal) {
  return formal.type()->isSubtypeOf(*c10::OptionalType::create(c10::DeviceObjType::get()));
}

Graph on_device(const Graph& graph, c10::Device device) {
  Graph moved = graph;
  for (Node& node : moved.nodes) {
    for (std::shared_ptr<const Graph>& branch : node.branches) {
      branch = std::make_shared<const Graph>(on_device(*branch, device));
    }
    if (!node.op) {
      continue;
    }
    const c10::FunctionSchema& schema = node.op->schema();
    const bool makes = makes_tensors(schema);
    for (size_t i = 0; i < node.arguments.size(); ++i) {
      const c10::IValue* constant = node.arguments[i].as_constant();
      if (constant == nullptr || !is_device(schema.arguments()[i])) {
        continue;
      }
      if (constant->isDevice() || (constant->isNone() && makes)) {
        node.arguments[i] = Argument(c10::IValue(device));
      }
    }
  }
  return moved;
}

}  // namespace shardpipe::graph
