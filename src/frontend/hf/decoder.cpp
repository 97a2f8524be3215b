#include "frontend/hf/decoder.h"

#include <ATen/ATen.h>

#include <limits>
#include <map>

#include "base/error.h"
#include "frontend/hf/attention_operators.h"

namespace shardpipe::hf {
namespace {

// Through the caches of the packed program.
class CachedAttention : public Attention {
 public:
  CachedAttention(
      const Decoder& decoder, const at::Tensor& positions, const at::Tensor& slots, std::vector<at::Tensor> caches)
      : decoder_(decoder), positions_(positions), slots_(slots), caches_(std::move(caches)) {
    if (decoder.slopes.defined()) {
      slopes_ = decoder.slopes;
    }
  }

  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override {
    const auto index = static_cast<size_t>(layer);
    const AttentionLayer& kind = decoder_.attention_layers[index];
    return cached_attention(
        q, k, v, caches_[2 * index], caches_[2 * index + 1], slots_, positions_,
        {.scale = kind.scale, .window = kind.window, .slopes = slopes_});
  }

 private:
  const Decoder& decoder_;
  at::Tensor positions_;
  at::Tensor slots_;
  std::vector<at::Tensor> caches_;  // keys and values of each layer in turn
  std::optional<at::Tensor> slopes_;
};

// Of [batch, seq] tokens among themselves, through LibTorch's own attention. The masks, which all layers of one window
// share, are made first.
class PlainAttention : public Attention {
 public:
  // seq_positions [seq]: 0, 1, ...; mask [batch, seq] or undefined.
  PlainAttention(const Decoder& decoder, const at::Tensor& seq_positions, const at::Tensor& mask, at::ScalarType dtype)
      : decoder_(decoder) {
    for (const AttentionLayer& layer : decoder.attention_layers) {
      if (masks_.count(layer.window) > 0) {
        continue;
      }
      at::Tensor& made = masks_[layer.window];
      if (!layer.window && !mask.defined() && !decoder.slopes.defined()) {
        continue;  // causal and nothing else
      }
      const at::Tensor back = seq_positions.unsqueeze(1) - seq_positions.unsqueeze(0);
      made = back.ge(0);
      if (layer.window) {
        made = made.logical_and(back.lt(*layer.window));
      }
      if (mask.defined()) {
        // A token always sees itself: softmax over nothing has no value and no gradient.
        made = made.logical_and(mask.ne(0).unsqueeze(1).unsqueeze(1).logical_or(back.eq(0)));
      }
      if (decoder.slopes.defined()) {
        made = biased(made, mask.defined() ? (mask.cumsum(1) - 1) * mask : seq_positions, dtype);
      }
    }
  }

  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) override {
    const AttentionLayer& kind = decoder_.attention_layers[static_cast<size_t>(layer)];
    const at::Tensor& mask = masks_.at(kind.window);
    const at::Tensor attended = at::scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
        mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt, 0.0, /*is_causal=*/!mask.defined(), kind.scale,
        /*enable_gqa=*/q.size(2) != k.size(2));
    return attended.transpose(1, 2).flatten(2);
  }

 private:
  // ALiBi counts positions without the padding: allowed [.., seq, seq], positions [.., seq].
  at::Tensor biased(const at::Tensor& allowed, const at::Tensor& positions, at::ScalarType dtype) const {
    const at::Tensor back = (positions.unsqueeze(-1) - positions.unsqueeze(-2)).unsqueeze(-3);
    const at::Tensor bias = decoder_.slopes.unsqueeze(1).unsqueeze(1) * back * -1;
    const at::Tensor masked = bias.masked_fill(allowed.logical_not(), -std::numeric_limits<double>::infinity());
    // One mask for a whole batch has two or four dimensions.
    return (masked.dim() == 3 ? masked.unsqueeze(0) : masked).to(dtype);
  }

  const Decoder& decoder_;
  std::map<std::optional<int64_t>, at::Tensor> masks_;  // by window; undefined: causal and nothing else
};

}  // namespace

void add_tensors(const torch::nn::Module& model, trace::Program& program) {
  for (const auto& parameter : model.named_parameters()) {
    program.tensors.push_back({parameter.key(), parameter.value(), graph::ValueKind::parameter});
  }
  for (const auto& buffer : model.named_buffers()) {
    program.tensors.push_back({buffer.key(), buffer.value(), graph::ValueKind::buffer});
  }
}

SelfAttention::SelfAttention(std::string class_name, const Sizes& sizes, int64_t layer, at::ScalarType dtype)
    : ScopedModule(std::move(class_name)),
      layer_(layer),
      head_dim_(sizes.head_dim),
      k_proj_(child<Linear>("k_proj", sizes.hidden, sizes.hidden, sizes.qkv_bias, dtype)),
      v_proj_(child<Linear>("v_proj", sizes.hidden, sizes.hidden, sizes.qkv_bias, dtype)),
      q_proj_(child<Linear>("q_proj", sizes.hidden, sizes.hidden, sizes.qkv_bias, dtype)),
      out_proj_(child<Linear>("out_proj", sizes.hidden, sizes.hidden, sizes.out_bias, dtype)) {}

at::Tensor SelfAttention::forward(const at::Tensor& x, Attention& attention) const {
  const trace::ModuleScope scope = enter();
  // The three products first: passes join neighbours that read the same input.
  const at::Tensor q = q_proj_->forward(x);
  const at::Tensor k = k_proj_->forward(x);
  const at::Tensor v = v_proj_->forward(x);
  return out_proj_->forward(
      attention.attend(layer_, split_heads(q, head_dim_), split_heads(k, head_dim_), split_heads(v, head_dim_)));
}

trace::Program generation_program(const std::shared_ptr<Decoder>& decoder, at::ScalarType dtype) {
  using graph::Size;
  const Size tokens = Size::symbol("tokens");
  trace::Program program;
  program.inputs = {
      {"input_ids", at::kLong, {tokens}},
      {"positions", at::kLong, {tokens}},
      {"slots", at::kLong, {tokens}},
      {"selected", at::kLong, {Size::symbol("outputs")}}};
  const graph::Shape cache = {Size::symbol("slots"), decoder->kv_heads, Size::symbol("capacity"), decoder->head_dim};
  for (const AttentionLayer& layer : decoder->attention_layers) {
    program.states.push_back({layer.path + ".k_cache", dtype, cache});
    program.states.push_back({layer.path + ".v_cache", dtype, cache});
  }
  add_tensors(*decoder, program);
  program.forward = [decoder](const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& states) {
    CachedAttention attention(*decoder, inputs[1], inputs[2], states);
    return trace::NamedOutputs{{"logits", decoder->forward({inputs[0], inputs[1], inputs[3]}, attention)}};
  };
  return program;
}

trace::Program forward_program(const std::shared_ptr<Decoder>& decoder, at::ScalarType dtype, bool with_mask) {
  const graph::Shape shape = {graph::Size::symbol("batch"), graph::Size::symbol("seq")};
  trace::Program program;
  program.inputs = {{"input_ids", at::kLong, shape}};
  if (with_mask) {
    program.inputs.push_back({"attention_mask", at::kLong, shape});
  }
  add_tensors(*decoder, program);
  // Slopes and the positions they multiply are float32; LibTorch's attention wants float64 masks with float64.
  const at::ScalarType bias = dtype == at::kDouble ? at::kDouble : at::kFloat;
  program.forward = [=](const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& /*states*/) {
    const at::Tensor& ids = inputs[0];
    const at::Tensor mask = with_mask ? inputs[1] : at::Tensor();
    const at::Tensor seq_positions = at::arange(ids.size(1), ids.options());
    PlainAttention attention(*decoder, seq_positions, mask, bias);
    const bool moved = with_mask && decoder->positions_follow_mask;
    const at::Tensor positions = moved ? mask.cumsum(1) * mask - 1 : seq_positions;
    return trace::NamedOutputs{{"logits", decoder->forward({ids, positions, {}}, attention)}};
  };
  return program;
}

int64_t head_size(const Config& config, Key hidden_key, int64_t hidden, int64_t heads) {
  if (hidden % heads != 0) {
    throw_input("{}; a multiple of the number of heads, {}, is expected", config.subject(hidden_key), heads);
  }
  return hidden / heads;
}

at::Tensor split_heads(const at::Tensor& x, int64_t head_dim) {
  return x.unflatten(-1, {-1, head_dim});
}

}  // namespace shardpipe::hf
