// text/tokenizer.h. The input is a tokenizer.json, and after a NUL byte, if there is one, the text for it.
#include "text/tokenizer.h"

#include "base/json.h"
#include "fuzz/fuzz.h"
#include "text/utf8.h"

namespace {

using namespace shardpipe;

void check_decoding(const std::shared_ptr<const text::Tokenizer>& tokenizer, const std::vector<int64_t>& ids) {
  for (const bool skip : {true, false}) {
    const std::string whole = tokenizer->decode(ids, skip);
    fuzz::require(text::is_valid_utf8(whole), "decoded text is no UTF-8");
    text::StreamDecoder stream(tokenizer, skip);
    std::string parts;
    for (const int64_t id : ids) {
      const std::string part = stream.push(id);
      fuzz::require(text::is_valid_utf8(part), "a part of decoded text is no UTF-8");
      parts += part;
    }
    fuzz::require(parts + stream.finish() == whole, "decoding one by one gives another text");
  }
}

// A file may ask for padding to 2^20 tokens, which takes too long here.
bool pads_far(std::string_view json) {
  bool far = false;
  fuzz::reads([&] {
    const Json file = parse_json(json, "input");
    for (const char* path : {"/padding/strategy/Fixed", "/padding/pad_to_multiple_of"}) {
      const Json::json_pointer field(path);
      far = far || (file.contains(field) && file.at(field).is_number() && file.at(field) > 4096);
    }
  });
  return far;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = fuzz::text_of(data, size);
  const size_t end = std::min(input.find('\0'), input.size());
  const std::string_view text = end == input.size() ? "Hello, w\u00f6rld! 12 \u4f60 <s>" : input.substr(end + 1);
  const fuzz::InputFile file(input.substr(0, end));
  // The base holds the tables that every tokenizer has, and compiled patterns.
  const bool whole = !pads_far(input.substr(0, end));
  const fuzz::MemoryLimit limit(size, 256, 8 << 20);
  fuzz::reads([&] {
    const auto tokenizer = text::Tokenizer::from_file(file.path());
    fuzz::reads([&] { check_decoding(tokenizer, tokenizer->encode(text)); });
    std::vector<int64_t> ids;
    for (const char c : text) {
      ids.push_back(static_cast<unsigned char>(c));
    }
    ids.push_back(-1);
    fuzz::reads([&] { check_decoding(tokenizer, ids); });
    if (whole) {
      fuzz::reads([&] { tokenizer->encode_batch({{std::string(text), std::string("b")}, {std::string(), {}}}); });
    }
  });
  return 0;
}
