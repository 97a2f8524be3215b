#include "text/hf_class.h"

#include <algorithm>
#include <string_view>

namespace shardpipe::text {
namespace {

constexpr const char* kGeneric = "TokenizersBackend";

// PRETOKENIZE_REGEX of transformers' tokenization_qwen2.py and tokenization_qwen3_5.py.
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json byte_level(bool add_prefix_space, bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

Json gpt2(bool add_prefix_space) {
  return byte_level(add_prefix_space, true);
}

Json split_first(const char* pattern, bool add_prefix_space) {
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level(add_prefix_space, false)})}};
}

Json qwen2(bool add_prefix_space) {
  return split_first(kQwen2Pattern, add_prefix_space);
}

Json qwen35(bool add_prefix_space) {
  return split_first(kQwen35Pattern, add_prefix_space);
}

const std::vector<HfClass>& classes() {
  constexpr const char* kEnd = "<|endoftext|>";
  const Json nfc = {{"type", "NFC"}};
  static const std::vector<HfClass> kClasses = {
      {"GPT2Tokenizer", {{"unk_token", kEnd}, {"bos_token", kEnd}, {"eos_token", kEnd}}, nullptr, gpt2, true, false},
      {"CodeGenTokenizer", {{"unk_token", kEnd}, {"bos_token", kEnd}, {"eos_token", kEnd}}, nullptr, gpt2, true, false},
      {"GPTNeoXTokenizer",
       {{"unk_token", kEnd}, {"bos_token", kEnd}, {"eos_token", kEnd}, {"pad_token", "<|padding|>"}},
       nfc,
       gpt2,
       false,
       false},
      {"RobertaTokenizer",
       {{"bos_token", "<s>"},
        {"eos_token", "</s>"},
        {"sep_token", "</s>"},
        {"cls_token", "<s>"},
        {"unk_token", "<unk>"},
        {"pad_token", "<pad>"},
        {"mask_token", "<mask>"}},
       nullptr,
       gpt2,
       true,
       false},
      {"Qwen2Tokenizer", {{"unk_token", kEnd}, {"eos_token", kEnd}, {"pad_token", kEnd}}, nfc, qwen2, true, true},
      {"Qwen3_5Tokenizer", {{"unk_token", kEnd}, {"eos_token", kEnd}, {"pad_token", kEnd}}, nfc, qwen35, true, false},
  };
  return kClasses;
}

const HfClass* find_class(std::string_view name) {
  const auto& all = classes();
  const auto found = std::find_if(all.begin(), all.end(), [&](const HfClass& c) { return name == c.name; });
  return found == all.end() ? nullptr : &*found;
}

struct Registered {
  const char* name;
  std::vector<std::string_view> model_types;
};

// TOKENIZER_MAPPING_NAMES of transformers, as far as it names a class above or the generic one. A generic row wins over
// the configured class.
const char* registered_class(std::string_view model_type) {
  static const std::vector<Registered> kRows = {
      {"GPT2Tokenizer",
       {"codegen", "dbrx", "emu3", "gpt2", "gpt_neo", "gptj", "hyperclovax_vision_v2", "jais2", "opt", "phi",
        "starcoder2"}},
      {"Qwen2Tokenizer",
       {"qwen2", "qwen2_5_vl", "qwen2_moe", "qwen2_vl", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_vl"}},
      {"Qwen3_5Tokenizer", {"qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp"}},
      {"GPTNeoXTokenizer", {"falcon_mamba", "gpt_neox", "mamba", "mamba2", "mpt", "olmo", "olmoe", "rwkv", "xlstm"}},
      {"RobertaTokenizer",
       {"bart", "data2vec-text", "ibert", "longformer", "mega", "mra", "roberta", "roberta-prelayernorm"}},
      {kGeneric,
       {"arctic",
        "ernie4_5",
        "ernie4_5_moe",
        "flex_olmo",
        "glm",
        "glm4",
        "glm4_moe",
        "gpt_bigcode",
        "granite",
        "granitemoe",
        "granitemoehybrid",
        "granitemoeshared",
        "h2ovl_chat",
        "hyperclovax",
        "internlm2",
        "internlm3",
        "iquestcoder",
        "jamba",
        "kimi_linear",
        "minicpm3",
        "minimax_m2",
        "ministral",
        "ministral3",
        "mistral",
        "mistral3",
        "mixtral",
        "modernbert",
        "modernbert-decoder",
        "nemotron",
        "olmo2",
        "olmo3",
        "olmo_hybrid",
        "persimmon",
        "phi3",
        "phimoe",
        "smolvlm",
        "stablelm"}},
  };
  for (const Registered& row : kRows) {
    if (std::find(row.model_types.begin(), row.model_types.end(), model_type) != row.model_types.end()) {
      return row.name;
    }
  }
  return nullptr;
}

// Model types whose published configurations name a wrong class.
bool ignores_configured(std::string_view model_type) {
  return model_type == "qwen2" || model_type == "hyperclovax_vision_v2" || model_type.starts_with("qwen3_5") ||
         model_type == "qwen4_exp";
}

}  // namespace

const HfClass* find_hf_class(std::string configured, const std::string& model_type, bool has_byte_level) {
  if (configured.ends_with("Fast")) {
    configured.resize(configured.size() - 4);
  }
  const char* registered = registered_class(model_type);
  if (configured.empty()) {
    return registered == nullptr ? nullptr : find_class(registered);
  }
  if (configured == "LlamaTokenizer" && has_byte_level) {
    return nullptr;
  }
  if (registered == nullptr || configured == registered) {
    return find_class(configured);
  }
  if (std::string_view(registered) == kGeneric) {
    return nullptr;
  }
  return find_class(ignores_configured(model_type) ? registered : configured);
}

}  // namespace shardpipe::text
