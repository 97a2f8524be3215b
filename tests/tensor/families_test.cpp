// Every family of Hugging Face models divided over parts: outputs and gradients are those of the whole graph.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "frontend/hf/model.h"
#include "kernels/register.h"
#include "tensor/compare.h"

namespace shardpipe {
namespace {

struct Family {
  const char* name;
  int reductions = 0;       // of two layers
  int reductions_back = 0;  // of two layers, and where the head begins
  int embeddings = 1;
  int key_heads = 0;  // where they are fewer than query heads
  const char* config;

  // Keys and values that several parts share are whole before: two more places a layer where gradients are summed.
  int key_groups(int parts) const { return key_heads > 0 && parts > key_heads ? 4 : 0; }
};

constexpr Family kFamilies[] = {
    {"llama9_3", 4, 5, 1, 3,
     R"({"model_type":"llama","vocab_size":101,"hidden_size":72,"intermediate_size":80,"num_hidden_layers":2,
         "num_attention_heads":9,"num_key_value_heads":3,"max_position_embeddings":128,"rms_norm_eps":1e-5,"tie_word_embeddings":true})"},
    {"llama_biases", 4, 5, 1, 0,
     R"({"model_type":"llama","vocab_size":96,"hidden_size":48,"intermediate_size":80,"num_hidden_layers":2,
         "num_attention_heads":4,"num_key_value_heads":4,"max_position_embeddings":128,"rms_norm_eps":1e-5,
         "attention_bias":true,"mlp_bias":true})"},
    {"opt", 4, 5, 1, 0,
     R"({"model_type":"opt","vocab_size":97,"hidden_size":48,"ffn_dim":80,"num_hidden_layers":2,"num_attention_heads":4,"max_position_embeddings":64})"},
    {"bloom", 4, 5, 1, 0, R"({"model_type":"bloom","vocab_size":95,"hidden_size":48,"n_layer":2,"n_head":4})"},
    {"gpt_neo", 4, 5, 1, 0,
     R"({"model_type":"gpt_neo","vocab_size":93,"hidden_size":48,"num_layers":2,"num_heads":4,"max_position_embeddings":64,
         "attention_types":[[["global","local"],1]],"window_size":8})"},
    {"codegen", 2, 3, 1, 0,
     R"({"model_type":"codegen","vocab_size":93,"n_embd":64,"n_layer":2,"n_head":4,"n_positions":64,"n_ctx":64,"rotary_dim":6})"},
    {"gpt2", 4, 5, 1, 0,
     R"({"model_type":"gpt2","vocab_size":93,"n_embd":48,"n_layer":2,"n_head":4,"n_positions":64})"},
    {"bert", 4, 5, 2, 0,
     R"({"model_type":"bert","architectures":["BertForSequenceClassification"],"vocab_size":93,"hidden_size":48,"num_hidden_layers":2,
         "num_attention_heads":4,"intermediate_size":80,"max_position_embeddings":64,"type_vocab_size":2,"num_labels":3})"},
    {"t5", 10, 12, 2, 0,
     R"({"model_type":"t5","vocab_size":93,"d_model":48,"d_kv":12,"d_ff":80,"num_layers":2,"num_decoder_layers":2,"num_heads":4,
         "relative_attention_num_buckets":8,"feed_forward_proj":"gated-gelu","decoder_start_token_id":0,"architectures":["T5ForConditionalGeneration"]})"},
};

graph::Graph trace(const Family& family, hf::Program program) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / family.name;
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << family.config;
  return hf::load_folder_model(folder, at::kDouble, nullptr, program).graph;
}

graph::Dimensions dimensions_of(const graph::Graph& graph) {
  graph::Dimensions dimensions;
  for (const std::string& name : graph.dimensions) {
    dimensions[name] = name == "batch" ? 2 : name == "slots" || name == "rows" ? 1 : name == "capacity" ? 16 : 5;
  }
  return dimensions;
}

// Two layers; the embedding and the head add one reduction or gather each, or two where two stacks read the table.
void compare(const Family& family, hf::Program program, int parts, bool gradients) {
  SCOPED_TRACE(fmt::format("{} {} parts", family.name, parts));
  const graph::Graph graph = trace(family, program);
  const tensor::Sharded sharded = test::expect_same(graph, dimensions_of(graph), parts, gradients);
  if (parts > 4) {
    return;  // More than most families' heads: attention is whole, or its heads are gathered.
  }
  EXPECT_LE(test::count(sharded, "all_reduce", false), family.reductions + family.embeddings);
  EXPECT_GE(test::count(sharded, "all_reduce", false), family.reductions);
  EXPECT_LE(test::count(sharded, "all_gather", false), 1);
  EXPECT_EQ(test::count(sharded, "all_gather", true), 0);
  if (gradients) {
    EXPECT_LE(test::count(sharded, "all_reduce", true), family.reductions_back + family.key_groups(parts));
  }
}

TEST(Families, ForwardAndBackward) {
  kernels::register_operators();
  for (const Family& family : kFamilies) {
    for (const int parts : {2, 3, 4, 6}) {
      compare(family, hf::Program::forward, parts, true);
    }
  }
}

TEST(Families, Generation) {
  for (const Family& family : kFamilies) {
    if (std::string(family.name) != "bert") {
      for (const int parts : {2, 3, 4, 6}) {
        compare(family, hf::Program::generation, parts, false);
      }
    }
  }
}

}  // namespace
}  // namespace shardpipe
