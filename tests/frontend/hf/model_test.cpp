// Traced folders: names, paths, dimensions, ties, and that nothing is allocated.
#include "frontend/hf/model.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <set>

#include "frontend/hf/registry.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "model_folder.h"

namespace shardpipe::hf {
namespace {

using graph::Graph;
using graph::Value;
using graph::ValueKind;
using test::bert_json;
using test::gpt2_json;
using test::llama_json;
using test::ModelFolder;
using test::t5_json;
using test::with;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Pair;
using ::testing::UnorderedElementsAreArray;

FolderModel load(const Json& config, std::optional<at::ScalarType> dtype = std::nullopt) {
  const ModelFolder folder(config);
  return load_folder_model(folder.path(), dtype);
}

const Value& value(const Graph& graph, const std::string& name) {
  const graph::ValueId id = graph.find(name);
  EXPECT_NE(id, graph::kNoValue) << name;
  return graph.values.at(static_cast<size_t>(id));
}

std::set<std::string> paths(const Graph& graph) {
  std::set<std::string> result;
  for (const graph::Node& node : graph.nodes) {
    result.insert(node.module);
  }
  return result;
}

TEST(FolderModel, LlamaProgram) {
  const FolderModel model = load(llama_json());
  EXPECT_EQ(model.family, "llama");
  EXPECT_EQ(model.dtype, at::kFloat);
  EXPECT_EQ(model.vocab_size, 101);
  EXPECT_EQ(model.max_positions, 128);
  EXPECT_FALSE(model.learned_positions);
  EXPECT_THAT(model.generation.eos_token_ids, ElementsAre(2));
  const Graph& graph = model.graph;
  graph::verify(graph, "the test");
  EXPECT_THAT(graph.dimensions, ElementsAre("tokens", "outputs", "slots", "capacity"));
  std::vector<std::string> inputs;
  for (const graph::ValueId id : graph.inputs) {
    const Value& input = graph.values[static_cast<size_t>(id)];
    inputs.push_back(input.name + " " + graph::to_string(*input.shape));
    EXPECT_EQ(input.dtype, at::kLong);
  }
  EXPECT_THAT(inputs, ElementsAre("input_ids [tokens]", "positions [tokens]", "slots [tokens]", "selected [outputs]"));
  ASSERT_EQ(graph.outputs.size(), 1U);
  EXPECT_EQ(graph.outputs[0].name, "logits");
  EXPECT_EQ(graph::to_string(*graph.values[static_cast<size_t>(graph.outputs[0].value)].shape), "[outputs, 101]");
  for (const char* name : {"model.layers.0.self_attn.k_cache", "model.layers.2.self_attn.v_cache"}) {
    const Value& cache = value(graph, name);
    EXPECT_EQ(cache.kind, ValueKind::state);
    EXPECT_EQ(cache.state, graph::StateKind::per_sequence);
    EXPECT_EQ(graph::to_string(*cache.shape), "[slots, 2, capacity, 12]");
    EXPECT_EQ(cache.dtype, at::kFloat);
  }
  EXPECT_EQ(graph::to_string(*value(graph, "model.layers.1.self_attn.k_proj.weight").shape), "[24, 48]");
  EXPECT_EQ(graph.find("model.layers.1.self_attn.k_proj.bias"), graph::kNoValue);
  const Value& inv_freq = value(graph, "model.rotary_emb.inv_freq");
  EXPECT_EQ(inv_freq.kind, ValueKind::buffer);
  EXPECT_TRUE(inv_freq.content.defined());
}

TEST(FolderModel, LlamaPathsAreHuggingFaces) {
  const Graph graph = load(llama_json()).graph;
  EXPECT_THAT(
      graph.modules,
      IsSupersetOf(
          {Pair("model", "LlamaModel"), Pair("model.embed_tokens", "Embedding"),
           Pair("model.rotary_emb", "LlamaRotaryEmbedding"), Pair("model.layers.2", "LlamaDecoderLayer"),
           Pair("model.layers.2.input_layernorm", "LlamaRMSNorm"), Pair("model.layers.2.self_attn", "LlamaAttention"),
           Pair("model.layers.2.self_attn.q_proj", "Linear"), Pair("model.layers.2.mlp", "LlamaMLP"),
           Pair("model.layers.2.mlp.down_proj", "Linear"), Pair("model.norm", "LlamaRMSNorm"),
           Pair("lm_head", "Linear")}));
  EXPECT_EQ(graph.modules.count("model.layers.3"), 0U);
  EXPECT_THAT(
      paths(graph), IsSupersetOf(
                        {"model", "model.embed_tokens", "model.layers.0", "model.layers.0.self_attn",
                         "model.layers.0.mlp", "model.norm", "lm_head"}));
  // Nodes of a layer stand together, in order: a cut between two layers is a cut in the node order.
  std::vector<std::string> order;
  for (const graph::Node& node : graph.nodes) {
    const std::string part = node.module.substr(0, std::string("model.layers.0").size());
    if (part.starts_with("model.layers.") && (order.empty() || order.back() != part)) {
      order.push_back(part);
    }
  }
  EXPECT_THAT(order, ElementsAre("model.layers.0", "model.layers.1", "model.layers.2"));
}

TEST(FolderModel, Gpt2Program) {
  const FolderModel model = load(gpt2_json());
  EXPECT_EQ(model.family, "gpt2");
  EXPECT_EQ(model.max_positions, 64);
  EXPECT_TRUE(model.learned_positions);
  EXPECT_THAT(
      model.graph.modules,
      IsSupersetOf(
          {Pair("transformer", "GPT2Model"), Pair("transformer.wte", "Embedding"), Pair("transformer.wpe", "Embedding"),
           Pair("transformer.h.1", "GPT2Block"), Pair("transformer.h.1.ln_1", "LayerNorm"),
           Pair("transformer.h.1.attn", "GPT2Attention"), Pair("transformer.h.1.attn.c_attn", "Conv1D"),
           Pair("transformer.h.1.mlp", "GPT2MLP"), Pair("transformer.h.1.mlp.c_proj", "Conv1D"),
           Pair("transformer.ln_f", "LayerNorm"), Pair("lm_head", "Linear")}));
  EXPECT_EQ(graph::to_string(*value(model.graph, "transformer.h.0.attn.c_attn.weight").shape), "[48, 144]");
  EXPECT_EQ(graph::to_string(*value(model.graph, "transformer.h.0.attn.k_cache").shape), "[slots, 4, capacity, 12]");
  // Tied by default.
  EXPECT_THAT(value(model.graph, "transformer.wte.weight").tied_names, ElementsAre("lm_head.weight"));
}

TEST(FolderModel, OtherNamesOfGpt2Sizes) {
  const Json renamed = Json::parse(
      R"({"model_type": "gpt2", "vocab_size": 93, "hidden_size": 48, "num_hidden_layers": 3,
          "num_attention_heads": 4, "max_position_embeddings": 64, "eos_token_id": 7})");
  EXPECT_EQ(graph::print(load(renamed).graph), graph::print(load(gpt2_json()).graph));
}

TEST(FolderModel, Ties) {
  const FolderModel tied = load(with(llama_json(), {{"tie_word_embeddings", true}}));
  EXPECT_THAT(value(tied.graph, "model.embed_tokens.weight").tied_names, ElementsAre("lm_head.weight"));
  EXPECT_THAT(tied.names.tied, ElementsAre(ElementsAre("model.embed_tokens.weight", "lm_head.weight")));
  for (const char* untied : {R"({"tie_word_embeddings": false})", R"({"tie_word_embeddings": "REMOVE"})"}) {
    const FolderModel model = load(with(llama_json(), Json::parse(untied)));
    EXPECT_THAT(value(model.graph, "model.embed_tokens.weight").tied_names, IsEmpty());
    EXPECT_EQ(value(model.graph, "lm_head.weight").name, "lm_head.weight");
    EXPECT_THAT(model.names.tied, IsEmpty());
  }
}

TEST(FolderModel, Dtypes) {
  EXPECT_EQ(load(with(llama_json(), {{"torch_dtype", "bfloat16"}})).dtype, at::kBFloat16);
  EXPECT_EQ(load(with(llama_json(), {{"torch_dtype", "float16"}, {"dtype", "torch.bfloat16"}})).dtype, at::kBFloat16);
  EXPECT_EQ(load(with(llama_json(), {{"dtype", nullptr}, {"torch_dtype", "float16"}})).dtype, at::kHalf);
  for (const Json& config : {llama_json(), gpt2_json()}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
      const FolderModel model = load(config, dtype);
      EXPECT_EQ(model.graph.values[static_cast<size_t>(model.graph.outputs[0].value)].dtype, dtype);
      for (const graph::ValueId id : model.graph.used_tensors()) {
        const Value& tensor = model.graph.values[static_cast<size_t>(id)];
        EXPECT_EQ(tensor.dtype, tensor.content.defined() ? at::kFloat : dtype) << tensor.name;
      }
    }
  }
}

TEST(FolderModel, GraphTextRoundTrip) {
  for (const Json& config : {llama_json(), gpt2_json()}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const std::string text = graph::print(load(config, dtype).graph);
      const Graph parsed = graph::parse(text, "the test");
      EXPECT_EQ(graph::print(parsed), text);
      graph::verify(parsed, "parse");
    }
  }
}

TEST(FolderModel, HarmlessKeysAreIgnored) {
  const Json harmless = Json::parse(
      R"({"pretraining_tp": 2, "attention_dropout": 0.5, "use_cache": false, "sliding_window": null, "foo": {"bar": 1},
          "is_causal": true, "pruned_heads": {}, "layer_types": ["full_attention"], "quantization_config": null,
          "use_sliding_window": false})");
  EXPECT_EQ(graph::print(load(with(llama_json(), harmless)).graph), graph::print(load(llama_json()).graph));
  load(with(llama_json(), Json::parse(R"({"sliding_window": 8, "use_sliding_window": false})")));
}

TEST(FolderModel, ByArchitectureAlone) {
  EXPECT_EQ(load(with(llama_json(), {{"model_type", "REMOVE"}})).family, "llama");
}

TEST(FolderModel, EveryActivation) {
  std::set<std::string> graphs;
  const auto names = {"gelu",       "gelu_10", "gelu_new", "hardswish", "leaky_relu", "linear", "mish",
                      "quick_gelu", "relu",    "relu2",    "relu6",     "sigmoid",    "silu",   "tanh"};
  for (const char* name : names) {
    graphs.insert(graph::print(load(with(llama_json(), {{"hidden_act", name}})).graph));
  }
  EXPECT_EQ(graphs.size(), names.size());
}

TEST(FolderModel, RotaryThatDependsOnTheLengthBoundsPositions) {
  const FolderModel model =
      load(with(llama_json(), Json::parse(R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})")));
  EXPECT_TRUE(model.learned_positions);
  EXPECT_EQ(model.max_positions, 128);
}

TEST(FolderModel, LargestModelTakesNoMemory) {
  const auto peak_bytes = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss * 1024;
  };
  load(llama_json());
  const int64_t before = peak_bytes();
  const FolderModel model = load(with(llama_json(), Json::parse(R"({"num_hidden_layers": 126, "hidden_size": 16384,
      "intermediate_size": 53248, "num_attention_heads": 128, "num_key_value_heads": 8, "vocab_size": 128256,
      "max_position_embeddings": 131072, "torch_dtype": "bfloat16"})")));
  int64_t parameter_bytes = 0;
  for (const graph::ValueId id : model.graph.used_tensors()) {
    const Value& tensor = model.graph.values[static_cast<size_t>(id)];
    parameter_bytes += tensor.kind == ValueKind::parameter ? graph::size_bytes(tensor, {}) : 0;
  }
  EXPECT_EQ(parameter_bytes, 2 * int64_t{405'853'388'800});
  EXPECT_LT(peak_bytes() - before, int64_t{256} << 20);
}

TEST(Families, RowsAreComplete) {
  std::set<std::string_view> types;
  for (const Family& family : families()) {
    EXPECT_TRUE(types.insert(family.model_type).second);
    EXPECT_FALSE(family.architectures.empty());
    const ModelFolder folder(test::family_json(std::string(family.model_type)));
    const Program program = family.build != nullptr ? Program::generation : Program::forward;
    const FolderModel model = load_folder_model(folder.path(), std::nullopt, nullptr, program);
    EXPECT_EQ(model.family, family.model_type);
    value(model.graph, std::string(family.embedding));
    value(model.graph, std::string(family.head));
  }
}

FolderModel load_forward(const Json& config, std::optional<at::ScalarType> dtype = std::nullopt) {
  const ModelFolder folder(config);
  return load_folder_model(folder.path(), dtype, nullptr, Program::forward);
}

std::vector<std::string> described(const Graph& graph) {
  std::vector<std::string> result;
  for (const graph::ValueId id : graph.inputs) {
    const Value& input = graph.values[static_cast<size_t>(id)];
    result.push_back(input.name + " " + graph::to_string(*input.shape));
  }
  for (const auto& output : graph.outputs) {
    result.push_back(output.name + " " + graph::to_string(*graph.values[static_cast<size_t>(output.value)].shape));
  }
  return result;
}

TEST(ForwardProgram, Bert) {
  const FolderModel model = load_forward(bert_json());
  EXPECT_EQ(model.family, "bert");
  EXPECT_EQ(model.vocab_size, 97);
  EXPECT_EQ(model.max_positions, 24);
  EXPECT_TRUE(model.learned_positions);
  EXPECT_THAT(
      described(model.graph), ElementsAre(
                                  "input_ids [batch, seq]", "attention_mask [batch, seq]",
                                  "token_type_ids [batch, seq]", "logits [batch, seq, 97]"));
  EXPECT_THAT(
      model.graph.modules,
      IsSupersetOf(
          {Pair("bert", "BertModel"), Pair("bert.embeddings.word_embeddings", "Embedding"),
           Pair("bert.encoder.layer.2", "BertLayer"), Pair("bert.encoder.layer.2.attention.self", "BertSelfAttention"),
           Pair("bert.encoder.layer.0.attention.output.LayerNorm", "LayerNorm"), Pair("cls", "BertOnlyMLMHead"),
           Pair("cls.predictions.decoder", "Linear")}));
  EXPECT_THAT(
      value(model.graph, "bert.embeddings.word_embeddings.weight").tied_names,
      ElementsAre("cls.predictions.decoder.weight"));
  EXPECT_THAT(value(model.graph, "cls.predictions.bias").tied_names, ElementsAre("cls.predictions.decoder.bias"));
  ASSERT_EQ(model.optional_inputs.size(), 2U);
  EXPECT_EQ(model.optional_inputs[0].name, "attention_mask");
  EXPECT_EQ(model.optional_inputs[0].value, 1);
  EXPECT_EQ(model.optional_inputs[1].name, "token_type_ids");
  EXPECT_EQ(model.optional_inputs[1].value, 0);
}

TEST(ForwardProgram, BertClasses) {
  const auto outputs = [](const char* architecture, const char* changes) {
    Json config = with(bert_json(), Json::parse(changes));
    config["architectures"] = {architecture};
    std::vector<std::string> all = described(load_forward(config).graph);
    return std::vector<std::string>(all.begin() + 3, all.end());
  };
  EXPECT_THAT(
      outputs("BertModel", "{}"), ElementsAre("last_hidden_state [batch, seq, 48]", "pooler_output [batch, 48]"));
  EXPECT_THAT(
      outputs("BertForPreTraining", "{}"),
      ElementsAre("prediction_logits [batch, seq, 97]", "seq_relationship_logits [batch, 2]"));
  EXPECT_THAT(outputs("BertForSequenceClassification", "{}"), ElementsAre("logits [batch, 2]"));
  EXPECT_THAT(
      outputs("BertForSequenceClassification", R"({"id2label": {"0": "a", "1": "b", "2": "c"}})"),
      ElementsAre("logits [batch, 3]"));
  EXPECT_THAT(outputs("BertForSequenceClassification", R"({"num_labels": 5})"), ElementsAre("logits [batch, 5]"));
}

TEST(ForwardProgram, T5) {
  const FolderModel model = load_forward(t5_json());
  EXPECT_THAT(
      described(model.graph),
      ElementsAre(
          "input_ids [batch, seq]", "attention_mask [batch, seq]", "decoder_input_ids [batch, decoder_seq]",
          "decoder_attention_mask [batch, decoder_seq]", "logits [batch, decoder_seq, 83]"));
  EXPECT_THAT(
      model.graph.modules, IsSupersetOf(
                               {Pair("encoder", "T5Stack"), Pair("encoder.block.2.layer.1.DenseReluDense.wo", "Linear"),
                                Pair("decoder.block.0.layer.1.EncDecAttention", "T5Attention"),
                                Pair("decoder.block.2.layer.2.layer_norm", "T5LayerNorm"), Pair("lm_head", "Linear")}));
  EXPECT_THAT(
      value(model.graph, "shared.weight").tied_names,
      ElementsAre("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"));
  EXPECT_FALSE(model.learned_positions);
}

TEST(GenerationProgram, T5) {
  Json config = t5_json();
  config["num_decoder_layers"] = 2;
  const FolderModel model = load(config);
  EXPECT_TRUE(model.encoder_decoder);
  EXPECT_THAT(
      described(model.graph),
      ElementsAre(
          "input_ids [tokens]", "positions [tokens]", "slots [tokens]", "selected [outputs]", "source_ids [sources]",
          "source_positions [sources]", "source_slots [sources]", "source_lengths [slots]", "logits [outputs, 83]"));
  std::vector<std::string> states;
  for (const graph::Value& value : model.graph.values) {
    if (value.kind == graph::ValueKind::state) {
      EXPECT_EQ(value.state, graph::StateKind::per_sequence);
      states.push_back(value.name + " " + graph::to_string(*value.shape));
    }
  }
  std::vector<std::string> expected;
  for (const char* layer : {"decoder.block.0.layer.", "decoder.block.1.layer."}) {
    for (const char* cache : {".k_cache", ".v_cache"}) {
      expected.push_back(std::string(layer) + "0.SelfAttention" + cache + " [slots, 4, capacity, 12]");
      expected.push_back(std::string(layer) + "1.EncDecAttention" + cache + " [slots, 4, source_capacity, 12]");
    }
  }
  EXPECT_THAT(states, UnorderedElementsAreArray(expected));
  // The bias by distance: to both sides in the encoder, in the decoder all later keys count as the query's own
  // position.
  const auto rows = [&](const char* name, int64_t distance) {
    return value(model.graph, name).content[distance + 128].item<int64_t>();
  };
  EXPECT_EQ(value(model.graph, "encoder.bias_rows").content.numel(), 257);
  EXPECT_EQ(rows("encoder.bias_rows", 0), 0);
  EXPECT_EQ(rows("encoder.bias_rows", -3), 3);
  EXPECT_EQ(rows("encoder.bias_rows", 3), 19);
  EXPECT_EQ(rows("encoder.bias_rows", 128), 31);
  EXPECT_EQ(rows("decoder.bias_rows", 128), 0);
  EXPECT_EQ(rows("decoder.bias_rows", -128), 31);
  EXPECT_EQ(rows("decoder.bias_rows", -9), 9);
}

TEST(ForwardProgram, GraphTextRoundTrip) {
  for (const Json& config : {bert_json(), t5_json()}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      const std::string text = graph::print(load_forward(config, dtype).graph);
      const Graph parsed = graph::parse(text, "the test");
      EXPECT_EQ(graph::print(parsed), text);
      graph::verify(parsed, "parse");
    }
  }
}

TEST(ForwardProgram, Refusals) {
  const auto refused = [](ErrorCode code, const Json& base, const char* changes, const std::string& message) {
    test::expect_error(code, {message}, [&] { load_forward(with(base, Json::parse(changes))); });
  };
  refused(ErrorCode::input, bert_json(), R"({"num_attention_heads": 5})", "a multiple of the number of heads, 5");
  refused(ErrorCode::usage, bert_json(), R"({"is_decoder": true})", "BERT runs as an encoder");
  refused(
      ErrorCode::usage, bert_json(), R"({"position_embedding_type": "relative_key"})",
      "\"relative_key\"; only \"absolute\" is supported");
  refused(ErrorCode::usage, bert_json(), R"({"is_encoder_decoder": true})", "is_encoder_decoder");
  refused(ErrorCode::usage, t5_json(), R"({"is_encoder_decoder": false})", "is_encoder_decoder");
  refused(ErrorCode::usage, t5_json(), R"({"feed_forward_proj": "gated-best"})", "known activations are");
  refused(
      ErrorCode::input, t5_json(), R"({"relative_attention_max_distance": 16})", "more than half of the 32 buckets");
  refused(ErrorCode::usage, t5_json(), R"({"torch_dtype": "float16"})", "T5 does not run in float16");
  refused(ErrorCode::input, t5_json(), R"({"relative_attention_max_distance": 65537})", "relative_attention_max");
  test::expect_error(ErrorCode::usage, {"have no generation program"}, [&] { load(bert_json()); });
}

}  // namespace
}  // namespace shardpipe::hf
