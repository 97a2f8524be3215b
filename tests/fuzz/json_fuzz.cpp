// base/json.h: configuration files, chats, exported programs.
#include "base/json.h"

#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  const std::string_view text = fuzz::text_of(data, size);
  // "[[],[]," makes of three bytes a value, a list and, while the list above grows, copies of them.
  const fuzz::MemoryLimit limit(size, 64, 16 << 10);
  fuzz::reads([&] { parse_json(text, "input"); });
  fuzz::reads([&] { parse_json(text, "input", {.depth = 16, .comments = true, .refuse_duplicate_keys = true}); });
  fuzz::reads([&] { parse_sorted_json(text, "input"); });
  return 0;
}
