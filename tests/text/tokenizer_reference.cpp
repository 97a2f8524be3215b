// Compares our tokenizer with the cases that tokenizer_reference.py wrote: tokenizer_reference CASES.jsonl
#include <fmt/core.h>

#include <fstream>
#include <iostream>
#include <map>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

using shardpipe::Error;
using shardpipe::Json;
using shardpipe::text::EncodeOptions;
using shardpipe::text::Encoding;
using shardpipe::text::StreamDecoder;
using shardpipe::text::TextInput;
using shardpipe::text::Tokenizer;
using Ids = std::vector<int64_t>;

constexpr size_t kShown = 20;

struct Comparison {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::string name;
  std::map<std::string, size_t> cases;
  size_t failures = 0;

  // One line that is enough to repeat the case.
  void fail(const char* what, const Json& input, const Json& expected, const Json& actual) {
    if (++failures <= kShown) {
      const auto text = [](const Json& json) { return json.dump(-1, ' ', true); };
      fmt::print("{}: {} of {}: expected {}, got {}\n", name, what, text(input), text(expected), text(actual));
    }
  }

  void check(const char* what, const Json& input, const Json& expected, const Json& actual) {
    if (expected != actual) {
      fail(what, input, expected, actual);
    }
  }

  void decode(const Json& input, const Ids& ids, const Json& expected, bool skip) {
    if (expected.is_null()) {  // the package panicked; we only must not
      tokenizer->decode(ids, skip);
      return;
    }
    check(skip ? "decode, skipping" : "decode", input, expected, tokenizer->decode(ids, skip));
    StreamDecoder stream(tokenizer, skip);
    std::string streamed;
    for (const int64_t id : ids) {
      const std::string part = stream.push(id);
      if (!shardpipe::text::is_valid_utf8(part)) {
        fail("half a character in the stream", input, expected, id);
      }
      streamed += part;
    }
    check("stream", input, expected, streamed + stream.finish());
  }

  void expect_error(const char* what, const std::string& text, bool special) {
    try {
      const Ids ids = tokenizer->encode(text, special);
      fail(what, text, "an error", ids);
    } catch (const Error&) {
    }
  }

  void encode(const Json& json, const std::string& text) {
    if (json.contains("error")) {
      expect_error("encode", text, true);
      return;
    }
    const Ids ids = json["ids"].get<Ids>();
    try {
      check("encode", text, ids, tokenizer->encode(text));
    } catch (const Error& error) {
      return fail("encode", text, ids, error.what());
    }
    if (json["plain"].is_null()) {
      expect_error("encode without special tokens", text, false);
    } else {
      check("encode without special tokens", text, json["plain"], tokenizer->encode(text, false));
    }
    decode(ids, ids, json["all"], false);
    decode(ids, ids, json["skip"], true);
  }

  void batch(const Json& json) {
    std::vector<TextInput> inputs;
    for (const Json& input : json["batch"]) {
      inputs.push_back({input[0].get<std::string>(), {}});
      if (!input[1].is_null()) {
        inputs.back().pair = input[1].get<std::string>();
      }
    }
    Json rows = nullptr;
    try {
      EncodeOptions options = tokenizer->batch_options();
      options.add_special_tokens = json["special"].get<bool>();
      for (const Encoding& row : tokenizer->encode_batch(inputs, options)) {
        rows.push_back(
            {{"ids", row.ids},
             {"type_ids", row.type_ids},
             {"attention_mask", row.attention_mask},
             {"special_tokens_mask", row.special_tokens_mask}});
      }
    } catch (const Error& error) {
      if (!json["encodings"].is_null()) {
        return fail("encode_batch", json["batch"], json["encodings"], error.what());
      }
    }
    check("encode_batch", json["batch"], json["encodings"], rows);
  }

  void line(const Json& json) {
    if (json.contains("tokenizer")) {
      name = json["tokenizer"].get<std::string>();
      tokenizer = Tokenizer::from_file(name);
      return;
    }
    if (json.contains("folder")) {
      name = json["folder"].get<std::string>();
      tokenizer = Tokenizer::from_folder(name);
      return;
    }
    ++cases[name];
    if (json.contains("decode")) {
      const Ids ids = json["decode"].get<Ids>();
      decode(json["decode"], ids, json["all"], false);
      decode(json["decode"], ids, json["skip"], true);
    } else if (json.contains("batch")) {
      batch(json);
    } else if (json.contains("sweep")) {
      const Json& sweep = json["sweep"];
      std::string text;
      for (auto c = sweep[0].get<char32_t>(); c <= sweep[1].get<char32_t>(); ++c) {
        text += sweep[2].get<std::string>();
        shardpipe::text::append_utf8(text, c);
        text += sweep[3].get<std::string>();
      }
      check("encode", sweep, json["ids"], tokenizer->encode(text));
    } else {
      encode(json, json["text"].get<std::string>());
    }
  }
};

// Prints how many cases of which kind there were; the number of differences, or -1 when there was no case.
int64_t compare(const char* file) {
  Comparison comparison;
  std::string line;
  size_t number = 0;
  std::ifstream in(file);
  while (std::getline(in, line)) {
    ++number;
    try {
      comparison.line(shardpipe::parse_json(line, "the cases"));
    } catch (const std::exception& error) {
      throw std::runtime_error(fmt::format("{}:{}: {}", file, number, error.what()));
    }
  }
  size_t total = 0;
  for (const auto& [name, count] : comparison.cases) {
    fmt::print("{:>8} {}\n", count, name);
    total += count;
  }
  fmt::print("{} cases, {} differences\n", total, comparison.failures);
  return total == 0 ? -1 : static_cast<int64_t>(comparison.failures);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tokenizer_reference CASES.jsonl\n";
    return 2;
  }
  try {
    return compare(argv[1]) == 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::cout << error.what() << "\n";
    return 1;
  }
}
