// CodeGen (transformers' modeling_codegen.py): attention and MLP side by side behind one norm, rotary positions on a
// part of each head, a head with a bias.
#include <ATen/ATen.h>

#include <array>
#include <cmath>

#include "base/error.h"
#include "frontend/hf/decoder.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"
#include "frontend/hf/rotary.h"

namespace shardpipe::hf {
namespace {

// The fused projection lies in as many blocks as the model was trained on cores.
constexpr int64_t kBlocks = 4;

struct CodegenConfig {
  int64_t layers;
  int64_t hidden;
  int64_t inner;
  int64_t heads;
  int64_t head_dim;
  int64_t rotary_dim;
  int64_t vocab;
  int64_t positions;
  double eps;
  Activation activation;
  at::ScalarType dtype;
};

CodegenConfig read_codegen(const Config& config, at::ScalarType dtype) {
  const Key hidden_key("n_embd", "hidden_size");
  const Key heads_key("n_head", "num_attention_heads");
  CodegenConfig codegen{};
  codegen.dtype = dtype;
  codegen.layers = config.integer({"n_layer", "num_hidden_layers"}, 1, kMaxLayers);
  codegen.hidden = config.integer(hidden_key, 1, kMaxFeatures / 4);
  codegen.inner = config.integer("n_inner", 1, kMaxFeatures, 4 * codegen.hidden);
  codegen.heads = config.integer(heads_key, 1, kMaxHeads);
  if (codegen.heads % kBlocks != 0) {
    throw_input("{}; a multiple of {} is expected", config.subject(heads_key), kBlocks);
  }
  codegen.head_dim = head_size(config, hidden_key, codegen.hidden, codegen.heads);
  codegen.rotary_dim = config.integer("rotary_dim", 2, kMaxHeadDim, 64);
  if (codegen.rotary_dim > codegen.head_dim || codegen.rotary_dim % 2 != 0) {
    throw_input(
        "rotary_dim in {} is {}; an even number up to the head size, {}, is expected", config.where(),
        codegen.rotary_dim, codegen.head_dim);
  }
  codegen.vocab = config.integer("vocab_size", 1, kMaxVocabulary);
  codegen.positions = config.integer({"n_positions", "max_position_embeddings"}, 1, kMaxFeatures, 2048);
  codegen.eps = config.number("layer_norm_epsilon", 0.0, 1.0, 1e-5);
  codegen.activation = find_activation(config, "activation_function", "gelu_new");
  return codegen;
}

class CodeGenAttention : public ScopedModule {
 public:
  CodeGenAttention(const CodegenConfig& c, int64_t layer)
      : ScopedModule("CodeGenAttention"),
        layer_(layer),
        head_dim_(c.head_dim),
        rotary_dim_(c.rotary_dim),
        qkv_proj_(child<Linear>("qkv_proj", c.hidden, 3 * c.hidden, false, c.dtype)),
        out_proj_(child<Linear>("out_proj", c.hidden, c.hidden, false, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, const RotaryAngles& angles, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    // Rows of qkv_proj: block by block the queries, values and keys of its heads.
    const at::Tensor qkv = qkv_proj_->forward(x).unflatten(-1, {kBlocks, 3, -1, head_dim_});
    const at::Tensor q = rotary(halves(qkv.select(-3, 0).flatten(-3, -2)), angles.cos, angles.sin);
    const at::Tensor k = rotary(halves(qkv.select(-3, 2).flatten(-3, -2)), angles.cos, angles.sin);
    const at::Tensor v = qkv.select(-3, 1).flatten(-3, -2);
    return out_proj_->forward(attention.attend(layer_, q, k, v));
  }

 private:
  // CodeGen turns neighbours, elements 2i and 2i + 1; the operator turns i and i + rotary_dim / 2. Queries and keys are
  // put in its order, which leaves their products as they are.
  at::Tensor halves(const at::Tensor& x) const {
    const at::Tensor turned = x.slice(-1, 0, rotary_dim_).unflatten(-1, {-1, 2}).transpose(-1, -2).flatten(-2);
    return rotary_dim_ == head_dim_ ? turned : at::cat({turned, x.slice(-1, rotary_dim_)}, -1);
  }

  int64_t layer_;
  int64_t head_dim_;
  int64_t rotary_dim_;
  std::shared_ptr<Linear> qkv_proj_;
  std::shared_ptr<Linear> out_proj_;
};

class CodeGenBlock : public ScopedModule {
 public:
  CodeGenBlock(const CodegenConfig& c, int64_t layer)
      : ScopedModule("CodeGenBlock"),
        ln_1_(child<LayerNorm>("ln_1", c.hidden, c.eps, c.dtype)),
        attn_(child<CodeGenAttention>("attn", c, layer)),
        mlp_(child<FeedForward>(
            "mlp", "CodeGenMLP", "fc_in", "fc_out", FeedForward::Sizes{c.hidden, c.inner}, c.activation, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, const RotaryAngles& angles, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor normed = ln_1_->forward(x);
    const at::Tensor attended = attn_->forward(normed, angles, attention);
    return attended + mlp_->forward(normed) + x;
  }

 private:
  std::shared_ptr<LayerNorm> ln_1_;
  std::shared_ptr<CodeGenAttention> attn_;
  std::shared_ptr<FeedForward> mlp_;
};

class CodeGenModel : public ScopedModule {
 public:
  explicit CodeGenModel(const CodegenConfig& c)
      : ScopedModule("CodeGenModel"),
        wte_(child<Embedding>("wte", c.vocab, c.hidden, c.dtype)),
        inv_freq_(register_buffer("inv_freq", default_inv_freq(10'000.0, c.rotary_dim))) {
    for (int64_t i = 0; i < c.layers; ++i) {
      h_.push_back(item<CodeGenBlock>("h", i, c, i));
    }
    ln_f_ = child<LayerNorm>("ln_f", c.hidden, c.eps, c.dtype);
  }

  at::Tensor forward(const Tokens& tokens, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    at::Tensor x = wte_->forward(tokens.input_ids);
    const RotaryAngles angles = rotary_angles(tokens.positions, inv_freq_);
    for (const auto& block : h_) {
      x = block->forward(x, angles, attention);
    }
    return ln_f_->forward(tokens.select(x));
  }

  const at::Tensor& embedding() const { return wte_->weight(); }

 private:
  std::shared_ptr<Embedding> wte_;
  at::Tensor inv_freq_;
  std::vector<std::shared_ptr<CodeGenBlock>> h_;
  std::shared_ptr<LayerNorm> ln_f_;
};

std::shared_ptr<Decoder> build_codegen(const Config& config, at::ScalarType dtype, bool tied) {
  const CodegenConfig c = read_codegen(config, dtype);
  const Head head{c.hidden, c.vocab, tied, /*bias=*/true};
  auto model = std::make_shared<CausalModel<CodeGenModel>>("CodeGenForCausalLM", "transformer", head, dtype, c);
  const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  for (int64_t i = 0; i < c.layers; ++i) {
    model->attention_layers.push_back({fmt::format("transformer.h.{}.attn", i), scale});
  }
  model->kv_heads = c.heads;
  model->head_dim = c.head_dim;
  model->max_positions = c.positions;
  model->bounded_positions = true;  // transformers' table of angles ends there
  return model;
}

constexpr std::array<std::string_view, 2> kArchitectures = {"CodeGenForCausalLM", "CodeGenModel"};
// Causal masks and tables that older versions saved.
constexpr std::array<std::string_view, 4> kIgnored = {
    "*.attn.causal_mask", "*.attn.bias", "*.attn.masked_bias", "*.attn.embed_positions"};

}  // namespace

const Family kCodegen = {
    .model_type = "codegen",
    .architectures = kArchitectures,
    .build = build_codegen,
    .base_prefix = "transformer.",
    .embedding = "transformer.wte.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .tied_by_default = false,
    .default_eos = 50256,
};

}  // namespace shardpipe::hf
