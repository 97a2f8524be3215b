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

// The class's own special tokens may be configured as text or as an object with flags.
std::string token_setting(const Fields& config, const char* name, const char* missing) {
  if (!config.has(name)) {
    return missing;
  }
  return config.get(name).is_object() ? config.object(name).string("content") : config.string(name);
}

void set_up_bert(Json& file, const Fields& config) {
  file["normalizer"] = {
      {"type", "BertNormalizer"},
      {"clean_text", true},
      {"handle_chinese_chars", config.boolean("tokenize_chinese_chars", true)},
      {"strip_accents", config.has("strip_accents") ? config.get("strip_accents") : Json()},
      {"lowercase", config.boolean("do_lower_case", true)}};
  file["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  file["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  Json& model = file["model"];
  model["type"] = "WordPiece";
  model["unk_token"] = token_setting(config, "unk_token", "[UNK]");
  model["continuing_subword_prefix"] = "##";
  model["max_input_chars_per_word"] = 100;
}

// The first charsmap of a normalizer, or null.
Json precompiled(const Json& normalizer) {
  const auto is_charsmap = [](const Json& part) {
    return part.is_object() && part.value("type", Json()) == "Precompiled" && part.contains("precompiled_charsmap");
  };
  if (is_charsmap(normalizer)) {
    return normalizer;
  }
  if (normalizer.is_object() && normalizer.contains("normalizers") && normalizer["normalizers"].is_array()) {
    for (const Json& part : normalizer["normalizers"]) {
      if (is_charsmap(part)) {
        return part;
      }
    }
  }
  return nullptr;
}

void set_up_unigram(Json& file, int unknown, bool add_prefix_space) {
  const Json metaspace = {
      {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", add_prefix_space ? "always" : "never"}};
  file["pre_tokenizer"] = {
      {"type", "Sequence"}, {"pretokenizers", Json::array({{{"type", "WhitespaceSplit"}}, metaspace})}};
  file["decoder"] = metaspace;
  file["model"]["type"] = "Unigram";
  file["model"]["unk_id"] = unknown;
  file["model"]["byte_fallback"] = false;
}

void set_up_t5(Json& file, const Fields&) {
  file["normalizer"] = precompiled(file.value("normalizer", Json()));
  set_up_unigram(file, 2, true);
}

void set_up_xlm_roberta(Json& file, const Fields& config) {
  file["normalizer"] = precompiled(file.value("normalizer", Json()));
  set_up_unigram(file, 3, config.boolean("add_prefix_space", true));
}

void set_up_albert(Json& file, const Fields& config) {
  Json steps = Json::array();
  for (const char* quotes : {"``", "''"}) {
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", quotes}}}, {"content", "\""}});
  }
  if (!config.boolean("keep_accents", false)) {
    steps.push_back({{"type", "NFKD"}});
    steps.push_back({{"type", "StripAccents"}});
  }
  if (config.boolean("do_lower_case", true)) {
    steps.push_back({{"type", "Lowercase"}});
  }
  if (const Json map = precompiled(file.value("normalizer", Json())); !map.is_null()) {
    steps.push_back(map);
  }
  file["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  set_up_unigram(file, 1, config.boolean("add_prefix_space", true));
}

void set_up_llama(Json& file, const Fields& config) {
  const bool add_prefix_space = config.boolean("add_prefix_space", true);
  const char* scheme = !add_prefix_space ? "never" : config.boolean("legacy", false) ? "always" : "first";
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", scheme}, {"split", false}};
  Json steps = Json::array(
      {{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}},
       {{"type", "ByteFallback"}},
       {{"type", "Fuse"}}});
  if (add_prefix_space) {
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  file["decoder"] = {{"type", "Sequence"}, {"decoders", steps}};
  Json& model = file["model"];
  model["type"] = "BPE";
  for (const char* option :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"}) {
    model[option] = nullptr;
  }
  model["fuse_unk"] = true;
  model["byte_fallback"] = true;
}

HfClass bert(const char* name) {
  return {
      name,
      {{"unk_token", "[UNK]"},
       {"sep_token", "[SEP]"},
       {"pad_token", "[PAD]"},
       {"cls_token", "[CLS]"},
       {"mask_token", "[MASK]"}},
      nullptr,
      nullptr,
      false,
      false,
      set_up_bert,
      "cls_token:0 $A:0 sep_token:0",
      "cls_token:0 $A:0 sep_token:0 $B:1 sep_token:1"};
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
      bert("BertTokenizer"),
      bert("DistilBertTokenizer"),
      {"T5Tokenizer",
       {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}},
       nullptr,
       nullptr,
       false,
       false,
       set_up_t5,
       "$A:0 eos_token:0",
       "$A:0 eos_token:0 $B:0 eos_token:0",
       false,
       false,
       100},
      {"XLMRobertaTokenizer",
       {{"bos_token", "<s>"},
        {"eos_token", "</s>"},
        {"sep_token", "</s>"},
        {"cls_token", "<s>"},
        {"unk_token", "<unk>"},
        {"pad_token", "<pad>"},
        {"mask_token", "<mask>"}},
       nullptr,
       nullptr,
       false,
       false,
       set_up_xlm_roberta,
       "bos_token:0 $A:0 eos_token:0",
       "bos_token:0 $A:0 eos_token:0 eos_token:0 $B:0 eos_token:0"},
      {"AlbertTokenizer",
       {{"bos_token", "[CLS]"},
        {"eos_token", "[SEP]"},
        {"unk_token", "<unk>"},
        {"sep_token", "[SEP]"},
        {"pad_token", "<pad>"},
        {"cls_token", "[CLS]"},
        {"mask_token", "[MASK]"}},
       nullptr,
       nullptr,
       true,
       false,
       set_up_albert},
      {"LlamaTokenizer",
       {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}},
       nullptr,
       nullptr,
       true,
       false,
       set_up_llama,
       nullptr,
       nullptr,
       true,
       true},
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
      {"BertTokenizer", {"align",          "bark",         "bert",          "blip",
                         "bros",           "chinese_clip", "convbert",      "distilbert",
                         "electra",        "ernie",        "flava",         "git",
                         "grounding-dino", "layoutlm",     "megatron-bert", "mm-grounding-dino",
                         "nezha",          "nomic_bert",   "qdqbert",       "realm",
                         "retribert",      "squeezebert",  "tvp",           "vilt",
                         "visual_bert"}},
      {"T5Tokenizer", {"mt5", "musicgen", "musicgen_melody", "switch_transformers", "t5"}},
      {"XLMRobertaTokenizer", {"gte", "jina_embeddings_v3", "metaclip_2", "trocr", "xlm-roberta", "xmod"}},
      {"AlbertTokenizer", {"albert", "yoso"}},
      {"LlamaTokenizer", {"idefics", "idefics2"}},
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
