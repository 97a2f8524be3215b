#include "frontend/hf/model.h"

#include <array>

#include "base/error.h"
#include "frontend/hf/decoder.h"
#include "frontend/hf/encoder_decoder.h"
#include "frontend/hf/registry.h"
#include "frontend/trace/trace.h"
#include "kernels/register.h"

namespace shardpipe::hf {
namespace {

constexpr std::array<at::ScalarType, 4> kDtypes = {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble};

bool is_run_dtype(at::ScalarType dtype) {
  return std::find(kDtypes.begin(), kDtypes.end(), dtype) != kDtypes.end();
}

Config read_config(const std::filesystem::path& folder) {
  std::error_code error;
  const char* const hint = "give the folder of a Hugging Face model, with config.json and its weights";
  if (!std::filesystem::exists(folder, error)) {
    throw Error(ErrorCode::usage, fmt::format("no model at {}: there is no such folder", folder.string()), hint);
  }
  if (!std::filesystem::is_directory(folder, error)) {
    throw Error(ErrorCode::usage, fmt::format("no model at {}: it is not a folder", folder.string()), hint);
  }
  if (!std::filesystem::exists(folder / "config.json", error)) {
    throw Error(ErrorCode::usage, fmt::format("no model in {}: it has no config.json", folder.string()), hint);
  }
  return Config::read(folder / "config.json");
}

at::ScalarType run_dtype(const Config& config, std::optional<at::ScalarType> wanted) {
  if (wanted) {
    if (!is_run_dtype(*wanted)) {
      throw_usage(
          "dtype {} is no type a model runs in; float32, bfloat16, float16 or float64 is expected",
          graph::dtype_name(*wanted));
    }
    return *wanted;
  }
  const Key key("dtype", "torch_dtype");
  std::string name = config.string(key, "float32");
  if (name.starts_with("torch.")) {
    name = name.substr(6);
  }
  const std::optional<at::ScalarType> dtype = graph::parse_dtype(name);
  if (!dtype || !is_run_dtype(*dtype)) {
    throw_input("{}; float32, bfloat16, float16 or float64 is expected", config.subject(key));
  }
  return *dtype;
}

checkpoint::NameRules name_rules(const Family& family, bool tied) {
  checkpoint::NameRules rules;
  rules.prefixes = {std::string(family.base_prefix)};
  rules.ignored.assign(family.ignored.begin(), family.ignored.end());
  if (tied) {
    rules.tied = {{std::string(family.embedding), std::string(family.head)}};
  }
  return rules;
}

// The tensors of the graph that some checkpoints hold under other names.
void add_other_names(checkpoint::NameRules& rules, const Family& family, const graph::Graph& graph) {
  for (const graph::ValueId id : graph.used_tensors()) {
    const std::string& name = graph.values[static_cast<size_t>(id)].name;
    for (const OtherName& row : family.other_names) {
      if (name.ends_with(row.suffix)) {
        rules.tied.push_back({name, name.substr(0, name.size() - row.suffix.size()) + std::string(row.other)});
      }
    }
  }
}

void describe(const ForwardModel& traced, const Family& family, const trace::Program& program, FolderModel& model) {
  model.vocab_size = traced.vocab_size;
  model.max_positions = traced.max_positions;
  model.learned_positions = traced.bounded_positions;
  model.optional_inputs = traced.optional_inputs;
  model.id_limits = traced.id_limits;
  model.graph = trace::trace(program);
  add_other_names(model.names, family, model.graph);
}

}  // namespace

bool generates(const std::filesystem::path& folder) {
  const Family& family = find_family(read_config(folder));
  return family.build != nullptr || family.build_encoder_decoder != nullptr;
}

std::vector<Program> programs_of(const std::filesystem::path& folder) {
  return generates(folder) ? std::vector{Program::generation, Program::forward, Program::forward_with_mask}
                           : std::vector{Program::forward, Program::forward_with_mask};
}

GenerationDefaults read_folder_generation(const std::filesystem::path& folder) {
  const Config config = read_config(folder);
  return read_generation_defaults(folder, config, find_family(config).default_eos);
}

FolderModel load_folder_model(
    const std::filesystem::path& folder,
    std::optional<at::ScalarType> dtype,
    const checkpoint::Checkpoint* weights,
    Program program) {
  kernels::register_operators();
  const Config config = read_config(folder);
  const Family& family = find_family(config);

  FolderModel model;
  model.family = family.model_type;
  model.folder = folder;
  model.config = config.json();
  model.dtype = run_dtype(config, dtype);
  model.generation = read_generation_defaults(folder, config, family.default_eos);
  bool tied = config.boolean("tie_word_embeddings", family.tied_by_default);
  if (tied && weights != nullptr) {
    tied = !checkpoint::tied_by_content(*weights, name_rules(family, tied)).empty();
  }
  model.names = name_rules(family, tied);

  const bool generates = program == Program::generation;
  if (family.build_encoder_decoder != nullptr) {
    const std::shared_ptr<EncoderDecoder> both = family.build_encoder_decoder(config, model.dtype, tied, weights);
    model.encoder_decoder = true;
    describe(*both, family, generates ? generation_program(both, model.dtype) : forward_program(both), model);
    if (generates) {
      model.optional_inputs.clear();
      model.id_limits = {{"input_ids", model.vocab_size}, {"source_ids", model.vocab_size}};
    }
    return model;
  }
  if (!generates && family.build_forward != nullptr) {
    const std::shared_ptr<ForwardModel> forward = family.build_forward(config, model.dtype, tied, weights);
    describe(*forward, family, forward_program(forward), model);
    return model;
  }
  if (family.build == nullptr) {
    throw_usage("models of type \"{}\" have no generation program", family.model_type);
  }
  const std::shared_ptr<Decoder> decoder = family.build(config, model.dtype, tied);
  model.vocab_size = decoder->vocab_size;
  model.max_positions = decoder->max_positions;
  model.learned_positions = decoder->bounded_positions;
  model.id_limits = {{"input_ids", model.vocab_size}};
  model.graph = trace::trace(
      generates ? generation_program(decoder, model.dtype)
                : forward_program(decoder, model.dtype, /*with_mask=*/program == Program::forward_with_mask));
  return model;
}

}  // namespace shardpipe::hf
