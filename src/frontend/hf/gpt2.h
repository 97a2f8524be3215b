#pragma once

// The base model of GPT-2 and of the families that keep its shape: word and position embeddings, blocks, a last norm.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "frontend/hf/decoder.h"

namespace shardpipe::hf {

/// `Block` has a constructor (config, layer) and forward(x, attention); `Shape`, the family's configuration, has vocab,
/// positions, hidden, layers, eps and dtype.
template <typename Block, typename Shape>
class Gpt2Base : public ScopedModule {
 public:
  Gpt2Base(std::string class_name, const Shape& c)
      : ScopedModule(std::move(class_name)),
        wte_(child<Embedding>("wte", c.vocab, c.hidden, c.dtype)),
        wpe_(child<Embedding>("wpe", c.positions, c.hidden, c.dtype)) {
    for (int64_t i = 0; i < c.layers; ++i) {
      h_.push_back(item<Block>("h", i, c, i));
    }
    ln_f_ = child<LayerNorm>("ln_f", c.hidden, c.eps, c.dtype);
  }

  at::Tensor forward(const Tokens& tokens, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor words = wte_->forward(tokens.input_ids);
    at::Tensor x = words + wpe_->forward(tokens.positions);
    for (const auto& block : h_) {
      x = block->forward(x, attention);
    }
    return ln_f_->forward(tokens.select(x));
  }

  const at::Tensor& embedding() const { return wte_->weight(); }

 private:
  std::shared_ptr<Embedding> wte_;
  std::shared_ptr<Embedding> wpe_;
  std::vector<std::shared_ptr<Block>> h_;
  std::shared_ptr<LayerNorm> ln_f_;
};

/// x + attn(ln_1(x)), then y + mlp(ln_2(y)). `Attn` has a constructor (config, layer) and forward(x, attention), `Mlp`
/// one of (config) and forward(x).
template <typename Attn, typename Mlp, typename Shape>
class Gpt2Block : public ScopedModule {
 public:
  Gpt2Block(std::string class_name, const Shape& c, int64_t layer)
      : ScopedModule(std::move(class_name)),
        ln_1_(child<LayerNorm>("ln_1", c.hidden, c.eps, c.dtype)),
        attn_(child<Attn>("attn", c, layer)),
        ln_2_(child<LayerNorm>("ln_2", c.hidden, c.eps, c.dtype)),
        mlp_(child<Mlp>("mlp", c)) {}

  at::Tensor forward(const at::Tensor& x, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor attended = attn_->forward(ln_1_->forward(x), attention) + x;
    return attended + mlp_->forward(ln_2_->forward(attended));
  }

 private:
  std::shared_ptr<LayerNorm> ln_1_;
  std::shared_ptr<Attn> attn_;
  std::shared_ptr<LayerNorm> ln_2_;
  std::shared_ptr<Mlp> mlp_;
};

}  // namespace shardpipe::hf
