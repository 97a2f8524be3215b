// BERT (transformers' modeling_bert.py): LayerNorm behind each sum, learned positions, token types.
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "frontend/hf/encoder.h"
#include "frontend/hf/limits.h"
#include "frontend/hf/registry.h"

namespace shardpipe::hf {
namespace {

struct BertConfig {
  int64_t layers;
  int64_t hidden;
  int64_t inner;
  int64_t heads;
  int64_t vocab;
  int64_t positions;
  int64_t types;
  int64_t labels;
  std::optional<int64_t> padding;  // its row gets no gradient
  double eps;
  Activation activation;
  at::ScalarType dtype;
};

// "num_labels", which config.json gives through id2label; two when it says nothing.
int64_t count_labels(const Config& config) {
  const Config labels = config.object("id2label");
  const auto named = static_cast<int64_t>(labels.json().size());
  return named > 0 ? named : config.integer("num_labels", 1, kMaxFeatures, 2);
}

BertConfig read_bert(const Config& config, at::ScalarType dtype) {
  BertConfig bert{};
  bert.dtype = dtype;
  bert.layers = config.integer("num_hidden_layers", 1, kMaxLayers, 12);
  bert.hidden = config.integer("hidden_size", 1, kMaxFeatures, 768);
  bert.inner = config.integer("intermediate_size", 1, kMaxFeatures, 3072);
  bert.heads = config.integer("num_attention_heads", 1, kMaxHeads, 12);
  if (bert.hidden % bert.heads != 0) {
    throw_input("{}; a multiple of the number of heads, {}, is expected", config.subject("hidden_size"), bert.heads);
  }
  bert.vocab = config.integer("vocab_size", 1, kMaxVocabulary, 30522);
  bert.positions = config.integer("max_position_embeddings", 1, kMaxFeatures, 512);
  bert.types = config.integer("type_vocab_size", 1, kMaxFeatures, 2);
  bert.labels = count_labels(config);
  const bool no_padding = config.written("pad_token_id") && !config.has("pad_token_id");
  if (!no_padding) {
    const int64_t row = config.integer("pad_token_id", -1, bert.vocab - 1, 0);
    bert.padding = row < 0 ? std::nullopt : std::optional(row);
  }
  bert.eps = config.number("layer_norm_eps", 0.0, 1.0, 1e-12);
  bert.activation = find_activation(config, "hidden_act", "gelu");
  if (config.boolean("is_decoder", false)) {
    throw_usage("{}, which is not supported: BERT runs as an encoder", config.subject("is_decoder"));
  }
  if (config.string("position_embedding_type", "absolute") != "absolute") {
    throw_usage("{}; only \"absolute\" is supported", config.subject("position_embedding_type"));
  }
  return bert;
}

class BertEmbeddings : public ScopedModule {
 public:
  explicit BertEmbeddings(const BertConfig& c)
      : ScopedModule("BertEmbeddings"),
        words_(child<Embedding>("word_embeddings", c.vocab, c.hidden, c.dtype, c.padding)),
        positions_(child<Embedding>("position_embeddings", c.positions, c.hidden, c.dtype)),
        types_(child<Embedding>("token_type_embeddings", c.types, c.hidden, c.dtype)),
        norm_(child<LayerNorm>("LayerNorm", c.hidden, c.eps, c.dtype)) {}

  at::Tensor forward(const at::Tensor& ids, const at::Tensor& types) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor words = words_->forward(ids) + types_->forward(types);
    return norm_->forward(words + positions_->forward(at::arange(ids.size(1), ids.options())));
  }

  const at::Tensor& words() const { return words_->weight(); }

 private:
  std::shared_ptr<Embedding> words_;
  std::shared_ptr<Embedding> positions_;
  std::shared_ptr<Embedding> types_;
  std::shared_ptr<LayerNorm> norm_;
};

class BertSelfAttention : public ScopedModule {
 public:
  explicit BertSelfAttention(const BertConfig& c)
      : ScopedModule("BertSelfAttention"),
        heads_(c.heads),
        query_(child<Linear>("query", c.hidden, c.hidden, true, c.dtype)),
        key_(child<Linear>("key", c.hidden, c.hidden, true, c.dtype)),
        value_(child<Linear>("value", c.hidden, c.hidden, true, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor q = heads_first(query_->forward(x), heads_);
    const at::Tensor k = heads_first(key_->forward(x), heads_);
    const at::Tensor v = heads_first(value_->forward(x), heads_);
    return join_heads(at::scaled_dot_product_attention(q, k, v, mask));
  }

 private:
  int64_t heads_;
  std::shared_ptr<Linear> query_;
  std::shared_ptr<Linear> key_;
  std::shared_ptr<Linear> value_;
};

// BertSelfOutput and BertOutput: norm(dense(x) + residual).
class BertSum : public ScopedModule {
 public:
  BertSum(const char* class_name, int64_t in, const BertConfig& c)
      : ScopedModule(class_name),
        dense_(child<Linear>("dense", in, c.hidden, true, c.dtype)),
        norm_(child<LayerNorm>("LayerNorm", c.hidden, c.eps, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual) const {
    const trace::ModuleScope scope = enter();
    return norm_->forward(dense_->forward(x) + residual);
  }

 private:
  std::shared_ptr<Linear> dense_;
  std::shared_ptr<LayerNorm> norm_;
};

class BertAttention : public ScopedModule {
 public:
  explicit BertAttention(const BertConfig& c)
      : ScopedModule("BertAttention"),
        self_(child<BertSelfAttention>("self", c)),
        output_(child<BertSum>("output", "BertSelfOutput", c.hidden, c)) {}

  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask) const {
    const trace::ModuleScope scope = enter();
    return output_->forward(self_->forward(x, mask), x);
  }

 private:
  std::shared_ptr<BertSelfAttention> self_;
  std::shared_ptr<BertSum> output_;
};

// act(dense(x)): BertIntermediate; with a norm behind, BertPredictionHeadTransform.
class BertIntermediate : public ScopedModule {
 public:
  BertIntermediate(const char* class_name, int64_t out, bool norm, const BertConfig& c)
      : ScopedModule(class_name),
        activation_(c.activation),
        dense_(child<Linear>("dense", c.hidden, out, true, c.dtype)),
        norm_(norm ? child<LayerNorm>("LayerNorm", out, c.eps, c.dtype) : nullptr) {}

  at::Tensor forward(const at::Tensor& x) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor result = activation_(dense_->forward(x));
    return norm_ == nullptr ? result : norm_->forward(result);
  }

 private:
  Activation activation_;
  std::shared_ptr<Linear> dense_;
  std::shared_ptr<LayerNorm> norm_;
};

class BertLayer : public ScopedModule {
 public:
  explicit BertLayer(const BertConfig& c)
      : ScopedModule("BertLayer"),
        attention_(child<BertAttention>("attention", c)),
        intermediate_(child<BertIntermediate>("intermediate", "BertIntermediate", c.inner, false, c)),
        output_(child<BertSum>("output", "BertOutput", c.inner, c)) {}

  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor attended = attention_->forward(x, mask);
    return output_->forward(intermediate_->forward(attended), attended);
  }

 private:
  std::shared_ptr<BertAttention> attention_;
  std::shared_ptr<BertIntermediate> intermediate_;
  std::shared_ptr<BertSum> output_;
};

class BertEncoder : public ScopedModule {
 public:
  explicit BertEncoder(const BertConfig& c) : ScopedModule("BertEncoder") {
    for (int64_t i = 0; i < c.layers; ++i) {
      layers_.push_back(item<BertLayer>("layer", i, c));
    }
  }

  at::Tensor forward(at::Tensor x, const at::Tensor& mask) const {
    const trace::ModuleScope scope = enter();
    for (const auto& layer : layers_) {
      x = layer->forward(x, mask);
    }
    return x;
  }

 private:
  std::vector<std::shared_ptr<BertLayer>> layers_;
};

class BertPooler : public ScopedModule {
 public:
  explicit BertPooler(const BertConfig& c)
      : ScopedModule("BertPooler"), dense_(child<Linear>("dense", c.hidden, c.hidden, true, c.dtype)) {}

  // Of the first token.
  at::Tensor forward(const at::Tensor& x) const {
    const trace::ModuleScope scope = enter();
    return at::tanh(dense_->forward(x.select(1, 0)));
  }

 private:
  std::shared_ptr<Linear> dense_;
};

// The base model, alone or under "bert".
class BertModel : public ForwardModel {
 public:
  BertModel(const BertConfig& c, bool pooler)
      : ForwardModel("BertModel"),
        embeddings_(child<BertEmbeddings>("embeddings", c)),
        encoder_(child<BertEncoder>("encoder", c)),
        pooler_(pooler ? child<BertPooler>("pooler", c) : nullptr) {}

  // pooler_output last, if there is a pooler.
  trace::NamedOutputs forward(const std::vector<at::Tensor>& tensors) override {
    const at::Tensor mask = attended(tensors[1]);
    const at::Tensor hidden = encoder_->forward(embeddings_->forward(tensors[0], tensors[2]), mask);
    trace::NamedOutputs outputs = {{"last_hidden_state", hidden}};
    if (pooler_ != nullptr) {
      outputs.emplace_back("pooler_output", pooler_->forward(hidden));
    }
    return outputs;
  }

  const at::Tensor& words() const { return embeddings_->words(); }

 private:
  std::shared_ptr<BertEmbeddings> embeddings_;
  std::shared_ptr<BertEncoder> encoder_;
  std::shared_ptr<BertPooler> pooler_;
};

trace::NamedOutputs run_base(BertModel& bert, const std::vector<at::Tensor>& tensors) {
  const trace::ModuleScope scope("bert", "BertModel");
  return bert.forward(tensors);
}

class BertForSequenceClassification : public ForwardModel {
 public:
  explicit BertForSequenceClassification(const BertConfig& c)
      : ForwardModel("BertForSequenceClassification"),
        bert_(child<BertModel>("bert", c, true)),
        classifier_(child<Linear>("classifier", c.hidden, c.labels, true, c.dtype)) {}

  trace::NamedOutputs forward(const std::vector<at::Tensor>& tensors) override {
    return {{"logits", classifier_->forward(run_base(*bert_, tensors).back().second)}};
  }

 private:
  std::shared_ptr<BertModel> bert_;
  std::shared_ptr<Linear> classifier_;
};

class BertLMPredictionHead : public ScopedModule {
 public:
  BertLMPredictionHead(const BertConfig& c, const at::Tensor& words, bool tie)
      : ScopedModule("BertLMPredictionHead"),
        transform_(child<BertIntermediate>("transform", "BertPredictionHeadTransform", c.hidden, true, c)),
        decoder_(
            tie ? child<Linear>("decoder", words, weight("bias", {c.vocab}, c.dtype))
                : child<Linear>("decoder", c.hidden, c.vocab, true, c.dtype)) {}

  at::Tensor forward(const at::Tensor& x) const {
    const trace::ModuleScope scope = enter();
    return decoder_->forward(transform_->forward(x));
  }

 private:
  std::shared_ptr<BertIntermediate> transform_;
  std::shared_ptr<Linear> decoder_;
};

// BertOnlyMLMHead and BertPreTrainingHeads.
class BertHeads : public ScopedModule {
 public:
  BertHeads(const BertConfig& c, const at::Tensor& words, bool tie, bool next_sentence)
      : ScopedModule(next_sentence ? "BertPreTrainingHeads" : "BertOnlyMLMHead"),
        predictions_(child<BertLMPredictionHead>("predictions", c, words, tie)),
        relationship_(next_sentence ? child<Linear>("seq_relationship", c.hidden, 2, true, c.dtype) : nullptr) {}

  trace::NamedOutputs forward(const trace::NamedOutputs& base) const {
    const trace::ModuleScope scope = enter();
    const at::Tensor scores = predictions_->forward(base.front().second);
    if (relationship_ == nullptr) {
      return {{"logits", scores}};
    }
    return {{"prediction_logits", scores}, {"seq_relationship_logits", relationship_->forward(base.back().second)}};
  }

 private:
  std::shared_ptr<BertLMPredictionHead> predictions_;
  std::shared_ptr<Linear> relationship_;
};

// BertForMaskedLM and BertForPreTraining.
class BertWithHeads : public ForwardModel {
 public:
  BertWithHeads(const BertConfig& c, bool tie, bool next_sentence)
      : ForwardModel(next_sentence ? "BertForPreTraining" : "BertForMaskedLM"),
        bert_(child<BertModel>("bert", c, next_sentence)),
        cls_(child<BertHeads>("cls", c, bert_->words(), tie, next_sentence)) {}

  trace::NamedOutputs forward(const std::vector<at::Tensor>& tensors) override {
    return cls_->forward(run_base(*bert_, tensors));
  }

 private:
  std::shared_ptr<BertModel> bert_;
  std::shared_ptr<BertHeads> cls_;
};

// The class that the first known architecture names; without any, the base model, as transformers' AutoModel.
std::shared_ptr<ForwardModel> make_class(
    const Config& config, const BertConfig& bert, bool tie, const checkpoint::Checkpoint* weights) {
  const std::vector<std::string> names = config.strings("architectures");
  const std::string name = names.empty() ? "BertModel" : names.front();
  if (name == "BertForSequenceClassification") {
    return std::make_shared<BertForSequenceClassification>(bert);
  }
  if (name == "BertForMaskedLM" || name == "BertForPreTraining") {
    return std::make_shared<BertWithHeads>(bert, tie, name == "BertForPreTraining");
  }
  // Models of sentence embeddings are saved with or without the pooler, which they do not use.
  const bool pooler =
      weights == nullptr || weights->contains("pooler.dense.weight") || weights->contains("bert.pooler.dense.weight");
  return std::make_shared<BertModel>(bert, pooler);
}

std::shared_ptr<ForwardModel> build_bert(
    const Config& config, at::ScalarType dtype, bool tie, const checkpoint::Checkpoint* weights) {
  const BertConfig bert = read_bert(config, dtype);
  std::shared_ptr<ForwardModel> model = make_class(config, bert, tie, weights);
  model->inputs = {ids_input("input_ids"), ids_input("attention_mask"), ids_input("token_type_ids")};
  model->optional_inputs = {{"attention_mask", "input_ids", 1}, {"token_type_ids", "input_ids", 0}};
  model->id_limits = {{"input_ids", bert.vocab}, {"token_type_ids", bert.types}};
  model->vocab_size = bert.vocab;
  model->max_positions = bert.positions;
  model->bounded_positions = true;
  return model;
}

constexpr std::array<std::string_view, 4> kArchitectures = {
    "BertModel", "BertForSequenceClassification", "BertForMaskedLM", "BertForPreTraining"};
constexpr std::array<std::string_view, 2> kIgnored = {"*embeddings.position_ids", "*embeddings.token_type_ids"};
// Of the first checkpoints, converted from TensorFlow; and the head's bias, which goes by both of its names.
constexpr std::array<OtherName, 4> kOtherNames = {
    {{"LayerNorm.weight", "LayerNorm.gamma"},
     {"LayerNorm.bias", "LayerNorm.beta"},
     {"cls.predictions.bias", "cls.predictions.decoder.bias"},
     {"cls.predictions.decoder.bias", "cls.predictions.bias"}}};

}  // namespace

const Family kBert = {
    .model_type = "bert",
    .architectures = kArchitectures,
    .build_forward = build_bert,
    .base_prefix = "bert.",
    .embedding = "bert.embeddings.word_embeddings.weight",
    .head = "cls.predictions.decoder.weight",
    .ignored = kIgnored,
    .other_names = kOtherNames,
    .tied_by_default = true,
};

}  // namespace shardpipe::hf
