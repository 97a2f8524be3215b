// The methods of str, list and dict.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

struct Method {
  std::vector<const char*> names;
  size_t required;
  Value (*run)(const Value& self, const Bound& arguments);
};

// Keeps "safe" text safe, as markupsafe's methods do.
Value like(const Value& self, std::string text) {
  return Value(std::move(text), self.is_markup());
}

Value list_like(const Value& self, const std::vector<std::string>& texts) {
  Values items;
  for (const std::string& text : texts) {
    items.push_back(like(self, text));
  }
  return make_sequence(std::move(items));
}

template <std::string (*change)(std::string_view)>
Value changed(const Value& self, const Bound&) {
  return like(self, change(*self.text()));
}

template <bool left, bool right>
Value stripped(const Value& self, const Bound& arguments) {
  return like(self, strip(*self.text(), arguments.optional_text(0), left, right));
}

template <CharacterClass characters>
Value is_only(const Value& self, const Bound&) {
  return is_all(*self.text(), characters);
}

template <std::vector<std::string> (*cut)(std::string_view, std::optional<std::string_view>, int64_t)>
Value cut_up(const Value& self, const Bound& arguments) {
  return list_like(self, cut(*self.text(), arguments.optional_text(0), arguments.integer(1, -1)));
}

// The part of the text that optional start and end arguments leave; nullopt when start is behind the text.
std::optional<std::u32string> part_of(const Value& self, const Bound& arguments, size_t& offset) {
  const std::u32string points = decode(*self.text());
  const auto length = static_cast<int64_t>(points.size());
  const auto bound = [&](size_t index, int64_t otherwise) {
    const int64_t given = arguments.has(index) && !arguments[index].is_none() ? arguments.integer(index, 0) : otherwise;
    return std::max<int64_t>(given < 0 ? given + length : given, 0);
  };
  const int64_t start = bound(1, 0);
  const int64_t stop = std::min(bound(2, length), length);
  if (start > length || start > stop) {
    return std::nullopt;
  }
  offset = static_cast<size_t>(start);
  return points.substr(offset, static_cast<size_t>(stop - start));
}

template <bool last, bool must>
Value found_at(const Value& self, const Bound& arguments) {
  size_t offset = 0;
  const auto part = part_of(self, arguments, offset);
  const std::u32string wanted = decode(arguments.text(0));
  const size_t found = !part ? std::u32string::npos : last ? part->rfind(wanted) : part->find(wanted);
  if (found == std::u32string::npos && must) {
    throw_input("substring not found");
  }
  return found == std::u32string::npos ? Value(-1) : Value(found + offset);
}

Value counted(const Value& self, const Bound& arguments) {
  size_t offset = 0;
  const auto part = part_of(self, arguments, offset);
  return part ? count_of(encode(*part), arguments.text(0)) : size_t{0};
}

template <bool at_end>
Value begins(const Value& self, const Bound& arguments) {
  size_t offset = 0;
  const auto part = part_of(self, arguments, offset);
  const std::string text = part ? encode(*part) : "";
  const auto matches = [&](const Value& affix) {
    if (affix.text() == nullptr) {
      throw_input(
          "{} first arg must be str or a tuple of str, not {}", at_end ? "endswith" : "startswith", type_name(affix));
    }
    return part.has_value() && (at_end ? text.ends_with(*affix.text()) : text.starts_with(*affix.text()));
  };
  const Sequence* several = arguments[0].sequence();
  return several != nullptr && several->flavor == Sequence::Flavor::tuple
             ? std::any_of(several->items.begin(), several->items.end(), matches)
             : matches(arguments[0]);
}

template <Side side>
Value padded(const Value& self, const Bound& arguments) {
  const std::string fill = arguments.has(1) ? arguments.text(1) : " ";
  if (count_points(fill) != 1) {
    throw_input("The fill character must be exactly one character long");
  }
  return like(self, pad(*self.text(), arguments.integer(0, 0), side, fill));
}

template <bool last>
Value partition(const Value& self, const Bound& arguments) {
  const std::string& text = *self.text();
  const std::string& separator = arguments.text(0);
  if (separator.empty()) {
    throw_input("empty separator");
  }
  charge_bytes(2 * text.size());
  const size_t found = last ? text.rfind(separator) : text.find(separator);
  Values parts(3, Value(""));
  if (found == std::string::npos) {
    parts[last ? 2 : 0] = self;
  } else {
    parts = {
        like(self, text.substr(0, found)), like(self, separator), like(self, text.substr(found + separator.size()))};
  }
  return make_sequence(std::move(parts), Sequence::Flavor::tuple);
}

Value joined(const Value& self, const Bound& arguments) {
  std::string out;
  size_t count = 0;
  const auto iterator = iterate(arguments[0]);
  while (const auto item = iterator->next()) {
    if (item->text() == nullptr) {
      throw_input("sequence item {}: expected str instance, {} found", count, type_name(*item));
    }
    const std::string& text = *item->text();
    charge_bytes(self.text()->size() + text.size());
    out += count++ == 0 ? "" : *self.text();
    out += self.is_markup() && !item->is_markup() ? escape_html(text) : text;
  }
  return like(self, out);
}

template <bool suffix>
Value without(const Value& self, const Bound& arguments) {
  std::string_view text = *self.text();
  const std::string& affix = arguments.text(0);
  if (suffix ? text.ends_with(affix) : text.starts_with(affix)) {
    text = suffix ? text.substr(0, text.size() - affix.size()) : text.substr(affix.size());
  }
  return like(self, std::string(text));
}

Value zero_filled(const Value& self, const Bound& arguments) {
  const std::string& text = *self.text();
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  const int64_t width = arguments.integer(0, 0) - static_cast<int64_t>(sign);
  return like(self, text.substr(0, sign) + pad(std::string_view(text).substr(sign), width, Side::left, "0"));
}

Value replaced(const Value& self, const Bound& arguments) {
  const std::string with =
      self.is_markup() && !arguments[1].is_markup() ? escape_html(arguments.text(1)) : arguments.text(1);
  return like(self, replace(*self.text(), arguments.text(0), with, arguments.integer(2, -1)));
}

const std::map<std::string_view, Method>& text_methods() {
  static const std::map<std::string_view, Method> kMethods = {
      {"capitalize", {{}, 0, changed<capitalize>}},
      {"casefold", {{}, 0, changed<casefold>}},
      {"center", {{"width", "fillchar"}, 1, padded<Side::both>}},
      {"count", {{"sub", "start", "end"}, 1, counted}},
      {"endswith", {{"suffix", "start", "end"}, 1, begins<true>}},
      {"find", {{"sub", "start", "end"}, 1, found_at<false, false>}},
      {"index", {{"sub", "start", "end"}, 1, found_at<false, true>}},
      {"isalnum", {{}, 0, is_only<CharacterClass::alphanumeric>}},
      {"isalpha", {{}, 0, is_only<CharacterClass::alphabetic>}},
      {"isascii",
       {{},
        0,
        [](const Value& self, const Bound&) -> Value {
          return std::all_of(self.text()->begin(), self.text()->end(), [](char c) { return (c & 0x80) == 0; });
        }}},
      {"isdecimal", {{}, 0, is_only<CharacterClass::decimal>}},
      {"isdigit", {{}, 0, is_only<CharacterClass::digit>}},
      {"islower", {{}, 0, [](const Value& self, const Bound&) -> Value { return is_cased(*self.text(), false); }}},
      {"isnumeric", {{}, 0, is_only<CharacterClass::numeric>}},
      {"isspace", {{}, 0, is_only<CharacterClass::space>}},
      {"isupper", {{}, 0, [](const Value& self, const Bound&) -> Value { return is_cased(*self.text(), true); }}},
      {"join", {{"iterable"}, 1, joined}},
      {"ljust", {{"width", "fillchar"}, 1, padded<Side::right>}},
      {"lower", {{}, 0, changed<lower>}},
      {"lstrip", {{"chars"}, 0, stripped<true, false>}},
      {"partition", {{"sep"}, 1, partition<false>}},
      {"removeprefix", {{"prefix"}, 1, without<false>}},
      {"removesuffix", {{"suffix"}, 1, without<true>}},
      {"replace", {{"old", "new", "count"}, 2, replaced}},
      {"rfind", {{"sub", "start", "end"}, 1, found_at<true, false>}},
      {"rindex", {{"sub", "start", "end"}, 1, found_at<true, true>}},
      {"rjust", {{"width", "fillchar"}, 1, padded<Side::left>}},
      {"rpartition", {{"sep"}, 1, partition<true>}},
      {"rsplit", {{"sep", "maxsplit"}, 0, cut_up<split_right>}},
      {"rstrip", {{"chars"}, 0, stripped<false, true>}},
      {"split", {{"sep", "maxsplit"}, 0, cut_up<split>}},
      {"splitlines",
       {{"keepends"},
        0,
        [](const Value& self, const Bound& arguments) {
          return list_like(self, split_lines(*self.text(), arguments.integer(0, 0) != 0));
        }}},
      {"startswith", {{"prefix", "start", "end"}, 1, begins<false>}},
      {"strip", {{"chars"}, 0, stripped<true, true>}},
      {"title", {{}, 0, changed<title>}},
      {"upper", {{}, 0, changed<upper>}},
      {"zfill", {{"width"}, 1, zero_filled}}};
  return kMethods;
}

const std::map<std::string_view, Method>& sequence_methods() {
  static const std::map<std::string_view, Method> kMethods = {
      {"count",
       {{"value"},
        1,
        [](const Value& self, const Bound& arguments) -> Value {
          const Values& items = self.sequence()->items;
          return std::count_if(
              items.begin(), items.end(), [&](const Value& item) { return equal(item, arguments[0]); });
        }}},
      {"index",
       {{"value"},
        1,
        [](const Value& self, const Bound& arguments) -> Value {
          const Values& items = self.sequence()->items;
          const auto found =
              std::find_if(items.begin(), items.end(), [&](const Value& item) { return equal(item, arguments[0]); });
          if (found == items.end()) {
            throw_input("{} is not in {}", repr(arguments[0]), type_name(self));
          }
          return found - items.begin();
        }}},
      {"copy", {{}, 0, [](const Value& self, const Bound&) { return self; }}}};
  return kMethods;
}

template <Sequence::Flavor flavor>
Value view(const Value& self, const Bound&) {
  Values items;
  for (const auto& [key, value] : self.dict()->entries()) {
    if constexpr (flavor == Sequence::Flavor::dict_items) {
      items.push_back(make_sequence({key, value}, Sequence::Flavor::tuple));
    } else {
      items.push_back(flavor == Sequence::Flavor::dict_keys ? key : value);
    }
  }
  return make_sequence(std::move(items), flavor);
}

const std::map<std::string_view, Method>& dict_methods() {
  static const std::map<std::string_view, Method> kMethods = {
      {"copy", {{}, 0, [](const Value& self, const Bound&) { return self; }}},
      {"get",
       {{"key", "default"},
        1,
        [](const Value& self, const Bound& arguments) {
          const Value* found = self.dict()->find(arguments[0]);
          return found == nullptr ? arguments.get(1, None{}) : *found;
        }}},
      {"items", {{}, 0, view<Sequence::Flavor::dict_items>}},
      {"keys", {{}, 0, view<Sequence::Flavor::dict_keys>}},
      {"values", {{}, 0, view<Sequence::Flavor::dict_values>}}};
  return kMethods;
}

// What the sandbox refuses because it changes the value.
bool modifies(const Value& object, const std::string& name) {
  static constexpr std::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                               "insert", "sort",  "extend", "remove"};
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  const auto has = [&name](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  return object.dict() != nullptr
             ? has(kDict)
             : object.sequence() != nullptr && object.sequence()->flavor == Sequence::Flavor::list && has(kList);
}

}  // namespace

std::optional<Value> get_method(const Value& object, const std::string& name) {
  if (modifies(object, name)) {
    return undefined(fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(object)));
  }
  if (object.text() != nullptr && name == "format") {
    return make_callable("format", [object](Arguments& arguments) -> Value {
      return Value(format_braces(*object.text(), arguments), object.is_markup());
    });
  }
  const Sequence* sequence = object.sequence();
  const bool indexed = sequence != nullptr && sequence->flavor <= Sequence::Flavor::range;
  if ((object.text() == nullptr && object.dict() == nullptr && !indexed) ||
      (name == "copy" && indexed && sequence->flavor != Sequence::Flavor::list)) {
    return std::nullopt;
  }
  const auto& methods = object.text() != nullptr   ? text_methods()
                        : object.dict() != nullptr ? dict_methods()
                                                   : sequence_methods();
  const auto found = methods.find(name);
  if (found == methods.end()) {
    return std::nullopt;
  }
  const Method* method = &found->second;
  return make_callable(name, [object, method, name](Arguments& arguments) {
    return method->run(object, Bound(name, arguments, method->names, method->required));
  });
}

}  // namespace shardpipe::text::jinja
