#include "text/tokenizer.h"

#include <unordered_map>

#include "base/error.h"
#include "text/hf_folder.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"
#include "text/vocabulary_files.h"

namespace shardpipe::text {
namespace {

std::optional<Fields> part(const TokenizerFile& file, const char* name) {
  const Fields fields(file.fields, file.where);
  return fields.has(name) ? std::optional(Fields(fields.get(name), file.where + ": " + name)) : std::nullopt;
}

template <typename Make>
auto make_part(const TokenizerFile& file, const char* name, Make make) -> decltype(make(std::declval<Fields>())) {
  const std::optional<Fields> fields = part(file, name);
  return fields ? make(*fields) : nullptr;
}

// Collects decoded text.
class Sink : public DecodeStep {
 public:
  explicit Sink(std::string& out) : out_(out) {}
  void text(std::string_view part) override { out_ += part; }
  void end_token() override {}
  void finish() override {}

 private:
  std::string& out_;
};

}  // namespace

Tokenizer::Parts::Parts(TokenizerFile& file) {
  const Fields fields(file.fields, file.where);
  if (fields.has("version") && fields.string("version") != "1.0") {
    throw_usage("{} has the unsupported version {:?}", file.where, fields.string("version"));
  }
  normalizer = make_part(file, "normalizer", make_normalizer);
  pre_tokenizer = make_part(file, "pre_tokenizer", make_pre_tokenizer);
  post_processor = make_part(file, "post_processor", make_post_processor);
  decoder = make_part(file, "decoder", make_decoder);
  if (decoder == nullptr) {
    decoder = make_space_decoder();
  }
  if (const auto found = part(file, "truncation")) {
    truncation = make_truncation(*found);
  }
  if (const auto found = part(file, "padding")) {
    padding = make_padding(*found);
  }
  model = make_model(file);
}

std::optional<std::string_view> Tokenizer::Parts::token(int64_t id) const {
  const std::optional<std::string_view> found = added.token(id);
  return found ? found : model->id_to_token(id);
}

std::vector<int64_t> Tokenizer::Parts::tokenize(std::string_view utf8) const {
  std::string text;
  append_lossy(text, utf8, true);
  std::vector<Piece> pieces = added.split(text, normalizer.get());
  if (pre_tokenizer != nullptr) {
    pre_tokenizer->split(pieces);
  }
  std::vector<int64_t> ids;
  // Pieces repeat; the ids of one are at [first, second) of `ids`.
  std::unordered_map<std::string_view, std::pair<size_t, size_t>> known;
  for (const Piece& piece : pieces) {
    if (piece.id != Piece::kText) {
      ids.push_back(piece.id);
      continue;
    }
    const auto [entry, inserted] = known.try_emplace(piece.text, ids.size(), 0);
    if (inserted) {
      model->tokenize(piece.text, ids);
      entry->second.second = ids.size();
    } else {
      for (size_t i = entry->second.first; i < entry->second.second; ++i) {
        ids.push_back(ids[i]);
      }
    }
  }
  return ids;
}

Encoding Tokenizer::Parts::encode(
    const TextInput& input, bool add_special_tokens, const std::optional<Truncation>& limit) const {
  std::vector<Encoding> encodings{Encoding::of(tokenize(input.text), 0, false)};
  if (input.pair) {
    encodings.push_back(Encoding::of(tokenize(*input.pair), 1, false));
  }
  if (limit) {
    const bool adds = add_special_tokens && post_processor != nullptr;
    limit->apply(encodings, adds ? post_processor->added_tokens(input.pair.has_value()) : 0);
  }
  if (post_processor != nullptr) {
    encodings = post_processor->process(std::move(encodings), add_special_tokens);
  }
  Encoding out;
  for (const Encoding& encoding : encodings) {
    out.append(encoding);
  }
  return out;
}

void Tokenizer::Parts::apply(const HfFolder& settings) {
  const auto id = [&](const std::string& content) -> std::optional<uint32_t> {
    const std::optional<uint32_t> found = added.find(content);
    return found ? found : model->token_to_id(content);
  };
  if (!settings.single.empty()) {
    Json json = {{"type", "TemplateProcessing"}, {"special_tokens", Json::object()}};
    for (const auto& [name, list] : {std::pair("single", &settings.single), {"pair", &settings.pair}}) {
      json[name] = Json::array();
      for (const HfTemplatePart& part : *list) {
        if (part.content == "$A" || part.content == "$B") {
          json[name].push_back({{"Sequence", {{"id", part.content.substr(1)}, {"type_id", part.type_id}}}});
        } else {
          json[name].push_back({{"SpecialToken", {{"id", part.content}, {"type_id", part.type_id}}}});
          json["special_tokens"][part.content] = {{"ids", Json::array({id(part.content).value_or(0)})}};
        }
      }
    }
    post_processor = make_post_processor({json, "the post-processor of the tokenizer's class"});
  }
  if (settings.max_length > 0) {
    batch_truncation = Truncation{settings.max_length, 0, settings.truncates_left};
    batch_truncation->where = "model_max_length: truncation";
  }
  const std::optional<uint32_t> pad = settings.pad_token ? id(*settings.pad_token) : std::nullopt;
  unpadded_folder = !pad;
  if (pad) {
    batch_padding = Padding{0, 0, settings.pads_left, *pad, settings.pad_type_id};
  }
}

std::vector<AddedToken> added_tokens(const TokenizerFile& file) {
  std::vector<AddedToken> tokens;
  const Fields fields(file.fields, file.where);
  if (!fields.has("added_tokens")) {
    return tokens;
  }
  for (const Fields& token : fields.objects("added_tokens")) {
    token.id("id");  // the package gives ids by content and order, but wants one here
    tokens.push_back(added_token(token));
  }
  return tokens;
}

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::from_file(const std::filesystem::path& path) {
  TokenizerFile file = read_tokenizer_file(path);
  auto parts = std::make_unique<Parts>(file);
  parts->added.add(added_tokens(file), *parts->model, parts->normalizer.get());
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_folder(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer.json";
  const bool whole = std::filesystem::exists(path);
  TokenizerFile file = whole ? read_tokenizer_file(path) : read_vocabulary_files(folder);
  const HfFolder settings = read_hf_folder(folder, file);
  auto parts = std::make_unique<Parts>(file);
  parts->truncation.reset();
  parts->padding.reset();
  parts->added.set_split_special_tokens(settings.split_special_tokens);
  for (const std::vector<AddedToken>& tokens : settings.added_tokens) {
    parts->added.add(tokens, *parts->model, parts->normalizer.get());
  }
  parts->apply(settings);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
}

EncodeOptions Tokenizer::batch_options() const {
  EncodeOptions options;
  options.truncation = parts_->batch_truncation;
  options.padding = parts_->batch_padding;
  if (parts_->unpadded_folder) {
    throw Error(ErrorCode::usage, "the tokenizer has no padding token", "set pad_token in tokenizer_config.json");
  }
  return options;
}

std::vector<int64_t> Tokenizer::encode(std::string_view utf8, bool add_special_tokens) const {
  EncodeOptions options;
  options.add_special_tokens = add_special_tokens;
  return std::move(encode_batch({TextInput{std::string(utf8), std::nullopt}}, options)[0].ids);
}

std::vector<Encoding> Tokenizer::encode_batch(
    const std::vector<TextInput>& inputs, const EncodeOptions& options) const {
  const std::optional<Truncation>& truncation = options.truncation ? options.truncation : parts_->truncation;
  const std::optional<Padding>& padding = options.padding ? options.padding : parts_->padding;
  std::vector<Encoding> encodings;
  encodings.reserve(inputs.size());
  for (const TextInput& input : inputs) {
    encodings.push_back(parts_->encode(input, options.add_special_tokens, truncation));
  }
  if (padding) {
    padding->apply(encodings);
  }
  return encodings;
}

struct StreamDecoder::State {
  State(std::shared_ptr<const Tokenizer> from, bool skip)
      : tokenizer(std::move(from)),
        skip_special_tokens(skip),
        sink(out),
        first(tokenizer->parts_->decoder->start(sink)) {}

  std::shared_ptr<const Tokenizer> tokenizer;
  bool skip_special_tokens;
  std::string out;
  Sink sink;
  std::unique_ptr<DecodeStep> first;

  std::string take() { return std::exchange(out, {}); }
};

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens)
    : state_(std::make_unique<State>(std::move(tokenizer), skip_special_tokens)) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int64_t id) {
  const Tokenizer::Parts& parts = *state_->tokenizer->parts_;
  const std::optional<std::string_view> token = parts.token(id);
  if (token && !(state_->skip_special_tokens && parts.added.is_special(*token))) {
    state_->first->text(*token);
    state_->first->end_token();
  }
  return state_->take();
}

std::string StreamDecoder::finish() {
  state_->first->finish();
  return state_->take();
}

std::string Tokenizer::decode(std::span<const int64_t> ids, bool skip_special_tokens) const {
  // Not owning: the stream ends before this call does.
  StreamDecoder stream(std::shared_ptr<const Tokenizer>(std::shared_ptr<void>(), this), skip_special_tokens);
  std::string text;
  for (const int64_t id : ids) {
    text += stream.push(id);
  }
  return text += stream.finish();
}

std::optional<int64_t> Tokenizer::token_to_id(std::string_view token) const {
  const std::optional<uint32_t> id = parts_->added.find(token);
  return id ? id : parts_->model->token_to_id(token);
}

std::optional<std::string> Tokenizer::id_to_token(int64_t id) const {
  const std::optional<std::string_view> token = parts_->token(id);
  return token ? std::optional(std::string(*token)) : std::nullopt;
}

int64_t Tokenizer::vocab_size() const {
  return static_cast<int64_t>(parts_->model->size() + parts_->added.new_tokens(*parts_->model));
}

bool Tokenizer::is_special(int64_t id) const {
  const std::optional<std::string_view> token = parts_->token(id);
  return token && parts_->added.is_special(*token);
}

}  // namespace shardpipe::text
