// Operators on the stand-in for CUDA.
#include <sstream>

#include "compare.h"

namespace shardpipe::fake_cuda {

namespace {

using ::testing::HasSubstr;

TEST(FakeCuda, Factories) {
  const auto on = at::TensorOptions(kDevice);
  expect_same(at::zeros({2, 3}, on), at::zeros({2, 3}));
  expect_same(at::full({2}, 7, on.dtype(at::kLong)), at::full({2}, 7, at::kLong));
  expect_same(at::arange(5, on), at::arange(5));
  expect_same(at::eye(3, on), at::eye(3));
  expect_same(at::ones({2}, on).new_zeros({3}), at::zeros({3}));
  expect_same(at::linspace(0, 1, 5, on), at::linspace(0, 1, 5));
  expect_same(at::tril(at::ones({3, 3}, on)), at::tril(at::ones({3, 3})));
  expect_same(at::scalar_tensor(2.5, on), at::scalar_tensor(2.5));
  EXPECT_EQ(at::empty_strided({2, 3}, {1, 2}, on).strides(), at::IntArrayRef({1, 2}));
  EXPECT_EQ(at::empty({0, 3}, on).numel(), 0);
  EXPECT_EQ(at::rand({3}, on).device(), kDevice);
  EXPECT_EQ(at::zeros_like(at::ones({2}), on).device(), kDevice);
  EXPECT_TRUE(at::ones_like(at::ones({2}, on), at::kCPU).is_cpu());
}

TEST(FakeCuda, ViewsShareMemory) {
  expect_same_on({random({4, 6})}, false, [](std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    at::Tensor& base = in[0];
    base.select(0, 1).fill_(3);
    base.t().narrow(0, 1, 2).mul_(2);
    base.view({2, 2, 6})[1].add_(1);
    base.unfold(1, 2, 2).zero_().add_(4);
    base.as_strided({2, 2}, {6, 1}, 3).neg_();
    base.chunk(2, 1)[1].exp_();
    base.diagonal().copy_(base.select(1, 0).slice(0, 0, 4));
    EXPECT_EQ(base.view({-1}).storage().unsafeGetStorageImpl(), base.storage().unsafeGetStorageImpl());
    EXPECT_EQ(base.view({-1})._version(), base._version());
    return {base, base.reshape({3, 8}), base.permute({1, 0}), base.transpose(0, 1).contiguous(), base.unbind(1)[2]};
  });
}

TEST(FakeCuda, InPlaceOutAndLists) {
  expect_same_on({random({3, 4}), random({4}, 2)}, false, [](std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    at::Tensor out = at::empty({0}, in[0].options());
    EXPECT_TRUE(at::add_out(out, in[0], in[1]).is_same(out));
    EXPECT_TRUE(in[0].add_(in[1]).is_same(in[0]));
    at::Tensor grown = in[1].clone().resize_({2, 8}).fill_(1);
    at::Tensor another = at::empty({0}, in[0].options()).set_(in[0]);
    another.add_(1);
    const auto both = at::_foreach_add({in[0], in[1]}, 2);
    at::_foreach_mul_({in[0], in[1]}, 3);
    const at::Tensor index = at::tensor({2, 0}, at::kLong);
    at::Tensor put = in[0].clone().index_put_({index.to(in[0].device())}, at::zeros({2, 4}, in[0].options()));
    put.index_put_({index}, at::ones({}));
    return {
        out,
        grown,
        another,
        both[0],
        both[1],
        put,
        in[0].index({index}),
        at::cat({in[0], in[0]}, 1),
        at::stack({in[1], in[1]}),
        at::where(in[0] > 0, in[0], at::scalar_tensor(0.5)),
        in[0].masked_fill(in[0] > 0, 2)};
  });
}

TEST(FakeCuda, Copies) {
  const at::Tensor host = random({3, 5});
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong}) {
    expect_same(host.to(kDevice, type), host.to(type));
    EXPECT_TRUE(at::equal(host.to(kDevice).to(at::kCPU, type), host.to(type)));
  }
  at::Tensor target = at::zeros({5, 3}, kDevice);
  target.t().copy_(host);
  expect_same(target, host.t().contiguous());
  at::Tensor back = at::zeros({5, 6}, at::kDouble);
  EXPECT_TRUE(back.slice(1, 0, 6, 2).copy_(target).is_cpu());
  EXPECT_TRUE(at::equal(back.slice(1, 0, 6, 2), host.t().to(at::kDouble)));
  const at::Tensor other = target.to(kOther);
  EXPECT_EQ(other.device(), kOther);
  EXPECT_TRUE(at::equal(other.cpu(), target.cpu()));
  EXPECT_TRUE(target.to(kDevice).is_same(target));
  EXPECT_TRUE(at::equal(host.pin_memory().to(kDevice, true).to(at::kCPU, true), host));
  EXPECT_TRUE(host.pin_memory().is_pinned());
  EXPECT_FALSE(host.is_pinned());
  EXPECT_TRUE(at::empty({2}, at::TensorOptions().pinned_memory(true)).is_pinned());
}

TEST(FakeCuda, ValuesAndText) {
  const at::Tensor tensor = at::arange(3, at::TensorOptions(kDevice).dtype(at::kFloat));
  EXPECT_EQ(tensor[2].item<float>(), 2.F);
  EXPECT_EQ(tensor.argmax().item<int64_t>(), 2);
  EXPECT_TRUE(at::equal(tensor, tensor.clone()));
  EXPECT_TRUE(at::allclose(tensor, tensor.clone()));
  EXPECT_TRUE((tensor == tensor).all().item<bool>());
  std::ostringstream text;
  text << tensor;
  EXPECT_THAT(text.str(), HasSubstr("CUDAFloatType{3}"));
}

TEST(FakeCuda, Reductions) {
  expect_same_on({random({4, 33})}, false, [](std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    const at::Tensor& x = in[0];
    const auto [top, places] = x.topk(5);
    const auto [sorted, order] = x.sort(1, true);
    const auto [most, at_most] = x.max(1);
    const auto [variance, mean] = at::var_mean(x, 1);
    return {
        top,
        places,
        sorted,
        order,
        most,
        at_most,
        variance,
        mean,
        x.cumsum(1),
        x.softmax(1),
        x.log_softmax(0),
        x.gather(1, places),
        x.clone().scatter_(1, places, 0),
        x.clone().scatter_add_(1, places, top),
        x.index_select(0, places.select(0, 0).remainder(4)),
        at::multinomial(x.softmax(1), 2),
        x.norm(),
        at::bernoulli(x.sigmoid()),
        std::get<0>(at::native_dropout(x, 0.3, true)),
        x.clone().normal_(),
        x.clone().uniform_(),
        x.sum({0}),
        x.pow(2),
        x.clamp_min(0),
        at::einsum("ij,kj->ik", {x, x}),
        at::logsumexp(x, {1}),
        x.flip({0})};
  });
}

TEST(FakeCuda, ComplexNumbersAndZeros) {
  expect_same_on({random({4, 3, 2})}, false, [](std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    const at::Tensor numbers = at::view_as_complex(in[0]);
    EXPECT_TRUE(numbers.conj().is_conj());
    const at::Tensor product = at::matmul(numbers, numbers.conj().t());
    return {at::view_as_real(product), at::imag(numbers.conj()).resolve_neg(), at::real(numbers)};
  });
  // Its gradient is a tensor of zeros without memory.
  expect_same_on({random({3})}, true, [](std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
    return {at::sgn(in[0]) + at::mish(in[0])};
  });
}

TEST(FakeCuda, BoxedCallsAndRepeatedArguments) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::baddbmm", "");
  expect_same_on(
      {random({2, 3, 3}), random({2, 3, 3}, 2)}, true, [&](std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
        torch::jit::Stack stack;
        torch::jit::push(stack, in[0], in[1], in[1], 2, 0.5);
        op.callBoxed(&stack);
        return {stack.at(0).toTensor()};
      });
}

}  // namespace

}  // namespace shardpipe::fake_cuda
