// text/chat_template.h: the template of a downloaded checkpoint.
#include "base/json.h"
#include "fuzz/fuzz.h"
#include "text/jinja_budget.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_parser.h"
#include "text/jinja_text.h"

namespace {

constexpr const char* kContext = R"({"a": 3, "b": -2, "x": 2.5, "s": "Hello World", "t": "  \u00fcn\u00ef\n\t\u3000",
  "e": "", "n": null, "yes": true, "l": [3, 1, 2], "m": ["b", "A", "c"], "z": [], "d": {"k": "v", "n": 7},
  "users": [{"name": "Zoe", "age": 31}, {"name": "adam", "tags": []}], "bos_token": "<s>", "eos_token": "</s>",
  "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"},
  {"role": "assistant", "content": "So.", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}]}],
  "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
  "add_generation_prompt": true})";
// Of steps; a real rendering may take more, which takes too long here.
constexpr uint64_t kSteps = 20'000;
constexpr size_t kBytesAStep = 256;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  static const Json context = parse_json(kContext, "context");
  const std::string source(fuzz::text_of(data, size));
  if (!text::jinja::is_valid_utf8(source)) {
    return 0;  // refused before it is parsed
  }
  const fuzz::MemoryLimit limit(size, 1024, kSteps * kBytesAStep);
  fuzz::reads([&] {
    const text::jinja::Template parsed = text::jinja::parse(source);
    const text::jinja::Budget budget(kSteps);
    std::unordered_map<std::string, text::jinja::Value> values;
    for (const auto& [name, value] : context.items()) {
      values.emplace(name, text::jinja::from_json(value));
    }
    const std::string result = text::jinja::Interpreter(parsed, std::move(values)).run();
    fuzz::require(text::jinja::is_valid_utf8(result), "the result is no UTF-8");
  });
  return 0;
}
