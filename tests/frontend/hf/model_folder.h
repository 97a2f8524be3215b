#pragma once

// Model folders for tests: configurations without weights, and what an error must say.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <functional>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace shardpipe::test {

inline Json llama_json() {
  return Json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 101,
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "eos_token_id": 2,
    "hidden_act": "silu", "tie_word_embeddings": false, "rope_theta": 10000.0})");
}

inline Json gpt2_json() {
  return Json::parse(R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 93, "n_embd": 48,
    "n_layer": 3, "n_head": 4, "n_positions": 64, "eos_token_id": 7})");
}

inline Json bert_json() {
  return Json::parse(R"({"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 97,
    "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 24})");
}

inline Json t5_json() {
  return Json::parse(R"({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 83,
    "d_model": 40, "d_kv": 12, "d_ff": 56, "num_layers": 3, "num_heads": 4, "is_encoder_decoder": true})");
}

/// A small configuration of each family.
inline Json family_json(const std::string& model_type) {
  const auto parse = [&](const char* text) {
    Json json = Json::parse(text);
    json["model_type"] = model_type;
    return json;
  };
  if (model_type == "gpt2") {
    return gpt2_json();
  }
  if (model_type == "bert") {
    return bert_json();
  }
  if (model_type == "t5") {
    return t5_json();
  }
  if (model_type == "opt") {
    return parse(R"({"vocab_size": 97, "hidden_size": 48, "ffn_dim": 80, "num_hidden_layers": 3,
      "num_attention_heads": 4, "max_position_embeddings": 64})");
  }
  if (model_type == "bloom") {
    return parse(R"({"vocab_size": 95, "hidden_size": 48, "n_layer": 3, "n_head": 4})");
  }
  if (model_type == "gpt_neo") {
    return parse(R"({"vocab_size": 93, "hidden_size": 48, "num_layers": 3, "num_heads": 4, "window_size": 8,
      "max_position_embeddings": 64, "attention_types": [[["global", "local"], 1], [["local"], 1]]})");
  }
  if (model_type == "codegen") {
    return parse(R"({"vocab_size": 93, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64, "rotary_dim": 6})");
  }
  Json json = llama_json();  // and those that have its keys
  json["model_type"] = model_type;
  json.erase("architectures");
  return json;
}

/// `base` with the keys of `changes` set; a key that is to go is given as the string "REMOVE".
inline Json with(Json base, const Json& changes) {
  for (const auto& [key, value] : changes.items()) {
    if (value == "REMOVE") {
      base.erase(key);
    } else {
      base[key] = value;
    }
  }
  return base;
}

/// A folder that lives as long as the object.
class ModelFolder {
 public:
  ModelFolder() {
    std::string name = ::testing::TempDir() + "shardpipe-hf-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  explicit ModelFolder(const Json& config) : ModelFolder() { write("config.json", config.dump()); }
  ~ModelFolder() { std::filesystem::remove_all(path_); }
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void write(const char* file, const std::string& text) const { write_file(path_ / file, text); }

 private:
  std::filesystem::path path_;
};

/// Checks that `call` throws an Error of that code whose line holds every one of `parts`.
inline void expect_error(ErrorCode code, const std::vector<std::string>& parts, const std::function<void()>& call) {
  try {
    call();
    ADD_FAILURE() << "no error that says " << parts.front();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what() << "\nlacks: " << part;
    }
  }
}

}  // namespace shardpipe::test
