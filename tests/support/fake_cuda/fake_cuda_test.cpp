// What the stand-in for CUDA says of its devices, and what it refuses.
#include <torch/cuda.h>
#include <torch/library.h>

#include <cstdlib>
#include <iostream>

#include "compare.h"

namespace shardpipe::fake_cuda {

namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(FakeCuda, Devices) {
  EXPECT_EQ(torch::cuda::device_count(), 2);
  EXPECT_TRUE(torch::cuda::is_available());
  EXPECT_FALSE(torch::cuda::cudnn_is_available());
  torch::cuda::synchronize();
  EXPECT_EQ(at::empty({1}, at::kCUDA).device(), kDevice);
  {
    const c10::DeviceGuard guard(kOther);
    EXPECT_EQ(at::empty({1}, at::kCUDA).device(), kOther);
    EXPECT_EQ(random({2}).cuda().device(), kOther);
  }
  EXPECT_THAT(
      [] { at::empty({1}, at::Device(at::kCUDA, 2)); },
      ThrowsMessage<c10::Error>(HasSubstr("CUDA error: invalid device ordinal")));
}

TEST(FakeCuda, DataOfADeviceIsOutOfReach) {
  const at::Tensor tensor = at::ones({4}, kDevice);
  EXPECT_DEATH(
      {
        const volatile auto* data = static_cast<const float*>(tensor.const_data_ptr());
        std::cerr << data[0];
        std::exit(0);
      },
      "");
}

// The count is read once: a child that starts anew reads another.
TEST(FakeCuda, CountOfTheEnvironment) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ASSERT_EQ(setenv("SHARDPIPE_FAKE_CUDA_DEVICES", "0", 1), 0);
  EXPECT_EXIT(
      {
        std::cerr << int{torch::cuda::device_count()} << torch::cuda::is_available() << at::hasCUDA() << std::endl;
        try {
          at::empty({1}, at::kCUDA);
        } catch (const c10::Error& error) {
          std::cerr << error.what_without_backtrace() << std::endl;
        }
        std::exit(0);
      },
      testing::ExitedWithCode(0), "000\nNo CUDA GPUs are available");
  ASSERT_EQ(setenv("SHARDPIPE_FAKE_CUDA_DEVICES", "many", 1), 0);
  EXPECT_EXIT(
      {
        try {
          torch::cuda::device_count();
        } catch (const c10::Error& error) {
          std::cerr << error.what_without_backtrace() << std::endl;
        }
        std::exit(0);
      },
      testing::ExitedWithCode(0), "SHARDPIPE_FAKE_CUDA_DEVICES is 'many', not a number of 0 to 16");
  ASSERT_EQ(unsetenv("SHARDPIPE_FAKE_CUDA_DEVICES"), 0);
}

TEST(FakeCuda, MixedDevicesAreAnError) {
  const at::Tensor host = random({3, 3});
  const at::Tensor device = host.to(kDevice);
  const at::Tensor other = host.to(kOther);
  const auto mixed = [](const char* devices, const char* name) {
    return ThrowsMessage<c10::Error>(testing::AllOf(
        HasSubstr("Expected all tensors to be on the same device, but found at least two devices"), HasSubstr(devices),
        HasSubstr(name)));
  };
  EXPECT_THAT([&] { at::add(device, host); }, mixed("cuda:0 and cpu!", "aten::add"));
  EXPECT_THAT([&] { at::add(host, device); }, mixed("cuda:0 and cpu!", "aten::add"));
  EXPECT_THAT([&] { at::mm(device, other); }, mixed("cuda:1 and cuda:0!", "aten::mm"));
  EXPECT_THAT([&] { at::cat({device, host}); }, mixed("cuda:0 and cpu!", "aten::cat"));
  EXPECT_THAT([&] { at::embedding(device, at::zeros({2}, at::kLong)); }, mixed("cuda:0 and cpu!", "aten::embedding"));
  EXPECT_THAT([&] { at::linear(device, host); }, mixed("cuda:0 and cpu!", "aten::"));
  EXPECT_THAT([&] { at::where(host > 0, device, device); }, mixed("cuda:0 and cpu!", "aten::where"));
  at::Tensor out = at::empty({3, 3});
  EXPECT_THAT([&] { at::mul_out(out, device, device); }, mixed("cuda:0 and cpu!", "aten::mul"));
  EXPECT_THAT([&] { out.add_(device); }, mixed("cuda:0 and cpu!", "aten::add_"));
  EXPECT_THAT(
      [&] { at::scaled_dot_product_attention(device, device, host); },
      ThrowsMessage<c10::Error>(HasSubstr("Expected query, key, and value to have the same device type")));
  EXPECT_NO_THROW(at::add(device, at::ones({})));
  EXPECT_NO_THROW(device.mul(2.0));
  EXPECT_THAT(
      [&] { device.clone().normal_(0, 1, at::detail::createCPUGenerator()); },
      ThrowsMessage<c10::Error>(HasSubstr("Expected a 'cuda' device type for generator but found 'cpu'")));
}

TEST(FakeCuda, OperatorsOfTheCpuAloneAreRefused) {
  const at::Tensor device = random({1, 1, 4, 8}).to(kDevice);
  EXPECT_THAT(
      [&] { at::_scaled_dot_product_flash_attention_for_cpu(device, device, device); },
      ThrowsMessage<c10::Error>(HasSubstr("with arguments from the 'CUDA' backend")));
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "");
  EXPECT_THAT(
      [&] {
        torch::jit::Stack stack;
        const c10::List<std::optional<at::Scalar>> none;
        torch::jit::push(stack, device, device, c10::IValue(), "none", none, "");
        op.callBoxed(&stack);
      },
      ThrowsMessage<c10::Error>(HasSubstr("with arguments from the 'CUDA' backend")));
}

at::Tensor device_of(const at::Tensor& tensor) {
  return at::scalar_tensor(tensor.is_cuda() ? 1 : 0, tensor.options());
}

TEST(FakeCuda, KernelsForAllDevicesGetDeviceTensors) {
  torch::Library definitions(torch::Library::DEF, "fake_cuda_test", std::nullopt, __FILE__, __LINE__);
  definitions.def("where_am_i(Tensor x) -> Tensor");
  definitions.impl("where_am_i", torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd, &device_of));
  definitions.def("cpu_only(Tensor x) -> Tensor");
  definitions.impl("cpu_only", torch::dispatch(c10::DispatchKey::CPU, &device_of));
  const auto call = [](const char* name, const at::Tensor& x) {
    torch::jit::Stack stack{x};
    c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(&stack);
    return stack.at(0).toTensor();
  };
  const at::Tensor device = at::ones({2}, kDevice);
  EXPECT_EQ(call("fake_cuda_test::where_am_i", device).item<float>(), 1.F);
  EXPECT_THAT(
      [&] { call("fake_cuda_test::cpu_only", device); },
      ThrowsMessage<c10::Error>(HasSubstr("with arguments from the 'CUDA' backend")));
}

}  // namespace

}  // namespace shardpipe::fake_cuda
