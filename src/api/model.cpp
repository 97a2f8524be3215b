#include "shardpipe/model.h"

#include "api/artefact.h"
#include "api/impl.h"
#include "base/error.h"
#include "shardpipe/artefact.h"

namespace shardpipe {

const hf::FolderModel& Model::Impl::loaded(ModelProgram program) const {
  if (is_module()) {
    throw Error(
        ErrorCode::usage, "a C++ module has no configuration and no caches to generate with",
        "give a Hugging Face folder, or use Engine::run");
  }
  if (is_exported) {
    throw Error(
        ErrorCode::usage,
        fmt::format("{} is an exported program, which has no caches to generate with", folder.string()),
        "give a Hugging Face folder, or use shardpipe run");
  }
  const std::scoped_lock lock(mutex_);
  std::shared_ptr<const hf::FolderModel>& model = loaded_[program];
  if (!model) {
    model = std::make_shared<const hf::FolderModel>(
        artefact ? artefact_folder_model(*artefact, folder, program) : load_folder(program));
  }
  return *model;
}

hf::FolderModel Model::Impl::load_folder(ModelProgram program) const {
  // Whether a head is tied may depend on the weights. What is wrong with them is said after what is wrong with the
  // configuration: make_plan opens them again.
  std::shared_ptr<const checkpoint::Checkpoint> tensors;
  try {
    tensors = checkpoint::Checkpoint::open_folder(folder);
  } catch (const Error&) {
    tensors.reset();
  }
  const hf::Program traced = program == ModelProgram::generation ? hf::Program::generation
                             : program == ModelProgram::forward  ? hf::Program::forward
                                                                 : hf::Program::forward_with_mask;
  return hf::load_folder_model(folder, dtype, tensors.get(), traced);
}

Model Model::from_folder(const std::filesystem::path& folder, const std::string& dtype) {
  auto impl = std::make_shared<Impl>();
  impl->folder = std::filesystem::absolute(folder).lexically_normal();
  if (!dtype.empty()) {
    impl->dtype = graph::parse_dtype(dtype);
    if (impl->dtype != at::kFloat && impl->dtype != at::kBFloat16 && impl->dtype != at::kHalf) {
      throw Error(
          ErrorCode::usage, fmt::format("--dtype \"{}\" is not known", dtype), "use float32, bfloat16 or float16");
    }
  }
  if (is_artefact(impl->folder)) {
    Model compiled = from_artefact(impl->folder);
    if (impl->dtype && *impl->dtype != compiled.impl().artefact->dtype) {
      throw_usage(
          "--dtype {} contradicts the artefact {}, which was compiled in {}", dtype, folder.string(),
          graph::dtype_name(compiled.impl().artefact->dtype));
    }
    return compiled;
  }
  Model model;
  model.impl_ = std::move(impl);
  return model;
}

Model Model::from_artefact(const std::filesystem::path& folder) {
  auto impl = std::make_shared<Impl>();
  impl->folder = std::filesystem::absolute(folder).lexically_normal();
  impl->artefact = std::make_shared<const Manifest>(read_manifest(impl->folder));
  impl->dtype = impl->artefact->dtype;
  impl->is_exported = impl->artefact->source == Manifest::Source::exported;
  Model model;
  model.impl_ = std::move(impl);
  return model;
}

Model Model::from_exported(const std::filesystem::path& file, const std::filesystem::path& weights) {
  if (!std::filesystem::is_regular_file(file)) {
    throw_usage("there is no file {}", file.string());
  }
  auto impl = std::make_shared<Impl>();
  impl->folder = std::filesystem::absolute(file).lexically_normal();
  impl->is_exported = true;
  impl->weights = weights.empty() ? weights : std::filesystem::absolute(weights).lexically_normal();
  Model model;
  model.impl_ = std::move(impl);
  return model;
}

const std::filesystem::path& Model::folder() const {
  return impl_->folder;
}

int64_t Model::vocab_size() const {
  return impl_->loaded().vocab_size;
}

int64_t Model::max_positions() const {
  return impl_->loaded().max_positions;
}

const std::vector<int64_t>& Model::eos_token_ids() const {
  return impl_->loaded().generation.eos_token_ids;
}

std::optional<int64_t> Model::decoder_start_token_id() const {
  const hf::FolderModel& model = impl_->loaded();
  if (!model.encoder_decoder) {
    return std::nullopt;
  }
  const hf::GenerationDefaults& defaults = model.generation;
  // transformers takes the begin token where there is no other; T5's files call it the padding token.
  const std::optional<int64_t> start = defaults.decoder_start_token_id ? defaults.decoder_start_token_id
                                       : defaults.bos_token_id         ? defaults.bos_token_id
                                                                       : defaults.pad_token_id;
  if (!start) {
    throw_input(
        "\"decoder_start_token_id\" is missing in generation_config.json and config.json of {}, and so are the begin "
        "and "
        "padding tokens: the decoder has nothing to start with",
        model.folder.string());
  }
  if (*start < 0 || *start >= model.vocab_size) {
    throw_input(
        "the token {} that the decoder of {} starts with is outside of the vocabulary: 0 to {}", *start,
        model.folder.string(), model.vocab_size - 1);
  }
  return start;
}

std::optional<int64_t> Model::max_new_tokens() const {
  return impl_->loaded().generation.max_new_tokens;
}

std::optional<int64_t> Model::max_length() const {
  return impl_->loaded().generation.max_length;
}

std::optional<int64_t> Model::min_new_tokens() const {
  return impl_->loaded().generation.min_new_tokens;
}

std::optional<int64_t> Model::min_length() const {
  return impl_->loaded().generation.min_length;
}

bool Model::wants_sampling() const {
  return impl_->loaded().generation.do_sample.value_or(false);
}

std::vector<std::string> Model::unsupported_generation_settings() const {
  const hf::GenerationDefaults& defaults = impl_->loaded().generation;
  std::vector<std::string> settings = defaults.unsupported;
  if (defaults.num_beams.value_or(1) != 1) {
    settings.push_back(fmt::format("num_beams = {}", *defaults.num_beams));
  }
  if (defaults.repetition_penalty.value_or(1) != 1) {
    settings.push_back(fmt::format("repetition_penalty = {}", *defaults.repetition_penalty));
  }
  if (defaults.no_repeat_ngram_size.value_or(0) != 0) {
    settings.push_back(fmt::format("no_repeat_ngram_size = {}", *defaults.no_repeat_ngram_size));
  }
  if (defaults.num_return_sequences.value_or(1) != 1) {
    settings.push_back(fmt::format("num_return_sequences = {}", *defaults.num_return_sequences));
  }
  return settings;
}

void Model::check_prompts(const std::vector<std::vector<int64_t>>& prompts, int64_t max_new_tokens) const {
  const hf::FolderModel& model = impl_->loaded();
  if (prompts.empty()) {
    throw Error(ErrorCode::usage, "there is no prompt", "give --prompt, --prompts or --input-ids");
  }
  for (size_t row = 0; row < prompts.size(); ++row) {
    const std::vector<int64_t>& prompt = prompts[row];
    if (prompt.empty()) {
      throw_usage("prompt {} is empty: a text of at least one token is needed", row);
    }
    for (const int64_t id : prompt) {
      if (id < 0 || id >= model.vocab_size) {
        throw_usage("token id {} in prompt {} is outside of the vocabulary: 0 to {}", id, row, model.vocab_size - 1);
      }
    }
    const auto length = static_cast<int64_t>(prompt.size());
    if (length > model.max_positions) {
      throw_usage("prompt {} has {} tokens, the model has {} positions", row, length, model.max_positions);
    }
    if (length + max_new_tokens > model.max_positions) {
      const std::string text = fmt::format(
          "prompt {} of {} tokens and {} new ones are {}, the model has {} positions", row, length, max_new_tokens,
          length + max_new_tokens, model.max_positions);
      if (model.learned_positions) {
        throw Error(
            ErrorCode::usage, text,
            fmt::format("use --max-new-tokens {} or less", std::max<int64_t>(model.max_positions - length, 0)));
      }
    }
  }
}

}  // namespace shardpipe
