// Filters of texts, numbers and single values.
#include "text/jinja_filters.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

// Filters that take no argument and see the subject as text.
template <std::string (*change)(std::string_view)>
Value changed(const Value& subject, Arguments& arguments) {
  const Bound bound("filter", arguments, {});
  return Value(change(to_text(subject)), subject.is_markup());
}

// Jinja puts the words together anew, which loses what |safe said.
Value title_filter(const Value& subject, Arguments& arguments) {
  const Bound bound("title", arguments, {});
  return jinja_title(to_text(subject));
}

const std::string& must_be_text(const char* filter, const Value& subject) {
  if (subject.text() == nullptr) {
    throw_input("filter {} needs a str, not {}", filter, type_name(subject));
  }
  return *subject.text();
}

Value trim(const Value& subject, Arguments& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  return Value(strip(to_text(subject), bound.optional_text(0), true, true), subject.is_markup());
}

Value replace_filter(const Value& subject, Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const int64_t count = bound.has(2) && !bound[2].is_none() ? bound.integer(2, -1) : -1;
  return replace(to_text(subject), to_text(bound[0]), to_text(bound[1]), count);
}

Value indent(const Value& subject, Arguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  const bool blank = bound.truth(2, false);
  const std::string space =
      bound.has(0) && bound[0].text() != nullptr ? *bound[0].text() : repeat(" ", bound.integer(0, 4));
  std::string out = bound.truth(1, false) ? space : "";
  bool first = true;
  for (const std::string& line : split_lines(must_be_text("indent", subject) + "\n", false)) {
    out += first ? "" : "\n";
    if (!std::exchange(first, false) && (blank || !line.empty())) {
      charge_bytes(space.size());
      out += space;
    }
    out += line;
  }
  return Value(out, subject.is_markup());
}

Value truncate(const Value& subject, Arguments& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const int64_t length = bound.integer(0, 255);
  const std::string end = bound.has(2) ? bound.text(2) : "...";
  const int64_t leeway = bound.has(3) && !bound[3].is_none() ? bound.integer(3, 5) : 5;
  const auto end_length = static_cast<int64_t>(count_points(end));
  if (length < end_length || leeway < 0) {
    throw_input("expected length >= {} and leeway >= 0, got {} and {}", end_length, length, leeway);
  }
  const auto size = length_of(subject);
  if (size && *size - length <= leeway) {
    return subject;
  }
  const std::u32string points = decode(must_be_text("truncate", subject));
  std::string kept = encode(points.substr(0, static_cast<size_t>(length - end_length)));
  if (!bound.truth(1, false)) {
    kept = kept.substr(0, kept.rfind(' '));
  }
  return arithmetic("+", Value(kept, subject.is_markup()), bound.get(2, Value("...")));
}

Value center(const Value& subject, Arguments& arguments) {
  const Bound bound("center", arguments, {"width"});
  return Value(pad(to_text(subject), bound.integer(0, 80), Side::both), subject.is_markup());
}

Value wordcount(const Value& subject, Arguments& arguments) {
  const Bound bound("wordcount", arguments, {});
  int64_t words = 0;
  bool inside = false;
  const std::string text = to_text(subject);
  for (size_t i = 0; i < text.size();) {
    const size_t start = i;
    read_point(text, i);
    const std::string_view point = std::string_view(text).substr(start, i - start);
    const bool word = point == "_" || is_all(point, CharacterClass::alphanumeric);
    words += word && !inside ? 1 : 0;
    inside = word;
  }
  return words;
}

Value format_filter(const Value& subject, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    throw_input("can't handle positional and keyword arguments at the same time");
  }
  if (arguments.named.empty()) {
    return format_percent(to_text(subject), make_sequence(arguments.positional, Sequence::Flavor::tuple));
  }
  Dict dict;
  for (auto& [name, value] : arguments.named) {
    dict.set(Value(name), value);
  }
  return format_percent(to_text(subject), make_dict(std::move(dict)));
}

Value to_json(const Value& subject, Arguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = bound.truth(0, false);
  style.sort_keys = bound.truth(3, false);
  if (bound.has(1) && !bound[1].is_none()) {
    style.indent = bound[1].text() != nullptr ? *bound[1].text() : repeat(" ", bound.integer(1, 0));
    style.item_separator = ",";
  }
  if (bound.has(2) && !bound[2].is_none()) {
    const Values separators = list_of(bound[2]);
    if (separators.size() != 2 || separators[0].text() == nullptr || separators[1].text() == nullptr) {
      throw_input("tojson() needs two texts as separators");
    }
    style.item_separator = *separators[0].text();
    style.key_separator = *separators[1].text();
  }
  return dump_json(subject, style);
}

Value default_filter(const Value& subject, Arguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  return subject.is_undefined() || (bound.truth(1, false) && !truthy(subject)) ? bound.get(0, Value("")) : subject;
}

void check_number(const char* filter, const Value& subject) {
  if (subject.is_undefined()) {
    fail_undefined(subject);
  }
  if (!subject.number()) {
    throw_input("filter {} needs a number, not {}", filter, type_name(subject));
  }
}

Value abs_filter(const Value& subject, Arguments& arguments) {
  const Bound bound("abs", arguments, {});
  check_number("abs", subject);
  if (subject.real() != nullptr) {
    return std::fabs(*subject.real());
  }
  return *subject.integer() < 0 ? negate(subject) : positive(subject);
}

std::optional<int64_t> truncated(double value) {
  if (std::isnan(value) || std::isinf(value)) {
    return std::nullopt;
  }
  if (std::fabs(value) >= 9.2e18) {
    throw_input("an integer of the chat template is beyond 64 bits");
  }
  return static_cast<int64_t>(value);
}

Value int_filter(const Value& subject, Arguments& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  if (subject.is_undefined()) {
    fail_undefined(subject);
  }
  if (subject.integer()) {
    return *subject.integer();
  }
  std::optional<double> real;
  if (subject.real() != nullptr) {
    real = *subject.real();
    if (std::isinf(*real)) {
      throw_input("cannot convert float infinity to integer");
    }
  } else if (const std::string* text = subject.text()) {
    if (const auto integer = parse_integer(*text, static_cast<int>(bound.integer(1, 10)))) {
      return *integer;
    }
    real = parse_float(*text);
  }
  const auto whole = real ? truncated(*real) : std::nullopt;
  return whole ? Value(*whole) : bound.get(0, Value(0));
}

Value float_filter(const Value& subject, Arguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  if (subject.is_undefined()) {
    fail_undefined(subject);
  }
  const auto number = subject.text() != nullptr ? parse_float(*subject.text()) : subject.number();
  return number ? Value(*number) : bound.get(0, Value(0.0));
}

// Rounds to a multiple of 10^-precision, halves to even; exact, as Python's is, for a precision of 0 and more.
double round_real(double value, int64_t precision) {
  if (precision >= 0) {
    return precision > 300 || std::isinf(value) || std::isnan(value)
               ? value
               : *parse_float(fmt::format("{:.{}f}", value, precision));
  }
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(value / unit) * unit;
}

Value round_filter(const Value& subject, Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const int64_t precision = bound.integer(0, 0);
  const std::string method = bound.has(1) ? to_text(bound[1]) : "common";
  if (method != "common" && method != "ceil" && method != "floor") {
    throw_input("method must be common, ceil or floor");
  }
  check_number("round", subject);
  if (method == "common") {
    if (subject.integer() && precision >= 0) {
      return *subject.integer();
    }
    const double rounded = round_real(*subject.number(), precision);
    return subject.integer() ? Value(*truncated(rounded)) : Value(rounded);
  }
  const double unit = std::pow(10.0, static_cast<double>(precision));
  const double scaled = *subject.number() * unit;
  if (std::isinf(scaled) || std::isnan(scaled)) {
    throw_input("cannot round {}", float_text(scaled));
  }
  // The sum turns -0.0 into the integer zero that Python has here.
  return ((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) + 0.0) / unit;
}

Value string_filter(const Value& subject, Arguments& arguments) {
  const Bound bound("string", arguments, {});
  return subject.text() != nullptr ? subject : Value(to_text(subject));
}

Value safe(const Value& subject, Arguments& arguments) {
  const Bound bound("safe", arguments, {});
  return Value(to_text(subject), true);
}

template <bool force>
Value escape(const Value& subject, Arguments& arguments) {
  const Bound bound("escape", arguments, {});
  return subject.is_markup() && !force ? subject : Value(escape_html(to_text(subject)), true);
}

}  // namespace

const std::map<std::string_view, Filter>& scalar_filters() {
  static const std::map<std::string_view, Filter> kFilters = {
      {"abs", abs_filter},
      {"capitalize", changed<capitalize>},
      {"center", center},
      {"d", default_filter},
      {"default", default_filter},
      {"e", escape<false>},
      {"escape", escape<false>},
      {"float", float_filter},
      {"forceescape", escape<true>},
      {"format", format_filter},
      {"indent", indent},
      {"int", int_filter},
      {"lower", changed<lower>},
      {"replace", replace_filter},
      {"round", round_filter},
      {"safe", safe},
      {"string", string_filter},
      {"title", title_filter},
      {"tojson", to_json},
      {"trim", trim},
      {"truncate", truncate},
      {"upper", changed<upper>},
      {"wordcount", wordcount}};
  return kFilters;
}

Filter find_filter(std::string_view name) {
  for (const auto* table : {&scalar_filters(), &sequence_filters(), &selection_filters()}) {
    if (const auto found = table->find(name); found != table->end()) {
      return found->second;
    }
  }
  return nullptr;
}

}  // namespace shardpipe::text::jinja
