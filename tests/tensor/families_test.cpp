// Every family of Hugging Face models divided over parts: outputs and gradients are those of the whole graph.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "frontend/hf/model.h"
#include "graph/verify.h"
#include "kernels/register.h"
#include "tensor/parts.h"

namespace shardpipe {
namespace {

struct Family {
  const char* name;
  const char* config;
};

constexpr Family kFamilies[] = {
    {"llama9_3",
     R"({"model_type":"llama","vocab_size":101,"hidden_size":72,"intermediate_size":80,"num_hidden_layers":2,
         "num_attention_heads":9,"num_key_value_heads":3,"max_position_embeddings":128,"rms_norm_eps":1e-5,"tie_word_embeddings":true})"},
    {"llama_biases",
     R"({"model_type":"llama","vocab_size":96,"hidden_size":48,"intermediate_size":80,"num_hidden_layers":2,
         "num_attention_heads":4,"num_key_value_heads":4,"max_position_embeddings":128,"rms_norm_eps":1e-5,
         "attention_bias":true,"mlp_bias":true})"},
    {"opt",
     R"({"model_type":"opt","vocab_size":97,"hidden_size":48,"ffn_dim":80,"num_hidden_layers":2,"num_attention_heads":4,"max_position_embeddings":64})"},
    {"bloom", R"({"model_type":"bloom","vocab_size":95,"hidden_size":48,"n_layer":2,"n_head":4})"},
    {"gpt_neo",
     R"({"model_type":"gpt_neo","vocab_size":93,"hidden_size":48,"num_layers":2,"num_heads":4,"max_position_embeddings":64,
         "attention_types":[[["global","local"],1]],"window_size":8})"},
    {"codegen",
     R"({"model_type":"codegen","vocab_size":93,"n_embd":64,"n_layer":2,"n_head":4,"n_positions":64,"n_ctx":64,"rotary_dim":6})"},
    {"gpt2", R"({"model_type":"gpt2","vocab_size":93,"n_embd":48,"n_layer":2,"n_head":4,"n_positions":64})"},
    {"bert",
     R"({"model_type":"bert","architectures":["BertForSequenceClassification"],"vocab_size":93,"hidden_size":48,"num_hidden_layers":2,
         "num_attention_heads":4,"intermediate_size":80,"max_position_embeddings":64,"type_vocab_size":2,"num_labels":3})"},
    {"t5",
     R"({"model_type":"t5","vocab_size":93,"d_model":48,"d_kv":12,"d_ff":80,"num_layers":2,"num_decoder_layers":2,"num_heads":4,
         "relative_attention_num_buckets":8,"feed_forward_proj":"gated-gelu","decoder_start_token_id":0,"architectures":["T5ForConditionalGeneration"]})"},
};

graph::Graph trace(const Family& family, hf::Program program) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / family.name;
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << family.config;
  return hf::load_folder_model(folder, at::kDouble, nullptr, program).graph;
}

test::Tensors random_tensors(const graph::Graph& graph, const graph::Dimensions& dimensions) {
  test::Tensors tensors;
  int64_t number = 0;
  for (const graph::ValueId id : graph.used_tensors()) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    if (value.content.defined()) {
      continue;
    }
    const std::vector<int64_t> sizes = graph::evaluate(*value.shape, dimensions);
    at::Tensor& tensor = tensors[value.name];
    tensor = at::zeros(sizes, *value.dtype);
    if (value.kind != graph::ValueKind::state) {
      const at::Tensor waves = at::sin(at::arange(tensor.numel(), at::kDouble) * 1.7 + static_cast<double>(++number));
      tensor.copy_((0.3 * waves + (sizes.size() == 1 ? 1.0 : 0.0)).view(sizes));
    }
  }
  return tensors;
}

c10::IValue random_input(const graph::Value& value, const graph::Dimensions& dimensions) {
  const std::vector<int64_t> sizes = graph::evaluate(*value.shape, dimensions);
  int64_t count = 1;
  for (const int64_t size : sizes) {
    count *= size;
  }
  at::Tensor numbers = at::arange(count, at::kLong);
  if (value.name.find("mask") != std::string::npos) {
    numbers = at::ones({count}, at::kLong);
  } else if (value.name.find("slots") != std::string::npos) {
    numbers = at::zeros({count}, at::kLong);
  } else if (value.name.find("lengths") != std::string::npos) {
    numbers = at::full({count}, dimensions.at("tokens"), at::kLong);
  } else if (value.name.find("type") != std::string::npos) {
    numbers = numbers % 2;
  } else if (value.name.find("ids") != std::string::npos) {
    numbers = (numbers * 7 + 3) % 90;
  }
  return numbers.view(sizes).to(*value.dtype);
}

void compare(const Family& family, hf::Program program, int parts, bool gradients) {
  SCOPED_TRACE(fmt::format("{} {} parts", family.name, parts));
  const graph::Graph graph = trace(family, program);
  graph::Dimensions dimensions;
  for (const std::string& name : graph.dimensions) {
    dimensions[name] = name == "batch" ? 2 : name == "slots" || name == "rows" ? 1 : name == "capacity" ? 16 : 5;
  }
  const test::Tensors tensors = random_tensors(graph, dimensions);
  std::map<std::string, c10::IValue> inputs;
  for (const graph::ValueId id : graph.inputs) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    inputs[value.name] = random_input(value, dimensions);
  }
  const test::Run whole = test::run_graph(graph, inputs, tensors, gradients);
  tensor::ShardOptions options;
  options.parts = parts;
  options.gradients = gradients;
  const tensor::Sharded sharded = tensor::shard(graph, options);
  for (const graph::Graph& part : sharded.graphs) {
    graph::verify(part, "sharding");
  }
  std::map<std::string, int> counts;
  for (const tensor::Collective& collective : sharded.collectives) {
    ++counts[collective.op + (collective.backward ? ", backward" : "")];
  }
  std::string text;
  for (const auto& [op, count] : counts) {
    text += fmt::format(" {} {}", count, op);
  }
  fmt::print("{} {} {}: {} tensors divided;{}\n", family.name, parts, gradients, sharded.shards.size(), text);
  for (const auto& [name, why] : sharded.replicated) {
    fmt::print("    {}: {}\n", name, why);
  }
  const std::vector<test::Run> runs = test::run_parts(sharded, parts, inputs, tensors, dimensions, gradients);
  const auto expect_equal = [&](const test::Tensors& expected, const test::Tensors& actual) {
    for (const auto& [name, tensor] : expected) {
      ASSERT_TRUE(actual.count(name) > 0) << name;
      ASSERT_EQ(actual.at(name).sizes(), tensor.sizes()) << name;
      const double scale = std::max(1.0, tensor.abs().max().item<double>());
      EXPECT_LE((actual.at(name) - tensor).abs().max().item<double>(), 1e-11 * scale) << name;
    }
  };
  for (const test::Run& run : runs) {
    expect_equal(whole.outputs, run.outputs);
    expect_equal(whole.gradients, run.gradients);
  }
}

TEST(Families, ForwardAndBackward) {
  kernels::register_operators();
  for (const Family& family : kFamilies) {
    for (const int parts : {2, 3, 4}) {
      compare(family, hf::Program::forward, parts, true);
    }
  }
}

TEST(Families, Generation) {
  for (const Family& family : kFamilies) {
    if (std::string(family.name) != "bert") {
      for (const int parts : {2, 3, 4}) {
        compare(family, hf::Program::generation, parts, false);
      }
    }
  }
}

}  // namespace
}  // namespace shardpipe
