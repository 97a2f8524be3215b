// The texts inside of an exported program. The first byte of the input says which of them the rest is.
#include "frontend/pt2/modules.h"
#include "frontend/pt2/symbols.h"
#include "frontend/pt2/tree.h"
#include "fuzz/fuzz.h"
#include "graph/size.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shardpipe;
  if (size == 0) {
    return 0;
  }
  const std::string text(fuzz::text_of(data + 1, size - 1));
  const fuzz::MemoryLimit limit(size, 512, 256 << 10);
  switch (data[0]) {
    case 's':
      fuzz::reads([&] {
        if (const auto polynomial = pt2::parse_srepr(text)) {
          fuzz::require(graph::Size::parse(polynomial->str()) == *polynomial, "the text of a size is another size");
        }
      });
      break;
    case 'p':
      fuzz::reads([&] {
        pt2::Symbols symbols;
        symbols.name({{"as_expr", {{"expr_str", "Symbol('s0')"}}}}, "tokens");
        symbols.plain_size(text);
      });
      break;
    case 'z':
      fuzz::reads([&] {
        const graph::Size parsed = graph::Size::parse(text);
        fuzz::require(graph::Size::parse(parsed.str()) == parsed, "the text of a size is another size");
        graph::Dimensions dimensions;
        for (const std::string& symbol : parsed.symbols()) {
          dimensions[symbol] = static_cast<int64_t>(dimensions.size()) * 1'000'003 - 1;
        }
        fuzz::reads([&] { parsed.evaluate(dimensions); });
      });
      break;
    case 't':
      fuzz::reads([&] { pt2::input_names(text, {"x", "scale"}); });
      fuzz::reads([&] { pt2::output_names(text); });
      break;
    default:
      fuzz::reads([&] { pt2::parse_module_stack(text); });
  }
  return 0;
}
