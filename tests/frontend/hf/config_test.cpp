// Values of config.json that must be refused, each with the key, the file, what is expected and what is there.
#include "frontend/hf/config.h"

#include "frontend/hf/model.h"
#include "model_folder.h"

namespace shardpipe::hf {
namespace {

using test::expect_error;
using test::gpt2_json;
using test::llama_json;
using test::ModelFolder;
using test::with;

void refused(const Json& config, ErrorCode code, const std::vector<std::string>& parts) {
  SCOPED_TRACE(config.dump());
  const ModelFolder folder(config);
  expect_error(code, parts, [&] { load_folder_model(folder.path()); });
}

void bad_llama(const char* changes, const std::vector<std::string>& parts) {
  refused(with(llama_json(), Json::parse(changes)), ErrorCode::input, parts);
}

void unsupported_llama(const char* changes, const std::vector<std::string>& parts) {
  refused(with(llama_json(), Json::parse(changes)), ErrorCode::usage, parts);
}

void bad_gpt2(const char* changes, const std::vector<std::string>& parts) {
  refused(with(gpt2_json(), Json::parse(changes)), ErrorCode::input, parts);
}

TEST(FolderErrors, NoFolder) {
  expect_error(ErrorCode::usage, {"no model at /nowhere/model: there is no such folder", "hint: ", "config.json"}, [] {
    load_folder_model("/nowhere/model");
  });
}

TEST(FolderErrors, File) {
  const ModelFolder folder(llama_json());
  expect_error(ErrorCode::usage, {"config.json: it is not a folder", "hint: "}, [&] {
    load_folder_model(folder.path() / "config.json");
  });
}

TEST(FolderErrors, NoConfig) {
  const ModelFolder folder;
  expect_error(ErrorCode::usage, {"it has no config.json", "hint: "}, [&] { load_folder_model(folder.path()); });
}

TEST(FolderErrors, DamagedConfig) {
  const ModelFolder folder;
  for (const char* text : {"", "{\"model_type\": ", "\xff\xfe", "{\"vocab_size\": 1e999}"}) {
    folder.write("config.json", text);
    expect_error(ErrorCode::input, {"bad JSON in ", "config.json"}, [&] { load_folder_model(folder.path()); });
  }
  folder.write("config.json", "[1, 2]");
  expect_error(
      ErrorCode::input, {"config.json holds [1,2]; an object is expected"}, [&] { load_folder_model(folder.path()); });
  folder.write("config.json", "[1, 2, 3, 4, 5, 6, 7, 8, 9]");
  expect_error(ErrorCode::input, {"holds a list of 9"}, [&] { load_folder_model(folder.path()); });
  folder.write("config.json", std::string(100'000, '['));
  expect_error(ErrorCode::input, {"nested deeper than"}, [&] { load_folder_model(folder.path()); });
}

TEST(FolderErrors, UnknownArchitecture) {
  unsupported_llama(
      R"({"model_type": "foo"})",
      {"\"model_type\" in ", "config.json is \"foo\", an unknown architecture",
       "known model types are bert, bloom, codegen, gpt2, gpt_neo, llama, mistral, opt, qwen2, t5"});
  unsupported_llama(
      R"({"model_type": "REMOVE", "architectures": ["FooModel"]})",
      {"\"architectures\" in ", "is [\"FooModel\"], an unknown architecture", "gpt2, gpt_neo, llama"});
  unsupported_llama(
      R"({"architectures": ["LlamaForSequenceClassification"]})",
      {"an unknown architecture", "known ones of model type llama are LlamaForCausalLM, LlamaModel"});
  bad_llama(R"({"model_type": "REMOVE", "architectures": "REMOVE"})", {"\"model_type\" is missing in "});
  bad_llama(R"({"model_type": 3})", {"\"model_type\" in ", "is 3; a string is expected"});
  bad_llama(R"({"architectures": "LlamaForCausalLM"})", {"a list of strings is expected"});
  bad_llama(R"({"architectures": [1]})", {"is [1]; a list of strings is expected"});
}

TEST(FolderErrors, FeaturesThatAreNotSupported) {
  unsupported_llama(
      R"({"quantization_config": {"quant_method": "awq"}})",
      {"\"quantization_config\" in ", "is {\"quant_method\":\"awq\"}, which is not supported yet"});
  unsupported_llama(R"({"sliding_window": 64})", {"\"sliding_window\" in ", "is 64, which is not supported yet"});
  unsupported_llama(R"({"layer_types": ["full_attention", "sliding_attention"]})", {"\"layer_types\" in "});
  unsupported_llama(R"({"attn_logit_softcapping": 50.0})", {"\"attn_logit_softcapping\" in ", "is 50.0"});
  unsupported_llama(R"({"final_logit_softcapping": 30.0})", {"\"final_logit_softcapping\""});
  unsupported_llama(R"({"attention_chunk_size": 8})", {"\"attention_chunk_size\""});
  unsupported_llama(R"({"compression_config": {}})", {"\"compression_config\""});
  unsupported_llama(R"({"is_encoder_decoder": true})", {"\"is_encoder_decoder\" in ", "is true"});
  unsupported_llama(R"({"use_bidirectional_attention": true})", {"\"use_bidirectional_attention\""});
  unsupported_llama(R"({"is_causal": false})", {"\"is_causal\" in ", "is false"});
  unsupported_llama(R"({"pruned_heads": {"0": [1]}})", {"\"pruned_heads\""});
  unsupported_llama(R"({"hidden_act": "xielu"})", {"\"hidden_act\" in ", "is \"xielu\": known activations are gelu, "});
  refused(with(gpt2_json(), {{"add_cross_attention", true}}), ErrorCode::usage, {"\"add_cross_attention\""});
}

TEST(FolderErrors, ImpossibleValues) {
  bad_llama(R"({"hidden_size": "REMOVE"})", {"\"hidden_size\" is missing in ", "config.json"});
  bad_llama(R"({"vocab_size": null})", {"\"vocab_size\" is missing in "});
  bad_llama(
      R"({"num_hidden_layers": -3})",
      {"\"num_hidden_layers\" in ", "config.json is -3; an integer from 1 to 1024 is expected"});
  bad_llama(R"({"num_hidden_layers": 0})", {"is 0; an integer from 1 to"});
  bad_llama(R"({"num_hidden_layers": 1000000000})", {"is 1000000000; an integer from 1 to 1024"});
  bad_llama(R"({"num_hidden_layers": 3.0})", {"is 3.0; an integer from 1"});
  bad_llama(R"({"num_hidden_layers": "3"})", {"is \"3\"; an integer from 1"});
  bad_llama(R"({"hidden_size": 18446744073709551615})", {"is 18446744073709551615; an integer from 1"});
  bad_llama(R"({"vocab_size": 0})", {"\"vocab_size\" in ", "is 0; an integer from 1"});
  bad_llama(
      R"({"num_attention_heads": 5})", {"\"num_attention_heads\" in ", "is 5; a multiple of num_key_value_heads, 2"});
  bad_llama(R"({"num_attention_heads": 10})", {"\"hidden_size\" in ", "is 48; a multiple of the number of heads, 10"});
  bad_llama(R"({"num_key_value_heads": 0})", {"\"num_key_value_heads\" in ", "is 0"});
  bad_llama(R"({"head_dim": 1000000})", {"\"head_dim\" in ", "is 1000000; an integer from 1 to 65536"});
  bad_llama(R"({"head_dim": 15})", {"the head size in ", "is 15; rotary positions need an even one"});
  bad_llama(R"({"rms_norm_eps": -1.0})", {"\"rms_norm_eps\" in ", "is -1.0; a number from 0 to 1 is expected"});
  bad_llama(R"({"rms_norm_eps": "1e-5"})", {"is \"1e-5\"; a number from 0 to 1"});
  bad_llama(R"({"attention_bias": 1})", {"\"attention_bias\" in ", "is 1; true or false is expected"});
  bad_llama(R"({"tie_word_embeddings": "yes"})", {"\"tie_word_embeddings\" in ", "is \"yes\"; true or false"});
  bad_llama(R"({"hidden_act": 5})", {"\"hidden_act\" in ", "is 5; a string is expected"});
  bad_llama(R"({"max_position_embeddings": 0})", {"\"max_position_embeddings\" in ", "is 0"});
  bad_llama(R"({"dtype": "int8"})", {"\"dtype\" in ", "is \"int8\"; float32, bfloat16, float16 or float64"});
  bad_llama(R"({"torch_dtype": "half"})", {"\"torch_dtype\" in ", "is \"half\""});
  bad_llama(R"({"pruned_heads": 3})", {"\"pruned_heads\" in ", "is 3; an object is expected"});
  bad_gpt2(R"({"n_layer": -1})", {"\"n_layer\" in ", "is -1; an integer from 1"});
  bad_gpt2(R"({"n_layer": "REMOVE"})", {"\"n_layer\" is missing in "});
  bad_gpt2(R"({"n_layer": "REMOVE", "num_hidden_layers": -2})", {"\"num_hidden_layers\" in ", "is -2"});
  bad_gpt2(R"({"n_head": 5})", {"\"n_embd\" in ", "is 48; a multiple of the number of heads, 5"});
  bad_gpt2(R"({"n_inner": -4})", {"\"n_inner\" in ", "is -4"});
  bad_gpt2(R"({"n_positions": 0})", {"\"n_positions\" in ", "is 0"});
}

TEST(FolderErrors, LongValuesAreCut) {
  bad_llama((R"({"vocab_size": ")" + std::string(5000, 'x') + "\"}").c_str(), {"is \"xxx", "x...; an integer"});
}

TEST(FolderErrors, Dtype) {
  const ModelFolder folder(llama_json());
  expect_error(ErrorCode::usage, {"dtype int8 is no type a model runs in; float32, bfloat16"}, [&] {
    load_folder_model(folder.path(), at::kChar);
  });
}

TEST(Config, Defaults) {
  const Config config(Json::parse(R"({"a": 3, "b": null, "c": [1, 2], "d": 0.5})"), "test");
  EXPECT_EQ(config.integer("a", 1, 9, 7), 3);
  EXPECT_EQ(config.integer("b", 1, 9, 7), 7);
  EXPECT_EQ(config.integer({"x", "a"}, 1, 9, 7), 3);
  EXPECT_EQ(config.number("a", 0, 9, 1), 3.0);
  EXPECT_EQ(config.token_ids("a"), std::vector<int64_t>({3}));
  EXPECT_EQ(config.token_ids("c"), std::vector<int64_t>({1, 2}));
  EXPECT_TRUE(config.token_ids("b").empty());
  EXPECT_TRUE(config.written("b"));
  EXPECT_FALSE(config.has("b"));
  expect_error(ErrorCode::input, {"\"d\" in test is 0.5; a token id, a list of token ids or null"}, [&] {
    config.token_ids("d");
  });
  expect_error(ErrorCode::input, {"\"x\" is missing in test"}, [&] { config.number("x", 0, 1); });
}

}  // namespace
}  // namespace shardpipe::hf
