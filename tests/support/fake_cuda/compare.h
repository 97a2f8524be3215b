// Compares the stand-in for CUDA with the CPU, bit by bit.
#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

namespace shardpipe::fake_cuda {

const at::Device kDevice(at::kCUDA, 0);
const at::Device kOther(at::kCUDA, 1);

inline at::Tensor random(at::IntArrayRef sizes, uint64_t seed = 1) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed));
}

inline void expect_same(const at::Tensor& device, const at::Tensor& host) {
  ASSERT_TRUE(device.is_cuda());
  ASSERT_TRUE(host.is_cpu());
  EXPECT_EQ(device.sizes(), host.sizes());
  EXPECT_EQ(device.strides(), host.strides());
  EXPECT_EQ(device.storage_offset(), host.storage_offset());
  EXPECT_EQ(device.scalar_type(), host.scalar_type());
  EXPECT_TRUE(at::equal(device.cpu(), host)) << (device.cpu() - host).abs().max();
}

// Runs `function` with copies of `inputs` on the CPU and on the device; its results, those of backward from their sum
// and what it did to the inputs must be the same bits.
template <typename Function>
void expect_same_on(std::vector<at::Tensor> inputs, bool backward, const Function& function) {
  std::vector<std::vector<at::Tensor>> results;
  for (const at::Device& device : {at::Device(at::kCPU), kDevice}) {
    std::vector<at::Tensor> given;
    for (const at::Tensor& input : inputs) {
      given.push_back(input.clone().to(device));
      given.back().set_requires_grad(backward && input.is_floating_point());
    }
    at::manual_seed(3);
    std::vector<at::Tensor> made = function(given);
    if (backward) {
      torch::autograd::backward({made.at(0).sum()}, {});
    }
    for (const at::Tensor& tensor : given) {
      made.push_back(tensor.detach());
      if (tensor.requires_grad()) {
        ASSERT_TRUE(tensor.grad().defined());
        made.push_back(tensor.grad());
      }
    }
    results.push_back(std::move(made));
  }
  ASSERT_EQ(results[0].size(), results[1].size());
  for (size_t i = 0; i < results[0].size(); ++i) {
    SCOPED_TRACE(i);
    expect_same(results[1][i].detach(), results[0][i].detach());
  }
}

}  // namespace shardpipe::fake_cuda
