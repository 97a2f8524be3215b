#include "text/tokenizer.h"

#include <unordered_map>

#include "base/error.h"
#include "text/hf_folder.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

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

void Tokenizer::Parts::tokenize(std::vector<Piece>& pieces, Encoding& ids) const {
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
  if (!std::filesystem::exists(path)) {
    throw Error(
        ErrorCode::usage, fmt::format("{} has no tokenizer.json", folder.string()), "give --tokenizer or --input-ids");
  }
  TokenizerFile file = read_tokenizer_file(path);
  const HfFolder settings = read_hf_folder(folder, file);
  auto parts = std::make_unique<Parts>(file);
  parts->truncation.reset();
  parts->padding.reset();
  parts->added.set_split_special_tokens(settings.split_special_tokens);
  for (const std::vector<AddedToken>& tokens : settings.added_tokens) {
    parts->added.add(tokens, *parts->model, parts->normalizer.get());
  }
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(parts)));
}

std::vector<int64_t> Tokenizer::encode(std::string_view utf8, bool add_special_tokens) const {
  std::string text;
  append_lossy(text, utf8, true);
  std::vector<Piece> pieces = parts_->added.split(text, parts_->normalizer.get());
  if (parts_->pre_tokenizer != nullptr) {
    parts_->pre_tokenizer->split(pieces);
  }
  std::vector<Encoding> encodings(1);
  parts_->tokenize(pieces, encodings[0]);
  const PostProcessor* post_processor = parts_->post_processor.get();
  if (parts_->truncation) {
    const size_t added = add_special_tokens && post_processor != nullptr ? post_processor->added_tokens(false) : 0;
    parts_->truncation->apply(encodings[0], added);
  }
  if (post_processor != nullptr) {
    encodings = post_processor->process(std::move(encodings), add_special_tokens);
  }
  Encoding ids;
  for (const Encoding& encoding : encodings) {
    ids.insert(ids.end(), encoding.begin(), encoding.end());
  }
  if (parts_->padding) {
    parts_->padding->apply(ids);
  }
  return ids;
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
