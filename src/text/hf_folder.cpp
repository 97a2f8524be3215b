#include "text/hf_folder.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <sstream>

#include "base/error.h"
#include "text/hf_class.h"
#include "text/length.h"
#include "text/tokenizer_parts.h"

namespace shardpipe::text {
namespace {

constexpr std::array kAttributes = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};

bool is_attribute(const std::string& name) {
  return std::find(kAttributes.begin(), kAttributes.end(), name) != kAttributes.end();
}

// A JSON file of the folder as an object; empty when there is none.
Json read_optional(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    return Json::object();
  }
  Json json = read_json(path);
  [[maybe_unused]] const Fields object(json, path.string());  // throws unless it is one
  return json;
}

// {"content": ..., flags}; absent flags are false, but `normalized` follows `special`.
AddedToken token_object(const Fields& fields) {
  const bool special = fields.boolean("special", false);
  return {fields.string("content"),        fields.boolean("single_word", false),   fields.boolean("lstrip", false),
          fields.boolean("rstrip", false), fields.boolean("normalized", !special), special};
}

AddedToken special_token(const std::string& content) {
  return {content, false, false, false, false, true};
}

// Follows PreTrainedTokenizerBase._from_pretrained and TokenizersBackend.__init__ of transformers 5.
class Reader {
 public:
  Reader(const std::filesystem::path& folder, TokenizerFile& file)
      : file_(file),
        config_(read_optional(folder / "tokenizer_config.json")),
        config_where_((folder / "tokenizer_config.json").string()),
        folder_(folder),
        has_tokenizer_json_(std::filesystem::exists(folder / "tokenizer.json")) {}

  HfFolder read() {
    const Fields config(config_, config_where_);
    HfFolder out;
    out.split_special_tokens = config.boolean("split_special_tokens", false);
    find_class(config);
    add_extra_ids(config);
    read_decoder(config);
    if (!has_tokenizer_json_) {
      check_class(config);
    }
    if (class_ == nullptr) {
      out.added_tokens.push_back(added_tokens(file_));
    }
    std::vector<AddedToken> tokens;
    std::set<std::string> known;
    for (const auto& [id, token] : by_id_) {
      tokens.push_back(token);
      known.insert(token.content);
    }
    if (class_ == nullptr) {
      for (const AddedToken& token : out.added_tokens.front()) {
        known.insert(token.content);
      }
    }
    std::vector<AddedToken> again;
    for (const AddedToken& token : special_tokens(config, class_)) {
      again.push_back(special_token(token.content));
      if (!known.contains(token.content)) {
        tokens.push_back(token);
      }
    }
    out.added_tokens.push_back(std::move(tokens));
    if (class_ != nullptr) {
      if (class_->adds_special_tokens_again) {
        out.added_tokens.push_back(std::move(again));
      }
      rebuild(config);
      out.single = template_parts(config, class_->single);
      out.pair = template_parts(config, class_->pair);
    }
    read_lengths(config, out);
    return out;
  }

 private:
  void find_class(const Fields& config) {
    const std::filesystem::path path = folder_ / "config.json";
    const Json model = read_optional(path);
    const Fields model_fields(model, path.string());
    std::string configured;
    if (config.has("tokenizer_class")) {
      configured = config.string("tokenizer_class");
    } else if (model_fields.has("tokenizer_class")) {
      configured = model_fields.string("tokenizer_class");
    }
    const std::string model_type = model_fields.has("model_type") ? model_fields.string("model_type") : "";
    class_ = find_hf_class(configured, model_type, file_.fields.dump().find("\"ByteLevel\"") != std::string::npos);
  }

  // T5's sentinels, unless the configuration lists them itself.
  void add_extra_ids(const Fields& config) {
    constexpr uint64_t kMaxExtraIds = 10000;
    uint64_t count = class_ == nullptr ? 0 : class_->extra_ids;
    if (count > 0 && config.has("extra_ids")) {
      count = config.size("extra_ids");
    }
    if (count > kMaxExtraIds) {
      throw_input("{}.extra_ids is {}, at most {} are supported", config_where_, count, kMaxExtraIds);
    }
    if (count == 0) {
      return;
    }
    Json& list = config_["additional_special_tokens"];
    if (!list.is_array()) {
      list = Json::array();
    }
    if (list.dump().find("<extra_id_") == std::string::npos) {
      for (uint64_t i = 0; i < count; ++i) {
        list.push_back(fmt::format("<extra_id_{}>", i));
      }
    }
  }

  // Vocabulary files say nothing about what is around the model, so the class must be one that does. Flags for special
  // tokens count then; RoBERTa's class would add its own.
  void check_class(const Fields& config) const {
    const std::string name = class_ == nullptr ? "generic" : class_->name;
    if (class_ == nullptr || class_->pair == nullptr) {
      const bool byte_level = class_ != nullptr && class_->set_up == nullptr && name != "RobertaTokenizer";
      const bool flags = config.boolean("add_bos_token", false) || config.boolean("add_eos_token", false);
      if (!byte_level || flags || file_.has_merges == false) {
        throw_usage(
            "{} has no tokenizer.json, and a {} tokenizer{} cannot be made from {}", folder_.string(), name,
            flags ? " with add_bos_token or add_eos_token" : "", file_.where);
      }
    }
  }

  // The added tokens by id: from tokenizer_config.json, else from the older files and tokenizer.json itself.
  void read_decoder(const Fields& config) {
    if (config.has("added_tokens_decoder")) {
      const Fields decoder = config.object("added_tokens_decoder");
      for (const auto& [key, json] : decoder.json().items()) {
        uint32_t id = 0;
        const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
        if (error != std::errc() || end != key.data() + key.size()) {
          throw_input("{} has the key {:?}, must be a token id", decoder.where(), key);
        }
        by_id_[id] = token_object(Fields(json, decoder.where() + "." + key));
      }
      return;
    }
    legacy_ = read_optional(folder_ / "special_tokens_map.json");
    const std::filesystem::path path = folder_ / "added_tokens.json";
    const Json added = read_optional(path);
    for (const auto& [content, json] : added.items()) {
      const std::optional<uint32_t> id = token_id(json);
      if (!id) {
        throw_input(
            "{} gives {:?} the id {}, must be an integer from 0 to 4294967295", path.string(), content,
            one_line(json.dump()));
      }
      by_id_[*id] = is_special(config, content) ? special_token(content) : AddedToken{content};
    }
    const Fields fields(file_.fields, file_.where);
    if (fields.has("added_tokens")) {
      for (const Fields& token : fields.objects("added_tokens")) {
        by_id_[token.id("id")] = added_token(token);
      }
    }
  }

  // What a setting is: that of special_tokens_map.json where it is read, else that of tokenizer_config.json.
  const Json* setting(const Fields& config, const std::string& name) const {
    for (const Json* json : {&legacy_, &config.json()}) {
      if (const auto found = json->find(name); found != json->end()) {
        return &*found;
      }
    }
    return nullptr;
  }

  // That of tokenizer.json, where it counts and none is configured.
  std::optional<std::string> padding_token(const Fields& config) const {
    const Fields file(file_.fields, file_.where);
    const bool counts = class_ == nullptr || class_->takes_pad_token;
    if (!counts || setting(config, "pad_token") != nullptr || !file.has("padding")) {
      return std::nullopt;
    }
    const Fields padding = file.object("padding");
    return padding.has("pad_token") ? std::optional(padding.string("pad_token")) : std::nullopt;
  }

  // The named special tokens in the order in which new ones get their ids. `defaults` (or null) has those of a class.
  std::vector<AddedToken> special_tokens(const Fields& config, const HfClass* defaults) const {
    std::vector<AddedToken> out;
    const auto take = [&](const Json& value) {
      if (value.is_string()) {
        out.push_back(special_token(value.get<std::string>()));
      } else if (!value.is_null()) {
        const Fields fields(value, config_where_ + ": a special token");
        out.push_back(token_object(fields));
        out.back().special = true;
        out.back().normalized = fields.boolean("normalized", false);
      }
    };
    for (const char* name : kAttributes) {
      const auto padding = std::string_view(name) == "pad_token" ? padding_token(config) : std::nullopt;
      if (const Json* value = setting(config, name)) {
        take(*value);
      } else if (padding) {
        out.push_back(special_token(*padding));
      } else if (defaults != nullptr) {
        for (const auto& [attribute, content] : defaults->defaults) {
          if (std::string_view(attribute) == name) {
            out.push_back(special_token(content));
          }
        }
      }
    }
    for (const Json* json : {&config.json(), &legacy_}) {
      for (const auto& [key, value] : json->items()) {
        if (key.ends_with("_token") && !is_attribute(key) && value.is_string()) {
          take(value);
        }
      }
    }
    for (const Json* value : extra_tokens(true)) {
      take(*value);
    }
    return out;
  }

  // Tokens without an attribute. The older name for them in special_tokens_map.json is read later than the rest.
  std::vector<const Json*> extra_tokens(bool older_name) const {
    std::vector<const Json*> out;
    const auto append = [&](const Json& json, const char* name) {
      const auto list = json.find(name);
      if (list == json.end() || !list->is_structured() || list->empty()) {
        return false;
      }
      for (const Json& value : *list) {
        out.push_back(&value);
      }
      return true;
    };
    bool found = append(config_, "extra_special_tokens") || append(config_, "additional_special_tokens");
    found = append(legacy_, "extra_special_tokens") || found;
    if (!found && older_name) {
      append(legacy_, "additional_special_tokens");
    }
    return out;
  }

  // Whether added_tokens.json's token is a special one.
  bool is_special(const Fields& config, const std::string& content) const {
    std::vector<const Json*> values = extra_tokens(false);
    for (const char* name : kAttributes) {
      if (const Json* value = setting(config, name)) {
        values.push_back(value);
      }
    }
    return std::any_of(values.begin(), values.end(), [&](const Json* value) {
      return *value == content || (value->is_object() && value->value("content", Json()) == content);
    });
  }

  // The content of a special token, or nothing when it is not set.
  std::optional<std::string> attribute(const Fields& config, const std::string& name) const {
    if (const Json* value = setting(config, name)) {
      if (value->is_null()) {
        return std::nullopt;
      }
      return value->is_string() ? value->get<std::string>()
                                : Fields(*value, config_where_ + ": " + name).string("content");
    }
    for (const auto& [attribute, content] : class_ == nullptr ? decltype(class_->defaults)() : class_->defaults) {
      if (name == attribute) {
        return content;
      }
    }
    return std::nullopt;
  }

  std::vector<HfTemplatePart> template_parts(const Fields& config, const char* text) const {
    std::vector<HfTemplatePart> out;
    std::istringstream words(text == nullptr ? "" : text);
    for (std::string word; words >> word;) {
      const size_t colon = word.find(':');
      const std::string name = word.substr(0, colon);
      const std::optional<std::string> content = name[0] == '$' ? name : attribute(config, name);
      if (!content) {
        throw_input("{} has no {}, which {} puts around a text", config_where_, name, class_->name);
      }
      out.push_back({*content, word[colon + 1] - '0'});
    }
    return out;
  }

  // What a call with padding and truncation goes by.
  void read_lengths(const Fields& config, HfFolder& out) const {
    if (config.has("model_max_length")) {
      const Json& length = config.get("model_max_length");
      if (!length.is_number() || length.get<double>() < 0) {
        throw_input(
            "{}.model_max_length must be a number of at least 0, is {}", config_where_, one_line(length.dump()));
      }
      // What is not set is written as 1e30.
      out.max_length = length.get<double>() > 1e15 ? 0 : static_cast<uint64_t>(length.get<double>());
    }
    const Fields file(file_.fields, file_.where);
    out.pads_left = class_ != nullptr && class_->pads_left;
    out.pad_token = attribute(config, "pad_token");
    if (file.has("truncation")) {
      out.truncates_left = make_truncation(file.object("truncation")).left;
    }
    if (file.has("padding")) {
      const Padding padding = make_padding(file.object("padding"));
      out.pads_left = padding.left;
      out.pad_type_id = padding.type_id;
    }
    if (const auto padding = padding_token(config)) {
      out.pad_token = padding;
    }
    side(config, "padding_side", out.pads_left);
    side(config, "truncation_side", out.truncates_left);
    if (config.has("pad_token_type_id")) {
      out.pad_type_id = config.id("pad_token_type_id");
    }
  }

  static void side(const Fields& config, const char* name, bool& left) {
    if (config.has(name)) {
      const std::string value = config.string(name);
      if (value != "left" && value != "right") {
        throw_input("{}.{} must be \"left\" or \"right\", is {:?}", config.where(), name, value);
      }
      left = value == "left";
    }
  }

  void rebuild(const Fields& config) {
    Json& fields = file_.fields;
    if (!fields.is_object() || !fields.contains("model") || !fields["model"].is_object()) {
      return;  // refused with a message of its own when the model is made
    }
    if (class_->set_up != nullptr) {
      class_->set_up(fields, config);
      file_.scores.use_exact();
      return;
    }
    fields["normalizer"] = class_->normalizer;
    fields["pre_tokenizer"] = class_->pre_tokenizer(config.boolean("add_prefix_space", false));
    fields["decoder"] = {{"type", "ByteLevel"}};
    if (!class_->keeps_post_processor) {
      fields["post_processor"] = nullptr;
    }
    for (const char* option :
         {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
          "ignore_merges"}) {
      fields["model"][option] = nullptr;
    }
  }

  TokenizerFile& file_;
  Json config_;
  std::string config_where_;
  std::filesystem::path folder_;
  bool has_tokenizer_json_;
  Json legacy_ = Json::object();  // special_tokens_map.json
  const HfClass* class_ = nullptr;
  std::map<uint32_t, AddedToken> by_id_;
};

}  // namespace

HfFolder read_hf_folder(const std::filesystem::path& folder, TokenizerFile& file) {
  return Reader(folder, file).read();
}

}  // namespace shardpipe::text
