#include "frontend/hf/generation_config.h"

#include <array>
#include <utility>

#include "base/error.h"

namespace shardpipe::hf {
namespace {

// Keys without an option of ours, with the values (as JSON, besides null) under which they do nothing.
constexpr std::array<std::pair<const char*, std::array<const char*, 3>>, 23> kUnsupported = {{
    {"bad_words_ids", {"[]"}},
    {"begin_suppress_tokens", {"[]"}},
    {"constraints", {"[]"}},
    {"diversity_penalty", {"0.0", "0"}},
    {"dola_layers", {}},
    {"epsilon_cutoff", {"0.0", "0"}},
    {"eta_cutoff", {"0.0", "0"}},
    {"exponential_decay_length_penalty", {}},
    {"force_words_ids", {"[]"}},
    {"forced_bos_token_id", {}},
    {"forced_eos_token_id", {}},
    {"guidance_scale", {"1.0", "1"}},
    {"max_time", {}},
    {"num_beam_groups", {"1"}},
    {"penalty_alpha", {"0.0", "0"}},
    {"renormalize_logits", {"false"}},
    {"sequence_bias", {"[]", "{}"}},
    {"stop_strings", {"[]", "\"\""}},
    {"suppress_tokens", {"[]"}},
    {"token_healing", {"false"}},
    {"top_h", {"1.0", "1"}},
    {"typical_p", {"1.0", "1"}},
    {"watermarking_config", {}},
}};

std::vector<std::string> unsupported_keys(const Config& config) {
  std::vector<std::string> keys;
  for (const auto& [key, neutral] : kUnsupported) {
    if (const Json* value = config.find(key)) {
      const std::string text = value->dump(-1, ' ', /*ensure_ascii=*/true);
      bool harmless = false;
      for (const char* other : neutral) {
        harmless = harmless || (other != nullptr && text == other);
      }
      if (!harmless) {
        keys.push_back(fmt::format("{} = {}", key, text.substr(0, 60)));
      }
    }
  }
  return keys;
}

std::optional<EarlyStopping> early_stopping(const Config& config) {
  const Json* value = config.find("early_stopping");
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->is_string() && value->get<std::string>() == "never") {
    return EarlyStopping::never;
  }
  if (!value->is_boolean()) {
    throw_input("{}; true, false or \"never\" is expected", config.subject("early_stopping"));
  }
  return value->get<bool>() ? EarlyStopping::enough_candidates : EarlyStopping::heuristic;
}

}  // namespace

GenerationDefaults read_generation_defaults(
    const std::filesystem::path& folder, const Config& config, std::optional<int64_t> family_eos) {
  const std::filesystem::path file = folder / "generation_config.json";
  std::error_code none;
  const Config generation =
      std::filesystem::exists(file, none) ? Config::read(file) : Config(Json::object(), file.string());
  const auto source = [&](const char* key) -> const Config& { return generation.written(key) ? generation : config; };

  GenerationDefaults defaults;
  defaults.eos_token_ids = source("eos_token_id").token_ids("eos_token_id");
  if (family_eos && !generation.written("eos_token_id") && !config.written("eos_token_id")) {
    defaults.eos_token_ids = {*family_eos};
  }
  defaults.bos_token_id = source("bos_token_id").find_integer("bos_token_id");
  defaults.pad_token_id = source("pad_token_id").find_integer("pad_token_id");
  defaults.decoder_start_token_id = source("decoder_start_token_id").find_integer("decoder_start_token_id");
  // transformers 5 does not take these from config.json.
  defaults.max_length = generation.find_integer("max_length");
  defaults.max_new_tokens = generation.find_integer("max_new_tokens");
  defaults.min_length = generation.find_integer("min_length");
  defaults.min_new_tokens = generation.find_integer("min_new_tokens");
  defaults.do_sample = generation.find_boolean("do_sample");
  defaults.num_beams = generation.find_integer("num_beams");
  defaults.num_return_sequences = generation.find_integer("num_return_sequences");
  defaults.early_stopping = early_stopping(generation);
  defaults.length_penalty = generation.find_number("length_penalty");
  defaults.no_repeat_ngram_size = generation.find_integer("no_repeat_ngram_size");
  defaults.repetition_penalty = generation.find_number("repetition_penalty");
  defaults.temperature = generation.find_number("temperature");
  defaults.top_k = generation.find_integer("top_k");
  defaults.top_p = generation.find_number("top_p");
  defaults.min_p = generation.find_number("min_p");
  defaults.unsupported = unsupported_keys(generation);
  return defaults;
}

}  // namespace shardpipe::hf
