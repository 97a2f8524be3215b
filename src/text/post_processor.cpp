#include "text/post_processor.h"

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"

namespace shardpipe::text {
namespace {

using Ids = std::vector<int64_t>;

class Sequence : public PostProcessor {
 public:
  explicit Sequence(const Fields& fields) {
    for (const Fields& part : fields.objects("processors")) {
      parts_.push_back(make_post_processor(part));
    }
  }
  size_t added_tokens(bool pair) const override {
    size_t total = 0;
    for (const auto& part : parts_) {
      total += part->added_tokens(pair);
    }
    return total;
  }
  std::vector<Encoding> process(std::vector<Encoding> encodings, bool add_special_tokens) const override {
    for (const auto& part : parts_) {
      encodings = part->process(std::move(encodings), add_special_tokens);
    }
    return encodings;
  }

 private:
  std::vector<std::unique_ptr<const PostProcessor>> parts_;
};

// Only offsets change, which we do not return.
class ByteLevel : public PostProcessor {
 public:
  explicit ByteLevel(const Fields& fields) {
    fields.boolean("add_prefix_space");
    fields.boolean("trim_offsets");
  }
  size_t added_tokens(bool) const override { return 0; }
  std::vector<Encoding> process(std::vector<Encoding> encodings, bool) const override { return encodings; }
};

class Template : public PostProcessor {
 public:
  explicit Template(const Fields& fields) : where_(fields.where()) {
    const Fields tokens = fields.object("special_tokens");
    for (const auto& [name, json] : tokens.json().items()) {
      const Fields token(json, tokens.where() + "." + name);
      special_[name] = ids(token);
    }
    single_ = pieces(fields, "single", 1);
    pair_ = pieces(fields, "pair", 2);
  }

  size_t added_tokens(bool pair) const override {
    size_t total = 0;
    for (const Slot& slot : pair ? pair_ : single_) {
      total += slot.special != nullptr ? slot.special->size() : 0;
    }
    return total;
  }

  std::vector<Encoding> process(std::vector<Encoding> encodings, bool add_special_tokens) const override {
    if (encodings.empty() || encodings.size() > 2) {
      throw_usage("{} follows another template: it would get {} parts, takes 1 or 2", where_, encodings.size());
    }
    std::vector<Encoding> out;
    for (const Slot& slot : encodings.size() == 2 ? pair_ : single_) {
      if (slot.special == nullptr) {
        out.push_back(encodings[slot.text]);
        out.back().type_ids.assign(out.back().size(), slot.type_id);
      } else if (add_special_tokens) {
        out.push_back(Encoding::of(*slot.special, slot.type_id, true));
      }
    }
    return out;
  }

 private:
  // Either special tokens or one of the texts.
  struct Slot {
    const Ids* special;
    size_t text;
    int64_t type_id;
  };

  static Ids ids(const Fields& token) {
    const Json& json = token.get("ids");
    Ids out;
    for (const Json& entry : json) {
      const std::optional<uint32_t> id = json.is_array() ? token_id(entry) : std::nullopt;
      if (!id) {
        throw_input("{}.ids must be integers from 0 to 4294967295, is {}", token.where(), one_line(json.dump()));
      }
      out.push_back(*id);
    }
    return out;
  }

  std::vector<Slot> pieces(const Fields& fields, const char* name, size_t texts) const {
    std::vector<Slot> out;
    for (const Fields& piece : fields.objects(name)) {
      if (piece.has("Sequence")) {
        const Fields sequence = piece.object("Sequence");
        const std::string id = sequence.string("id");
        if (id != "A" && (id != "B" || texts < 2)) {
          throw_input("{}.Sequence.id is {:?}, must be {}", piece.where(), id, texts < 2 ? "\"A\"" : "\"A\" or \"B\"");
        }
        out.push_back({nullptr, id == "A" ? 0U : 1U, sequence.id("type_id")});
      } else {
        const Fields token = piece.object("SpecialToken");
        const std::string id = token.string("id");
        const auto found = special_.find(id);
        if (found == special_.end()) {
          throw_input("{}.SpecialToken.id {:?} is not among the special_tokens", piece.where(), id);
        }
        out.push_back({&found->second, 0, token.id("type_id")});
      }
    }
    return out;
  }

  std::string where_;
  std::map<std::string, Ids> special_;
  std::vector<Slot> single_;
  std::vector<Slot> pair_;
};

// BERT: [CLS] A [SEP] B [SEP]; RoBERTa: <s> A </s></s> B </s>.
class ClsSep : public PostProcessor {
 public:
  ClsSep(const Fields& fields, bool roberta)
      : cls_(token(fields, "cls")), sep_(token(fields, "sep")), roberta_(roberta) {}

  size_t added_tokens(bool pair) const override { return pair ? (roberta_ ? 4 : 3) : 2; }

  std::vector<Encoding> process(std::vector<Encoding> encodings, bool add_special_tokens) const override {
    for (Encoding& encoding : encodings) {
      if (roberta_) {
        encoding.type_ids.assign(encoding.size(), 0);
      }
    }
    for (size_t i = 0; i < encodings.size() && add_special_tokens; ++i) {
      Encoding text = std::exchange(encodings[i], {});
      // As in the package, what an earlier step of a Sequence put around the text is text now.
      text.special_tokens_mask.assign(text.size(), 0);
      const int64_t type_id = i == 0 || roberta_ ? 0 : 1;
      if (i == 0 || roberta_) {
        encodings[i] = Encoding::of({i == 0 ? cls_ : sep_}, type_id, true);
      }
      encodings[i].append(text);
      encodings[i].append(Encoding::of({sep_}, type_id, true));
    }
    return encodings;
  }

 private:
  static int64_t token(const Fields& fields, const char* name) {
    const Json& json = fields.get(name);
    if (!json.is_array() || json.size() != 2 || !token_id(json[1])) {
      throw_input("{}.{} must be [token, id], is {}", fields.where(), name, one_line(json.dump()));
    }
    return *token_id(json[1]);
  }

  int64_t cls_;
  int64_t sep_;
  bool roberta_;
};

}  // namespace

std::unique_ptr<const PostProcessor> make_post_processor(const Fields& fields) {
  const std::string type = fields.type();
  if (type == "Sequence") {
    return std::make_unique<Sequence>(fields);
  }
  if (type == "ByteLevel") {
    return std::make_unique<ByteLevel>(fields);
  }
  if (type == "TemplateProcessing") {
    return std::make_unique<Template>(fields);
  }
  if (type == "BertProcessing") {
    return std::make_unique<ClsSep>(fields, false);
  }
  if (type == "RobertaProcessing") {
    return std::make_unique<ClsSep>(fields, true);
  }
  throw_usage("{} has the unsupported type {:?}", fields.where(), type);
}

}  // namespace shardpipe::text
