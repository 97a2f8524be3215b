// Networks and their gradients on the stand-in for CUDA.
#include <c10/core/AutogradState.h>

#include "compare.h"

namespace shardpipe::fake_cuda {

namespace {

at::Tensor linear_norm(const at::Tensor& x, const at::Tensor& weight) {
  return at::linear(x, weight).tanh();
}

TEST(FakeCuda, Transformer) {
  for (const bool threads : {true, false}) {
    for (const bool causal : {true, false}) {
      c10::AutogradState::get_tls_state().set_multithreading_enabled(threads);
      const at::Tensor tokens = at::tensor({1, 5, 2, 7, 0, 3, 3, 1}, at::kLong).view({2, 4});
      expect_same_on(
          {random({11, 16}), random({16}), random({16}, 2), random({48, 16}), random({48}), random({16, 16}),
           random({11, 16}, 5), tokens},
          true, [&](std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
            at::Tensor x = at::embedding(in[0], in[7]);
            const at::Tensor norm = at::layer_norm(x, {16}, in[1], in[2]);
            const auto parts = at::linear(norm, in[3], in[4]).view({2, 4, 3, 2, 8}).permute({2, 0, 3, 1, 4}).unbind(0);
            const auto mask =
                causal ? std::nullopt : std::optional(at::ones({4, 4}, x.options().dtype(at::kBool)).tril());
            const at::Tensor attended = at::scaled_dot_product_attention(parts[0], parts[1], parts[2], mask, 0, causal);
            x = x + linear_norm(attended.transpose(1, 2).reshape({2, 4, 16}), in[5]);
            x = std::get<0>(at::native_dropout(at::gelu(at::rms_norm(x, {16}, in[1])) + at::silu(x), 0.25, true));
            const at::Tensor logits = at::matmul(x, in[6].t());
            return {at::cross_entropy_loss(logits.view({-1, 11}), in[7].view({-1})), attended.detach()};
          });
    }
  }
  c10::AutogradState::get_tls_state().set_multithreading_enabled(true);
}

TEST(FakeCuda, Convolutions) {
  const at::Tensor labels = at::tensor({1, 0}, at::kLong);
  expect_same_on(
      {random({2, 3, 8, 8}), random({4, 3, 3, 3}), random({4}), random({4}, 2), random({4}, 3), random({5, 64}),
       labels},
      true, [](std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
        at::Tensor mean = at::zeros({4}, in[0].options());
        at::Tensor variance = at::ones({4}, in[0].options());
        at::Tensor x = at::conv2d(in[0], in[1], in[2], 1, 1);
        x = at::batch_norm(x, in[3], in[4], mean, variance, true, 0.1, 1e-5, true);
        x = at::relu(at::max_pool2d(x, 2));
        x = at::upsample_nearest2d(x, std::nullopt, std::array<double, 2>{2, 2});
        x = at::upsample_bilinear2d(at::avg_pool2d(x, 2), {4, 4}, false);
        x = at::adaptive_avg_pool2d(x, {4, 4}).flatten(1);
        return {at::cross_entropy_loss(at::linear(x, in[5]), in[6]), mean.detach(), variance.detach()};
      });
}

TEST(FakeCuda, Recurrent) {
  const at::Tensor input = random({5, 2, 3});
  const std::vector<at::Tensor> lstm{random({16, 3}), random({16, 4}, 2), random({16}, 3), random({16}, 4)};
  const std::vector<at::Tensor> gru{random({12, 3}), random({12, 4}, 2), random({12}, 3), random({12}, 4)};
  const auto to = [](std::vector<at::Tensor> tensors, at::Device device) {
    for (at::Tensor& tensor : tensors) {
      tensor = tensor.detach().clone().to(device).set_requires_grad(true);
    }
    return tensors;
  };
  std::vector<at::Tensor> outs;
  std::vector<at::Tensor> grads;
  for (const at::Device& device : {at::Device(at::kCPU), kDevice}) {
    const at::Tensor zero = at::zeros({1, 2, 4}, device);
    const auto of_lstm = to(lstm, device);
    const auto of_gru = to(gru, device);
    outs.push_back(std::get<0>(at::lstm(input.to(device), {zero, zero}, of_lstm, true, 1, 0, true, false, false)));
    outs.push_back(std::get<0>(at::gru(input.to(device), zero, of_gru, true, 1, 0, true, false, false)));
    torch::autograd::backward({outs.back().sum(), outs.end()[-2].sum()}, {});
    grads.push_back(of_lstm[0].grad());
    grads.push_back(of_gru[3].grad());
  }
  // CUDA's cells add the biases in another order than the CPU's.
  for (const size_t i : {0, 1}) {
    EXPECT_TRUE(at::allclose(outs[i + 2].cpu(), outs[i], 1e-5, 1e-6));
    EXPECT_TRUE(at::allclose(grads[i + 2].cpu(), grads[i], 1e-5, 1e-5));
  }
}

TEST(FakeCuda, InferenceMode) {
  const c10::InferenceMode mode;
  expect_same_on(
      {random({4, 8}), random({8, 8}, 2)}, false, [](std::vector<at::Tensor>& in) -> std::vector<at::Tensor> {
        at::Tensor cache = at::zeros({2, 4, 8}, in[0].options());
        cache.select(0, 1).copy_(at::linear(in[0], in[1]));
        EXPECT_TRUE(cache.is_inference());
        EXPECT_TRUE(at::matmul(in[0], in[1]).is_inference());
        return {cache, at::scaled_dot_product_attention(cache, cache, cache)};
      });
}

TEST(FakeCuda, InferenceModeAndViewsOfOrdinaryTensors) {
  const at::Tensor base = random({4, 8}).to(kDevice);
  {
    const c10::InferenceMode mode;
    const at::Tensor view = base.unsqueeze(0);
    EXPECT_FALSE(view.is_inference());
    EXPECT_TRUE(view.is_alias_of(base));
    EXPECT_TRUE((view + 1).unsqueeze(0).is_inference());
    EXPECT_TRUE(at::empty({2}, base.options()).unsqueeze(0).is_inference());
  }
  EXPECT_FALSE(base.t().is_inference());
}

TEST(FakeCuda, GradientsOnTwoDevices) {
  for (const bool threads : {true, false}) {
    c10::AutogradState::get_tls_state().set_multithreading_enabled(threads);
    const at::Tensor x = random({3}).to(kDevice).requires_grad_();
    const at::Tensor host = random({3}).requires_grad_();
    torch::autograd::backward({((x * 2).to(kOther) * host.to(kOther)).cpu().sum()}, {});
    expect_same(x.grad(), host.detach() * 2);
    EXPECT_TRUE(at::equal(host.grad(), x.detach().cpu() * 2));
  }
  c10::AutogradState::get_tls_state().set_multithreading_enabled(true);
}

}  // namespace

}  // namespace shardpipe::fake_cuda
