#include "frontend/hf/registry.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace shardpipe::hf {
namespace {

template <typename Rows, typename Name>
std::string list(const Rows& rows, Name name) {
  std::string text;
  for (const auto& row : rows) {
    text += (text.empty() ? "" : ", ") + std::string(name(row));
  }
  return text;
}

[[noreturn]] void throw_unknown(const Config& config, const char* key) {
  throw Error(
      ErrorCode::usage, config.subject(key) + ", an unknown architecture",
      "known model types are " + list(families(), [](const Family& family) { return family.model_type; }));
}

const Family& find_by_architecture(const Config& config) {
  const std::vector<std::string> names = config.strings("architectures");
  for (const Family& family : families()) {
    for (const std::string& name : names) {
      if (std::find(family.architectures.begin(), family.architectures.end(), name) != family.architectures.end()) {
        return family;
      }
    }
  }
  if (names.empty()) {
    throw_input("\"model_type\" is missing in {}", config.where());
  }
  throw_unknown(config, "architectures");
}

[[noreturn]] void refuse(const Config& config, Key key) {
  throw_usage("{}, which is not supported yet", config.subject(key));
}

// Refuses what changes a model's results and the family does not compute; other keys that we do not know are harmless.
void refuse_unsupported(const Config& config, const Family& family) {
  const auto reads = [&](std::string_view key) {
    return std::find(family.reads.begin(), family.reads.end(), key) != family.reads.end();
  };
  for (const char* key :
       {"quantization_config", "compression_config", "attention_chunk_size", "attn_logit_softcapping",
        "final_logit_softcapping"}) {
    if (config.has(key)) {
      refuse(config, key);
    }
  }
  if (!reads("sliding_window") && config.has("sliding_window") && config.boolean("use_sliding_window", true)) {
    refuse(config, "sliding_window");
  }
  const bool encoder_decoder = family.build_encoder_decoder != nullptr;
  if (config.boolean("is_encoder_decoder", encoder_decoder) != encoder_decoder) {
    refuse(config, "is_encoder_decoder");
  }
  for (const char* key : {"add_cross_attention", "use_bidirectional_attention"}) {
    if (config.boolean(key, false)) {
      refuse(config, key);
    }
  }
  if (!config.boolean("is_causal", true)) {
    refuse(config, "is_causal");
  }
  if (!config.object("pruned_heads").json().empty()) {
    refuse(config, "pruned_heads");
  }
  const std::vector<std::string> layer_types = config.strings("layer_types");
  if (!reads("layer_types") &&
      std::any_of(layer_types.begin(), layer_types.end(), [](const auto& type) { return type != "full_attention"; })) {
    refuse(config, "layer_types");
  }
}

}  // namespace

// One line a family.
std::span<const Family> families() {
  static const std::array<Family, 10> rows = {
      kBert, kBloom, kCodegen, kGpt2, kGptNeo, kLlama, kMistral, kOpt, kQwen2, kT5,
  };
  return rows;
}

const Family& find_family(const Config& config) {
  const std::optional<std::string> type = config.find_string("model_type");
  if (!type) {
    const Family& family = find_by_architecture(config);
    refuse_unsupported(config, family);
    return family;
  }
  for (const Family& family : families()) {
    if (family.model_type == *type) {
      const std::vector<std::string> names = config.strings("architectures");
      const bool known = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
        return std::find(family.architectures.begin(), family.architectures.end(), name) != family.architectures.end();
      });
      if (!names.empty() && !known) {
        throw Error(
            ErrorCode::usage, config.subject("architectures") + ", an unknown architecture",
            fmt::format(
                "known ones of model type {} are {}", *type,
                list(family.architectures, [](std::string_view name) { return name; })));
      }
      refuse_unsupported(config, family);
      return family;
    }
  }
  throw_unknown(config, "model_type");
}

}  // namespace shardpipe::hf
