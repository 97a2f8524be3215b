// GPT-Neo (transformers' modeling_gpt_neo.py): GPT-2 with separate projections, scores that are not scaled, and layers
// that may attend to a window.
#include <ATen/ATen.h>

#include <array>

#include "base/error.h"
#include "frontend/hf/gpt2.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

struct GptNeoConfig {
  int64_t layers;
  int64_t hidden;
  int64_t inner;
  int64_t heads;
  int64_t head_dim;
  int64_t vocab;
  int64_t positions;
  double eps;
  Activation activation;
  std::vector<std::optional<int64_t>> windows;  // of each layer
  at::ScalarType dtype;
};

// The kind of each layer: "attention_types" is a list of [kinds, repetitions], [[["global", "local"], 12]]; files also
// hold the same written out, "attention_layers". No more than `limit` + 1 are made.
std::vector<std::string> attention_kinds(const Config& config, int64_t limit) {
  const Json* types = config.find("attention_types");
  if (types == nullptr && config.has("attention_layers")) {
    return config.strings("attention_layers");
  }
  const Json fallback = Json::parse(R"([[["global", "local"], 12]])");
  const Json& groups = types == nullptr ? fallback : *types;
  const auto is_group = [](const Json& group) {
    return group.is_array() && group.size() == 2 && group[0].is_array() && group[1].is_number_unsigned() &&
           std::all_of(group[0].begin(), group[0].end(), [](const Json& kind) { return kind.is_string(); });
  };
  if (!groups.is_array() || !std::all_of(groups.begin(), groups.end(), is_group)) {
    throw_input("{}; a list like [[[\"global\", \"local\"], 12]] is expected", config.subject("attention_types"));
  }
  std::vector<std::string> kinds;
  for (const Json& group : groups) {
    for (uint64_t i = 0; !group[0].empty() && i < group[1].get<uint64_t>(); ++i) {
      for (const Json& kind : group[0]) {
        if (static_cast<int64_t>(kinds.size()) <= limit) {
          kinds.push_back(kind.get<std::string>());
        }
      }
      if (static_cast<int64_t>(kinds.size()) > limit) {
        break;
      }
    }
  }
  return kinds;
}

std::vector<std::optional<int64_t>> read_windows(const Config& config, int64_t layers) {
  const std::vector<std::string> kinds = attention_kinds(config, layers);
  if (static_cast<int64_t>(kinds.size()) != layers) {
    throw_input(
        "\"attention_types\" in {} makes {}{} layers; num_layers, {}, are expected", config.where(),
        static_cast<int64_t>(kinds.size()) > layers ? "at least " : "", kinds.size(), layers);
  }
  const int64_t window = config.integer("window_size", 1, kMaxPositionCount, 256);
  std::vector<std::optional<int64_t>> windows;
  for (const std::string& kind : kinds) {
    if (kind != "global" && kind != "local") {
      throw_usage("\"attention_types\" in {} has \"{}\": global and local are known", config.where(), kind);
    }
    windows.push_back(kind == "local" ? std::optional<int64_t>(window) : std::nullopt);
  }
  return windows;
}

GptNeoConfig read_gpt_neo(const Config& config, at::ScalarType dtype) {
  GptNeoConfig neo{};
  neo.dtype = dtype;
  neo.layers = config.integer({"num_layers", "num_hidden_layers"}, 1, kMaxLayers);
  neo.hidden = config.integer("hidden_size", 1, kMaxFeatures / 4);
  neo.inner = config.integer("intermediate_size", 1, kMaxFeatures, 4 * neo.hidden);
  neo.heads = config.integer({"num_heads", "num_attention_heads"}, 1, kMaxHeads);
  neo.head_dim = head_size(config, "hidden_size", neo.hidden, neo.heads);
  neo.vocab = config.integer("vocab_size", 1, kMaxVocabulary);
  neo.positions = config.integer("max_position_embeddings", 1, kMaxFeatures, 2048);
  neo.eps = config.number("layer_norm_epsilon", 0.0, 1.0, 1e-5);
  neo.activation = find_activation(config, "activation_function", "gelu_new");
  neo.windows = read_windows(config, neo.layers);
  return neo;
}

class GPTNeoAttention : public ScopedModule {
 public:
  GPTNeoAttention(const GptNeoConfig& c, int64_t layer)
      : ScopedModule("GPTNeoAttention"),
        attention_(child<SelfAttention>(
            "attention",
            "GPTNeoSelfAttention",
            SelfAttention::Sizes{c.hidden, c.head_dim, false, true},
            layer,
            c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, Attention& attention) const {
    const trace::ModuleScope scope = enter();
    return attention_->forward(x, attention);
  }

 private:
  std::shared_ptr<SelfAttention> attention_;
};

struct GPTNeoMLP : FeedForward {
  explicit GPTNeoMLP(const GptNeoConfig& c)
      : FeedForward("GPTNeoMLP", "c_fc", "c_proj", Sizes{c.hidden, c.inner}, c.activation, c.dtype) {}
};

struct GPTNeoBlock : Gpt2Block<GPTNeoAttention, GPTNeoMLP, GptNeoConfig> {
  GPTNeoBlock(const GptNeoConfig& c, int64_t layer) : Gpt2Block("GPTNeoBlock", c, layer) {}
};

std::shared_ptr<Decoder> build_gpt_neo(const Config& config, at::ScalarType dtype, bool tied) {
  const GptNeoConfig c = read_gpt_neo(config, dtype);
  const Head head{c.hidden, c.vocab, tied};
  using Base = Gpt2Base<GPTNeoBlock, GptNeoConfig>;
  auto model = std::make_shared<CausalModel<Base>>("GPTNeoForCausalLM", "transformer", head, dtype, "GPTNeoModel", c);
  for (size_t i = 0; i < c.windows.size(); ++i) {
    model->attention_layers.push_back({fmt::format("transformer.h.{}.attn.attention", i), 1.0, c.windows[i]});
  }
  model->kv_heads = c.heads;
  model->head_dim = c.head_dim;
  model->max_positions = c.positions;
  model->bounded_positions = true;
  return model;
}

constexpr std::array<std::string_view, 2> kArchitectures = {"GPTNeoForCausalLM", "GPTNeoModel"};
// Causal masks that older versions saved.
constexpr std::array<std::string_view, 2> kIgnored = {"*.attn.attention.bias", "*.attn.attention.masked_bias"};

}  // namespace

const Family kGptNeo = {
    .model_type = "gpt_neo",
    .architectures = kArchitectures,
    .build = build_gpt_neo,
    .base_prefix = "transformer.",
    .embedding = "transformer.wte.weight",
    .head = "lm_head.weight",
    .ignored = kIgnored,
    .tied_by_default = true,
    .default_eos = 50256,
};

}  // namespace shardpipe::hf
