#pragma once

// The building blocks of the families: modules whose parameters lie on `meta` under the checkpoint's names, and whose
// forward() opens a scope with Hugging Face's path and class name. Legend: N tokens in any number of dimensions, I and
// O features.
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "frontend/hf/config.h"
#include "frontend/trace/module_scope.h"

namespace shardpipe::hf {

/// A module that knows its path inside its parent ("self_attn", "layers.3") and its Hugging Face class.
class ScopedModule : public torch::nn::Module {
 public:
  explicit ScopedModule(std::string class_name) : torch::nn::Module(std::move(class_name)) {}

 protected:
  /// Opened at the start of forward().
  trace::ModuleScope enter() const { return {path_, name()}; }

  /// Makes and registers a child module.
  template <typename T, typename... Args>
  std::shared_ptr<T> child(const std::string& path, Args&&... args) {
    return adopt<T>(*this, path, path, std::forward<Args>(args)...);
  }
  /// Child `index` of a list, as torch.nn.ModuleList names it: "layers.3".
  template <typename T, typename... Args>
  std::shared_ptr<T> item(const std::string& list, int64_t index, Args&&... args) {
    const std::string number = std::to_string(index);
    if (lists_ == nullptr) {
      lists_ = register_module(list, std::make_shared<torch::nn::Module>("ModuleList"));
    }
    return adopt<T>(*lists_, number, list + "." + number, std::forward<Args>(args)...);
  }

  at::Tensor weight(const char* name, at::IntArrayRef sizes, at::ScalarType dtype);
  /// The same tensor under a second name.
  at::Tensor tied(const char* name, const at::Tensor& other) { return register_parameter(name, other, false); }

 private:
  template <typename T, typename... Args>
  std::shared_ptr<T> adopt(
      torch::nn::Module& parent, const std::string& name, const std::string& path, Args&&... args) {
    auto made = std::make_shared<T>(std::forward<Args>(args)...);
    static_cast<ScopedModule&>(*made).path_ = path;
    return parent.register_module(name, std::move(made));
  }

  std::string path_;
  std::shared_ptr<torch::nn::Module> lists_;
};

/// x [N, I] -> [N, O], weight [O, I].
class Linear : public ScopedModule {
 public:
  Linear(int64_t in, int64_t out, bool bias, at::ScalarType dtype);
  /// Its weight is that of another module.
  Linear(const at::Tensor& tied_weight, bool bias);
  /// Weight and bias those of other modules.
  Linear(const at::Tensor& tied_weight, const at::Tensor& tied_bias);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

/// x [N, I] -> [N, O], weight [I, O]: GPT-2's projections.
class Conv1D : public ScopedModule {
 public:
  Conv1D(int64_t in, int64_t out, at::ScalarType dtype);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

/// ids [N] int64 -> [N, O], weight [count, O]. The row `padding` gets no gradient.
class Embedding : public ScopedModule {
 public:
  Embedding(int64_t count, int64_t dim, at::ScalarType dtype, std::optional<int64_t> padding = std::nullopt);
  /// Its weight that of another module.
  explicit Embedding(const at::Tensor& tied_weight);
  at::Tensor forward(const at::Tensor& ids) const;
  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;
  int64_t padding_ = -1;  // none
};

/// The row of an embedding that "pad_token_id" in config.json names, `fallback` where the key is absent; a negative one
/// counts from the end. None where it is null or no row.
std::optional<int64_t> padding_row(const Config& config, int64_t rows, std::optional<int64_t> fallback);

/// weight * T(x / sqrt(mean(x^2) + eps)), computed in float32 and rounded to x's dtype T before the weight, as
/// transformers' LlamaRMSNorm does.
class RmsNorm : public ScopedModule {
 public:
  RmsNorm(std::string class_name, int64_t dim, double eps, at::ScalarType dtype);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  double eps_;
};

class LayerNorm : public ScopedModule {
 public:
  /// Without weight and bias where not `affine`.
  LayerNorm(int64_t dim, double eps, at::ScalarType dtype, bool affine = true);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  int64_t dim_;
  at::Tensor weight_;
  at::Tensor bias_;
  double eps_;
};

using Activation = at::Tensor (*)(const at::Tensor&);

/// The activation that config.json names under `key`, by transformers' names (activations.py). Throws Error(usage)
/// listing the known ones.
Activation find_activation(const Config& config, Key key, const char* fallback);

/// out(activation(in(x))), both with a bias, under the names that the family gives them.
class FeedForward : public ScopedModule {
 public:
  struct Sizes {
    int64_t hidden;
    int64_t inner;
  };
  FeedForward(
      std::string class_name,
      const std::string& in_name,
      const std::string& out_name,
      Sizes sizes,
      Activation activation,
      at::ScalarType dtype);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  Activation activation_;
  std::shared_ptr<Linear> in_;
  std::shared_ptr<Linear> out_;
};

/// Rotary embedding, halves convention: x [..., N, heads, head_dim], cos and sin float32 [N, rotary_dim / 2]; elements
/// from rotary_dim on stay as they are.
at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace shardpipe::hf
