// What each family reads from config.json: windows, biases, names and what it refuses. The numbers are compared with
// transformers' in transformers_compare.cpp.
#include <gmock/gmock.h>

#include "frontend/hf/model.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "model_folder.h"

namespace shardpipe::hf {
namespace {

using test::expect_error;
using test::family_json;
using test::ModelFolder;
using test::with;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Pair;

FolderModel load(const std::string& family, const char* changes = "{}", Program program = Program::generation) {
  const ModelFolder folder(with(family_json(family), Json::parse(changes)));
  return load_folder_model(folder.path(), std::nullopt, nullptr, program);
}

void refused(ErrorCode code, const std::string& family, const char* changes, const std::vector<std::string>& parts) {
  SCOPED_TRACE(family + " " + changes);
  expect_error(code, parts, [&] { load(family, changes); });
}

void bad(const std::string& family, const char* changes, const std::vector<std::string>& parts) {
  refused(ErrorCode::input, family, changes, parts);
}

void unsupported(const std::string& family, const char* changes, const std::vector<std::string>& parts) {
  refused(ErrorCode::usage, family, changes, parts);
}

// The window of each layer's attention, 0 for none.
std::vector<int64_t> windows(const FolderModel& model) {
  std::vector<int64_t> result;
  for (const graph::Node& node : model.graph.nodes) {
    if (node.op_name() == "shardpipe::cached_attention_reference") {
      const c10::IValue& window = *node.arguments.at(8).as_constant();
      result.push_back(window.isNone() ? 0 : window.toInt());
    }
  }
  return result;
}

std::string shape(const FolderModel& model, const std::string& name) {
  const graph::ValueId id = model.graph.find(name);
  return id == graph::kNoValue ? "none" : graph::to_string(*model.graph.values[static_cast<size_t>(id)].shape);
}

TEST(Families, WindowsOfMistral) {
  EXPECT_THAT(windows(load("mistral", R"({"sliding_window": 7})")), ElementsAre(7, 7, 7));
  EXPECT_THAT(windows(load("mistral", R"({"sliding_window": null})")), ElementsAre(0, 0, 0));
  EXPECT_THAT(windows(load("mistral")), ElementsAre(4096, 4096, 4096));
  bad("mistral", R"({"sliding_window": 0})", {"\"sliding_window\" in ", "is 0; an integer from 1"});
  unsupported("mistral", R"({"layer_types": ["chunked_attention"]})", {"\"layer_types\"", "not supported yet"});
}

TEST(Families, WindowsOfQwen2) {
  EXPECT_THAT(windows(load("qwen2")), ElementsAre(0, 0, 0));
  EXPECT_THAT(windows(load("qwen2", R"({"sliding_window": 5, "max_window_layers": 1})")), ElementsAre(0, 0, 0));
  EXPECT_THAT(
      windows(load("qwen2", R"({"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1})")),
      ElementsAre(0, 5, 5));
  EXPECT_THAT(
      windows(load("qwen2", R"({"use_sliding_window": true, "max_window_layers": 2})")), ElementsAre(0, 0, 4096));
  EXPECT_THAT(
      windows(load("qwen2", R"({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 0})")),
      ElementsAre(0, 0, 0));
  EXPECT_THAT(
      windows(load("qwen2", R"({"use_sliding_window": true, "sliding_window": 5,
          "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})")),
      ElementsAre(5, 0, 5));
  bad("qwen2", R"({"layer_types": ["full_attention"]})", {"\"layer_types\" in ", "has 1 entries for 3 layers"});
  bad("qwen2", R"({"layer_types": ["full_attention", "full_attention", "sliding_attention"]})",
      {"asks for sliding_attention", "a number under sliding_window and use_sliding_window true"});
  unsupported(
      "qwen2", R"({"layer_types": ["full_attention", "full_attention", "chunked_attention"]})",
      {"has \"chunked_attention\": full_attention and sliding_attention are known"});
}

TEST(Families, WindowsOfGptNeo) {
  EXPECT_THAT(windows(load("gpt_neo")), ElementsAre(0, 8, 8));
  EXPECT_THAT(
      windows(load("gpt_neo", R"({"attention_types": null, "attention_layers": ["local", "global", "global"]})")),
      ElementsAre(8, 0, 0));
  const std::vector<int64_t> standard =
      windows(load("gpt_neo", R"({"attention_types": "REMOVE", "num_layers": 24, "window_size": "REMOVE"})"));
  EXPECT_EQ(standard.size(), 24U);
  EXPECT_EQ(standard[0], 0);
  EXPECT_EQ(standard[23], 256);
  bad("gpt_neo", R"({"attention_types": [[["local"], 2]]})", {"makes 2 layers; num_layers, 3, are expected"});
  bad("gpt_neo", R"({"attention_types": [[["local"], 4000000000]]})", {"makes at least 4 layers; num_layers, 3"});
  bad("gpt_neo", R"({"attention_types": []})", {"makes 0 layers"});
  for (const char* types : {"3", "[3]", "[[3, 3]]", R"([[["local"], -1]])", R"([["local", 3]])", "[[[1], 3]]"}) {
    bad("gpt_neo", (R"({"attention_types": )" + std::string(types) + "}").c_str(),
        {"\"attention_types\" in ", "a list like [[[\"global\", \"local\"], 12]] is expected"});
  }
  unsupported("gpt_neo", R"({"attention_types": [[["wide"], 3]]})", {"has \"wide\": global and local are known"});
}

TEST(Families, DefaultsOfLlamasKin) {
  EXPECT_EQ(load("mistral", R"({"max_position_embeddings": "REMOVE"})").max_positions, 131'072);
  EXPECT_EQ(load("qwen2", R"({"max_position_embeddings": "REMOVE"})").max_positions, 32'768);
  EXPECT_THAT(load("qwen2", R"({"eos_token_id": "REMOVE"})").generation.eos_token_ids, IsEmpty());
  EXPECT_THAT(load("mistral", R"({"eos_token_id": "REMOVE"})").generation.eos_token_ids, ElementsAre(2));
  bad("mistral", R"({"num_key_value_heads": "REMOVE"})", {"a multiple of num_key_value_heads, 8, is expected"});
  EXPECT_EQ(
      shape(load("mistral", R"({"num_key_value_heads": null})"), "model.layers.0.self_attn.k_cache"),
      "[slots, 4, capacity, 12]");
  EXPECT_EQ(
      shape(load("mistral", R"({"head_dim": 10, "hidden_size": 50})"), "model.layers.0.self_attn.q_proj.weight"),
      "[40, 50]");
}

TEST(Families, Biases) {
  const FolderModel qwen2 = load("qwen2");
  EXPECT_EQ(shape(qwen2, "model.layers.1.self_attn.q_proj.bias"), "[48]");
  EXPECT_EQ(shape(qwen2, "model.layers.1.self_attn.v_proj.bias"), "[24]");
  EXPECT_EQ(shape(qwen2, "model.layers.1.self_attn.o_proj.bias"), "none");
  EXPECT_EQ(shape(load("mistral"), "model.layers.1.self_attn.q_proj.bias"), "none");
  EXPECT_EQ(shape(load("gpt_neo"), "transformer.h.1.attn.attention.q_proj.bias"), "none");
  EXPECT_EQ(shape(load("gpt_neo"), "transformer.h.1.attn.attention.out_proj.bias"), "[48]");
  EXPECT_EQ(shape(load("codegen"), "lm_head.bias"), "[93]");
  EXPECT_EQ(shape(load("opt", R"({"enable_bias": false})"), "model.decoder.layers.0.fc1.bias"), "none");
}

TEST(Families, PathsAreHuggingFaces) {
  EXPECT_THAT(
      load("mistral").graph.modules,
      IsSupersetOf(
          {Pair("model", "MistralModel"), Pair("model.layers.2.self_attn", "MistralAttention"),
           Pair("model.layers.0.mlp", "MistralMLP"), Pair("model.norm", "MistralRMSNorm"),
           Pair("model.rotary_emb", "MistralRotaryEmbedding")}));
  EXPECT_THAT(load("qwen2").graph.modules, IsSupersetOf({Pair("model.layers.2", "Qwen2DecoderLayer")}));
  EXPECT_THAT(
      load("opt", R"({"word_embed_proj_dim": 20})").graph.modules,
      IsSupersetOf(
          {Pair("model", "OPTModel"), Pair("model.decoder", "OPTDecoder"), Pair("model.decoder.project_in", "Linear"),
           Pair("model.decoder.embed_positions", "OPTLearnedPositionalEmbedding"),
           Pair("model.decoder.layers.2", "OPTDecoderLayer"), Pair("model.decoder.layers.0.self_attn", "OPTAttention"),
           Pair("model.decoder.layers.0.self_attn_layer_norm", "LayerNorm"),
           Pair("model.decoder.layers.0.final_layer_norm", "LayerNorm"),
           Pair("model.decoder.final_layer_norm", "LayerNorm"), Pair("model.decoder.project_out", "Linear"),
           Pair("lm_head", "Linear")}));
  EXPECT_THAT(
      load("bloom").graph.modules,
      IsSupersetOf(
          {Pair("transformer", "BloomModel"), Pair("transformer.word_embeddings_layernorm", "LayerNorm"),
           Pair("transformer.h.1", "BloomBlock"), Pair("transformer.h.1.self_attention", "BloomAttention"),
           Pair("transformer.h.1.mlp", "BloomMLP"), Pair("transformer.h.1.mlp.dense_4h_to_h", "Linear")}));
  EXPECT_THAT(
      load("gpt_neo").graph.modules,
      IsSupersetOf(
          {Pair("transformer", "GPTNeoModel"), Pair("transformer.h.1", "GPTNeoBlock"),
           Pair("transformer.h.1.attn", "GPTNeoAttention"),
           Pair("transformer.h.1.attn.attention", "GPTNeoSelfAttention"), Pair("transformer.h.1.mlp", "GPTNeoMLP"),
           Pair("transformer.ln_f", "LayerNorm")}));
  EXPECT_THAT(
      load("codegen").graph.modules,
      IsSupersetOf(
          {Pair("transformer", "CodeGenModel"), Pair("transformer.h.1", "CodeGenBlock"),
           Pair("transformer.h.1.attn", "CodeGenAttention"), Pair("transformer.h.1.mlp", "CodeGenMLP")}));
}

TEST(Families, PositionsThatEnd) {
  for (const char* family : {"opt", "gpt_neo", "codegen"}) {
    EXPECT_EQ(load(family).max_positions, 64) << family;
    EXPECT_TRUE(load(family).learned_positions) << family;
  }
  EXPECT_EQ(shape(load("opt"), "model.decoder.embed_positions.weight"), "[66, 48]");
  EXPECT_FALSE(load("bloom").learned_positions);
  EXPECT_EQ(load("bloom", R"({"seq_length": 2048})").max_positions, 2048);
}

TEST(Families, OtherNamesOfSizes) {
  const auto same = [](const char* family, const char* renamed) {
    EXPECT_EQ(graph::print(load(family, renamed).graph), graph::print(load(family).graph)) << family;
  };
  same("bloom", R"({"n_layer": "REMOVE", "n_head": "REMOVE", "hidden_size": "REMOVE", "num_hidden_layers": 3,
      "num_attention_heads": 4, "n_embed": 48})");
  same("gpt_neo", R"({"num_layers": "REMOVE", "num_heads": "REMOVE", "num_hidden_layers": 3,
      "num_attention_heads": 4})");
  same("codegen", R"({"n_layer": "REMOVE", "n_head": "REMOVE", "n_embd": "REMOVE", "n_positions": "REMOVE",
      "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 48, "max_position_embeddings": 64})");
}

// Rows that transformers gives no gradient.
TEST(Families, PaddingRow) {
  const auto row = [](const FolderModel& model) {
    for (const graph::Node& node : model.graph.nodes) {
      if (node.op_name() == "aten::embedding") {
        return node.arguments.at(2).as_constant()->toInt();
      }
    }
    return int64_t{-2};
  };
  EXPECT_EQ(row(load("opt")), 1);
  EXPECT_EQ(row(load("opt", R"({"pad_token_id": null})")), -1);
  EXPECT_EQ(row(load("llama")), -1);
  EXPECT_EQ(row(load("mistral", R"({"pad_token_id": 3})")), 3);
  EXPECT_EQ(row(load("qwen2", R"({"pad_token_id": -1})")), 100);
  EXPECT_EQ(row(load("llama", R"({"pad_token_id": 101})")), -1);
  EXPECT_EQ(row(load("gpt2", R"({"pad_token_id": 3})")), -1);
}

TEST(Families, ImpossibleValues) {
  bad("opt", R"({"num_attention_heads": 5})", {"\"hidden_size\" in ", "is 48; a multiple of the number of heads, 5"});
  bad("opt", R"({"ffn_dim": "REMOVE"})", {"\"ffn_dim\" is missing in "});
  bad("opt", R"({"word_embed_proj_dim": 0})", {"\"word_embed_proj_dim\" in ", "is 0"});
  bad("bloom", R"({"n_head": 5})", {"\"hidden_size\" in ", "is 48; a multiple of the number of heads, 5"});
  bad("bloom", R"({"n_head": "REMOVE"})", {"\"n_head\" is missing in "});
  unsupported(
      "bloom", R"({"slow_but_exact": true, "pretraining_tp": 2})",
      {"\"slow_but_exact\" in ", "is true with a pretraining_tp above 1"});
  load("bloom", R"({"slow_but_exact": true})");
  bad("gpt_neo", R"({"num_heads": 5})", {"a multiple of the number of heads, 5"});
  bad("gpt_neo", R"({"window_size": 0})", {"\"window_size\" in ", "is 0; an integer from 1"});
  bad("codegen", R"({"n_head": 6})", {"\"n_head\" in ", "is 6; a multiple of 4 is expected"});
  bad("codegen", R"({"n_head": 8, "n_embd": 44})", {"\"n_embd\" in ", "is 44; a multiple of the number of heads, 8"});
  bad("codegen", R"({"rotary_dim": 14})", {"rotary_dim in ", "is 14; an even number up to the head size, 12"});
  bad("codegen", R"({"rotary_dim": 5})", {"is 5; an even number"});
  bad("codegen", R"({"rotary_dim": "REMOVE"})", {"is 64; an even number up to the head size, 12"});
}

TEST(Families, ForwardPrograms) {
  for (const char* family : {"bloom", "codegen", "gpt2", "gpt_neo", "llama", "mistral", "opt", "qwen2"}) {
    for (const Program program : {Program::forward, Program::forward_with_mask}) {
      SCOPED_TRACE(family);
      const graph::Graph graph = load(family, "{}", program).graph;
      graph::verify(graph, "the test");
      EXPECT_EQ(graph::print(graph::parse(graph::print(graph), "the test")), graph::print(graph));
      EXPECT_THAT(graph.dimensions, ElementsAre("batch", "seq"));
      std::vector<std::string> inputs;
      for (const graph::ValueId id : graph.inputs) {
        inputs.push_back(graph.values[static_cast<size_t>(id)].name);
      }
      if (program == Program::forward) {
        EXPECT_THAT(inputs, ElementsAre("input_ids"));
      } else {
        EXPECT_THAT(inputs, ElementsAre("input_ids", "attention_mask"));
      }
      EXPECT_EQ(graph.outputs.at(0).name, "logits");
      const graph::Value& logits = graph.values[static_cast<size_t>(graph.outputs[0].value)];
      EXPECT_EQ(graph::to_string(*logits.shape).substr(0, 12), "[batch, seq,");
      for (const graph::Value& value : graph.values) {
        EXPECT_NE(value.kind, graph::ValueKind::state);
      }
    }
  }
}

}  // namespace
}  // namespace shardpipe::hf
