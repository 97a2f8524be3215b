// Filters of lists, dicts and generators. As in Jinja, those that give a generator do their work when it is read.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja_attributes.h"
#include "text/jinja_budget.h"
#include "text/jinja_filters.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

Value join(const Value& subject, Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const std::string separator = bound.has(0) ? to_text(bound[0]) : "";
  const AttributeGetter getter(bound.get(1, None{}));
  std::string out;
  bool first = true;
  const auto iterator = iterate(subject);
  while (const auto item = iterator->next()) {
    const std::string text = to_text(getter(*item));
    charge_bytes(separator.size() + text.size());
    out += std::exchange(first, false) ? "" : separator;
    out += text;
  }
  return out;
}

Value length(const Value& subject, Arguments& arguments) {
  const Bound bound("length", arguments, {});
  const auto count = length_of(subject);
  if (!count) {
    throw_input("object of type '{}' has no len()", type_name(subject));
  }
  return *count;
}

Value first(const Value& subject, Arguments& arguments) {
  const Bound bound("first", arguments, {});
  auto item = iterate(subject)->next();
  return item ? *item : undefined("No first item, sequence was empty.");
}

// Python's reversed(): what has an order from the end. nullopt for generators and single values.
std::optional<Values> reversed(const Value& subject) {
  if (subject.iterator() != nullptr || !try_iterate(subject)) {
    return std::nullopt;
  }
  Values items = list_of(subject);
  std::reverse(items.begin(), items.end());
  return items;
}

Value last(const Value& subject, Arguments& arguments) {
  const Bound bound("last", arguments, {});
  if (const std::string* text = subject.text(); text != nullptr && !text->empty()) {
    return get_item(subject, Value(-1));
  }
  const auto items = reversed(subject);
  if (!items) {
    throw_input("'{}' object is not reversible", type_name(subject));
  }
  return items->empty() ? undefined("No last item, sequence was empty.") : items->front();
}

Value reverse(const Value& subject, Arguments& arguments) {
  const Bound bound("reverse", arguments, {});
  if (const std::string* text = subject.text()) {
    std::u32string points = decode(*text);
    std::reverse(points.begin(), points.end());
    return Value(encode(points), subject.is_markup());
  }
  auto items = reversed(subject);
  if (!items) {
    Values read = list_of(subject);
    std::reverse(read.begin(), read.end());
    return make_sequence(std::move(read));
  }
  return generate(make_sequence(std::move(*items)), [](Iterator& source) { return source.next(); });
}

Value list(const Value& subject, Arguments& arguments) {
  const Bound bound("list", arguments, {});
  return make_sequence(list_of(subject));
}

Value items(const Value& subject, Arguments& arguments) {
  const Bound bound("items", arguments, {});
  return generate(subject, [subject](Iterator& source) -> std::optional<Value> {
    if (!subject.is_undefined() && subject.dict() == nullptr) {
      throw_input("Can only get item pairs from a mapping.");
    }
    const auto key = source.next();
    return key ? std::optional(make_sequence({*key, *subject.dict()->find(*key)}, Sequence::Flavor::tuple))
               : std::nullopt;
  });
}

Value sum(const Value& subject, Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const AttributeGetter getter(bound.get(0, None{}));
  Value total = bound.get(1, Value(0));
  if (total.text() != nullptr) {
    throw_input("sum() can't sum strings [use ''.join(seq) instead]");
  }
  const auto iterator = iterate(subject);
  while (const auto item = iterator->next()) {
    total = arithmetic("+", total, getter(*item));
  }
  return total;
}

Value batch(const Value& subject, Arguments& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t size = bound.integer(0, 1);
  const Value fill = bound.get(1, None{});
  return generate(
      subject, [size, fill, held = std::optional<Value>()](Iterator& source) mutable -> std::optional<Value> {
        Values row;
        if (held) {
          row.push_back(*std::exchange(held, std::nullopt));
        }
        while (auto item = source.next()) {
          charge(1);
          if (static_cast<int64_t>(row.size()) == size) {
            held = std::move(item);
            return make_sequence(std::move(row));
          }
          row.push_back(std::move(*item));
        }
        if (row.empty()) {
          return std::nullopt;
        }
        while (!fill.is_none() && static_cast<int64_t>(row.size()) < size) {
          charge(2);
          row.push_back(fill);
        }
        return make_sequence(std::move(row));
      });
}

Value slice(const Value& subject, Arguments& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  const Values all = list_of(subject);
  const int64_t count = bound.integer(0, 1);
  const auto total = static_cast<int64_t>(all.size());
  if (count == 0) {
    throw_input("integer division or modulo by zero");
  }
  Values columns;
  int64_t start = 0;
  for (int64_t i = 0; i < count; ++i) {
    charge(2);
    const bool extra = i < total % count;
    const int64_t stop = start + total / count + (extra ? 1 : 0);
    Values column(all.begin() + start, all.begin() + stop);
    if (bound.has(1) && !bound[1].is_none() && !extra) {
      column.push_back(bound[1]);
    }
    columns.push_back(make_sequence(std::move(column)));
    start = stop;
  }
  return generate(make_sequence(std::move(columns)), [](Iterator& source) { return source.next(); });
}

Value attr(const Value& subject, Arguments& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  // Attributes proper only: a key of that name does not count.
  const std::string& name = bound.text(0);
  return subject.dict() != nullptr && !get_method(subject, name)
             ? undefined(fmt::format("'dict object' has no attribute '{}'", name))
             : get_attribute(subject, name);
}

}  // namespace

const std::map<std::string_view, Filter>& sequence_filters() {
  static const std::map<std::string_view, Filter> kFilters = {
      {"attr", attr}, {"batch", batch},   {"count", length}, {"first", first},     {"items", items}, {"join", join},
      {"last", last}, {"length", length}, {"list", list},    {"reverse", reverse}, {"slice", slice}, {"sum", sum}};
  return kFilters;
}

}  // namespace shardpipe::text::jinja
