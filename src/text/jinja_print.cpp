// Python's str, repr and json.dumps.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_text.h"
#include "text/jinja_value.h"

namespace shardpipe::text::jinja {
namespace {

// Values are bounded in depth, but a namespace can hold itself.
void check_depth(int depth) {
  if (depth > kMaxValueDepth) {
    throw_input("cannot print a value nested deeper than {} levels", kMaxValueDepth);
  }
}

void print(const Value& value, std::string& out, int depth);

void print_entries(const Dict& dict, std::string& out, int depth) {
  out += '{';
  const char* separator = "";
  for (const auto& [key, item] : dict.entries()) {
    out += separator;
    print(key, out, depth);
    out += ": ";
    print(item, out, depth);
    separator = ", ";
  }
  out += '}';
}

void print_sequence(const Sequence& sequence, std::string& out, int depth) {
  using Flavor = Sequence::Flavor;
  if (sequence.flavor == Flavor::range) {
    out += fmt::format("range({}, {}", sequence.start, sequence.stop);
    out += sequence.step == 1 ? ")" : fmt::format(", {})", sequence.step);
    return;
  }
  const bool tuple = sequence.flavor == Flavor::tuple;
  const bool view = !tuple && sequence.flavor != Flavor::list;
  out += sequence.flavor == Flavor::dict_items    ? "dict_items("
         : sequence.flavor == Flavor::dict_keys   ? "dict_keys("
         : sequence.flavor == Flavor::dict_values ? "dict_values("
                                                  : "";
  out += tuple ? '(' : '[';
  const char* separator = "";
  for (const Value& item : sequence.items) {
    out += separator;
    print(item, out, depth);
    separator = ", ";
  }
  out += tuple ? (sequence.items.size() == 1 ? ",)" : ")") : (view ? "])" : "]");
}

void print(const Value& value, std::string& out, int depth) {
  charge(1);
  check_depth(depth);
  if (const std::string* text = value.text()) {
    charge_bytes(text->size());
    out += value.is_markup() ? "Markup(" + repr(std::string_view(*text)) + ")" : repr(std::string_view(*text));
  } else if (const Sequence* sequence = value.sequence()) {
    print_sequence(*sequence, out, depth + 1);
  } else if (const Dict* dict = value.dict()) {
    print_entries(*dict, out, depth + 1);
  } else if (const Namespace* space = value.space()) {
    out += "<Namespace ";
    print_entries(space->attributes, out, depth + 1);
    out += '>';
  } else if (value.is_undefined()) {
    out += "Undefined";
  } else {
    out += to_text(value);
  }
}

void dump_text(std::string_view text, bool ascii, std::string& out) {
  charge_bytes(text.size());
  out += '"';
  for (size_t i = 0; i < text.size();) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    static constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b";
    const size_t found = kEscaped.find(static_cast<char>(c));
    if (found != std::string_view::npos) {
      out += '\\';
      out += "\"\\nrtfb"[found];
      ++i;
    } else if (c < 0x20) {
      out += fmt::format("\\u{:04x}", c);
      ++i;
    } else if (c >= 0x80 && ascii) {
      const char32_t point = read_point(text, i);
      const uint32_t rest = static_cast<uint32_t>(point) - 0x10000;
      out += point < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(point))
                             : fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
    } else {
      out += static_cast<char>(c);
      ++i;
    }
  }
  out += '"';
}

std::string json_float(double value) {
  return std::isnan(value) ? "NaN" : std::isinf(value) ? (value < 0 ? "-Infinity" : "Infinity") : float_text(value);
}

std::string json_key(const Value& key) {
  if (key.text() != nullptr) {
    return *key.text();
  }
  if (key.boolean() != nullptr) {
    return *key.boolean() ? "true" : "false";
  }
  if (key.is_none()) {
    return "null";
  }
  if (!key.number()) {
    throw_input("keys must be str, int, float, bool or None, not {}", type_name(key));
  }
  return key.real() != nullptr ? json_float(*key.real()) : to_text(key);
}

struct JsonWriter {
  const JsonStyle& style;
  std::string out;

  void line(int level) {
    if (style.indent) {
      charge_bytes(style.indent->size() * static_cast<size_t>(level));
      out += '\n';
      for (int i = 0; i < level; ++i) {
        out += *style.indent;
      }
    }
  }

  void write_dict(const Dict& dict, int level) {
    auto entries = dict.entries();
    if (style.sort_keys) {
      std::stable_sort(
          entries.begin(), entries.end(), [](const auto& a, const auto& b) { return less(a.first, b.first); });
    }
    out += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      out += i == 0 ? "" : style.item_separator;
      line(level + 1);
      dump_text(json_key(entries[i].first), style.ascii, out);
      out += style.key_separator;
      write(entries[i].second, level + 1);
    }
    if (!entries.empty()) {
      line(level);
    }
    out += '}';
  }

  void write(const Value& value, int level) {
    charge(1);
    const Sequence* sequence = value.sequence();
    if (const std::string* text = value.text()) {
      dump_text(*text, style.ascii, out);
    } else if (value.is_none()) {
      out += "null";
    } else if (value.boolean() != nullptr) {
      out += *value.boolean() ? "true" : "false";
    } else if (value.number()) {
      out += value.real() != nullptr ? json_float(*value.real()) : to_text(value);
    } else if (value.dict() != nullptr) {
      write_dict(*value.dict(), level);
    } else if (
        sequence != nullptr &&
        (sequence->flavor == Sequence::Flavor::list || sequence->flavor == Sequence::Flavor::tuple)) {
      out += '[';
      for (size_t i = 0; i < sequence->items.size(); ++i) {
        out += i == 0 ? "" : style.item_separator;
        line(level + 1);
        write(sequence->items[i], level + 1);
      }
      if (!sequence->items.empty()) {
        line(level);
      }
      out += ']';
    } else {
      throw_input("Object of type {} is not JSON serializable", type_name(value));
    }
  }
};

}  // namespace

std::string float_text(double value) {
  if (std::isnan(value) || std::isinf(value)) {
    return std::isnan(value) ? "nan" : value < 0 ? "-inf" : "inf";
  }
  char buffer[64];
  const double size = std::fabs(value);
  // Python switches to an exponent below 1e-4 and from 1e16 on.
  const bool plain = value == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof(buffer), value, format).ptr);
  if (plain && text.find('.') == std::string::npos) {
    text += ".0";
  }
  return text;
}

std::string repr(std::string_view text) {
  const char quote = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < text.size();) {
    const size_t start = i;
    const char32_t point = read_point(text, i);
    const uint32_t code = static_cast<uint32_t>(point);
    if (point == U'\\' || point == static_cast<char32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(point);
    } else if (point == U'\n' || point == U'\r' || point == U'\t') {
      out += point == U'\n' ? "\\n" : point == U'\r' ? "\\r" : "\\t";
    } else if (is_printable(point)) {
      out += text.substr(start, i - start);
    } else {
      out += code < 0x100     ? fmt::format("\\x{:02x}", code)
             : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                              : fmt::format("\\U{:08x}", code);
    }
  }
  return out + quote;
}

std::string repr(const Value& value) {
  std::string out;
  print(value, out, 0);
  return out;
}

std::string to_text(const Value& value) {
  if (const std::string* text = value.text()) {
    charge_bytes(text->size());
    return *text;
  }
  if (value.boolean() != nullptr) {
    return *value.boolean() ? "True" : "False";
  }
  if (value.is_integer()) {
    return std::to_string(*value.integer());
  }
  if (value.real() != nullptr) {
    return float_text(*value.real());
  }
  if (value.is_undefined() || value.is_none()) {
    return value.is_none() ? "None" : "";
  }
  if (const Callable* callable = value.callable()) {
    return "<function " + callable->name + ">";
  }
  if (Loop* loop = value.loop()) {
    return fmt::format("<LoopContext {}/{}>", loop->index0 + 1, loop->count());
  }
  return value.iterator() != nullptr ? "<generator object>" : repr(value);
}

std::string dump_json(const Value& value, const JsonStyle& style) {
  JsonWriter writer{style, {}};
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace shardpipe::text::jinja
