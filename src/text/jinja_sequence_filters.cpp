// Filters of lists, dicts and generators. As in Jinja, those that give a generator do their work when it is read.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_filters.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

// A generator whose items `make` yields from an iterator over `source`, which is opened at the first read.
using Step = std::function<std::optional<Value>(Iterator& source)>;
Value generate(const Value& source, Step step) {
  return make_iterator(
      [source, step = std::move(step), open = Value::IteratorPtr()]() mutable {
        open = open ? open : iterate(source);
        charge(1);
        return step(*open);
      },
      source.depth());
}

// Reads "a.b.0" from an item, whole numbers as positions.
struct AttributeGetter {
  Values parts;
  std::optional<Value> otherwise;
  bool ignore_case = false;

  AttributeGetter(const Value& attribute, bool ignores_case) : ignore_case(ignores_case) {
    if (attribute.text() == nullptr) {
      if (!attribute.is_none()) {
        parts.push_back(attribute);
      }
      return;
    }
    for (const std::string& part : split(*attribute.text(), ".", -1)) {
      const auto index = is_all(part, CharacterClass::digit) ? parse_integer(part, 10) : std::nullopt;
      parts.push_back(index ? Value(*index) : Value(part));
    }
  }

  Value operator()(Value item) const {
    for (const Value& part : parts) {
      item = get_item(item, part);
      if (otherwise && item.is_undefined()) {
        item = *otherwise;
      }
    }
    return ignore_case && item.text() != nullptr ? Value(lower(*item.text())) : item;
  }
};

Value run_filter(const Value& name, const Value& subject, Arguments arguments) {
  const Filter filter = name.text() == nullptr ? nullptr : find_filter(*name.text());
  if (filter == nullptr) {
    throw_input("No filter named {} found.", repr(name));
  }
  return filter(subject, arguments);
}

bool run_test(const Value& name, const Value& subject, Arguments arguments) {
  const Test test = name.text() == nullptr ? nullptr : find_test(*name.text());
  if (test == nullptr) {
    throw_input("No test named {} found.", repr(name));
  }
  return test(subject, arguments);
}

Value map(const Value& subject, Arguments& arguments) {
  if (!truthy(subject)) {
    return generate(make_sequence({}), [](Iterator&) { return std::nullopt; });
  }
  return generate(subject, [given = arguments](Iterator& source) -> std::optional<Value> {
    Arguments rest = given;
    std::function<Value(const Value&)> change;
    if (rest.positional.empty() && !rest.named.empty()) {
      const Bound bound("map", rest, {"attribute", "default"}, 1);
      AttributeGetter getter(bound[0], false);
      if (bound.has(1) && !bound[1].is_none()) {
        getter.otherwise = bound[1];
      }
      change = getter;
    } else if (rest.positional.empty()) {
      throw_input("map requires a filter argument");
    } else {
      const Value name = rest.positional[0];
      rest.positional.erase(rest.positional.begin());
      change = [name, rest](const Value& item) { return run_filter(name, item, rest); };
    }
    const auto item = source.next();
    return item ? std::optional<Value>(change(*item)) : std::nullopt;
  });
}

// select, reject, selectattr and rejectattr.
template <bool wanted, bool by_attribute>
Value select(const Value& subject, Arguments& arguments) {
  if (!truthy(subject)) {
    return generate(make_sequence({}), [](Iterator&) { return std::nullopt; });
  }
  return generate(subject, [given = arguments](Iterator& source) -> std::optional<Value> {
    Arguments rest = given;
    AttributeGetter getter(None{}, false);
    if (by_attribute) {
      if (rest.positional.empty()) {
        throw_input("Missing parameter for attribute name");
      }
      getter = AttributeGetter(rest.positional[0], false);
      rest.positional.erase(rest.positional.begin());
    }
    std::optional<Value> test;
    if (!rest.positional.empty()) {
      test = rest.positional[0];
      rest.positional.erase(rest.positional.begin());
    }
    while (auto item = source.next()) {
      charge(1);
      const Value seen = getter(*item);
      if ((test ? run_test(*test, seen, rest) : truthy(seen)) == wanted) {
        return item;
      }
    }
    return std::nullopt;
  });
}

Value join(const Value& subject, Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const std::string separator = bound.has(0) ? to_text(bound[0]) : "";
  const AttributeGetter getter(bound.get(1, None{}), false);
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

// Sorts pairs of a key and an item by key.
Values sort_by_key(std::vector<std::pair<Value, Value>> pairs, bool descending) {
  std::stable_sort(pairs.begin(), pairs.end(), [descending](const auto& a, const auto& b) {
    return descending ? less(b.first, a.first) : less(a.first, b.first);
  });
  Values sorted;
  for (auto& [key, item] : pairs) {
    sorted.push_back(std::move(item));
  }
  return sorted;
}

Value dictsort(const Value& subject, Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.has(1) ? to_text(bound[1]) : "key";
  if (by != "key" && by != "value") {
    throw_input("You can only sort by either \"key\" or \"value\"");
  }
  if (subject.dict() == nullptr) {
    throw_input("filter dictsort needs a dict, not {}", type_name(subject));
  }
  std::vector<std::pair<Value, Value>> pairs;
  for (const auto& [key, value] : subject.dict()->entries()) {
    const Value& sorted = by == "key" ? key : value;
    const bool folds = sorted.text() != nullptr && !bound.truth(0, false);
    pairs.emplace_back(
        folds ? Value(lower(*sorted.text())) : sorted, make_sequence({key, value}, Sequence::Flavor::tuple));
  }
  return make_sequence(sort_by_key(std::move(pairs), bound.integer(2, 0) != 0));
}

Value sort(const Value& subject, Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool folds = !bound.truth(1, false);
  std::vector<AttributeGetter> getters;
  if (bound.has(2) && bound[2].text() != nullptr) {
    for (const std::string& attribute : split(*bound[2].text(), ",", -1)) {
      getters.emplace_back(Value(attribute), folds);
    }
  } else {
    getters.emplace_back(bound.get(2, None{}), folds);
  }
  std::vector<std::pair<Value, Value>> pairs;
  for (Value& item : list_of(subject)) {
    Values keys;
    for (const AttributeGetter& getter : getters) {
      keys.push_back(getter(item));
    }
    pairs.emplace_back(make_sequence(std::move(keys)), std::move(item));
  }
  return make_sequence(sort_by_key(std::move(pairs), bound.integer(0, 0) != 0));
}

Value unique(const Value& subject, Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  const AttributeGetter getter(bound.get(1, None{}), !bound.truth(0, false));
  return generate(subject, [getter, seen = std::make_shared<Dict>()](Iterator& source) -> std::optional<Value> {
    while (auto item = source.next()) {
      const Value key = getter(*item);
      if (seen->find(key) == nullptr) {
        seen->set(key, true);
        return item;
      }
    }
    return std::nullopt;
  });
}

template <bool largest>
Value extreme(const Value& subject, Arguments& arguments) {
  const Bound bound(largest ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  const AttributeGetter getter(bound.get(1, None{}), !bound.truth(0, false));
  std::optional<Value> best;
  Value best_key;
  const auto iterator = iterate(subject);
  while (auto item = iterator->next()) {
    Value key = getter(*item);
    if (!best || (largest ? less(best_key, key, ">") : less(key, best_key))) {
      best = std::move(*item);
      best_key = std::move(key);
    }
  }
  return best ? *best : undefined("No aggregated item, sequence was empty.");
}

Value sum(const Value& subject, Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const AttributeGetter getter(bound.get(0, None{}), false);
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

Value groupby(const Value& subject, Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  AttributeGetter key_of(bound[0], !bound.truth(2, false));
  if (bound.has(1) && !bound[1].is_none()) {
    key_of.otherwise = bound[1];
  }
  AttributeGetter shown = key_of;
  shown.ignore_case = false;
  std::vector<std::pair<Value, Value>> pairs;
  for (Value& item : list_of(subject)) {
    pairs.emplace_back(key_of(item), item);
  }
  Values groups;
  Values group;
  const auto close = [&] {
    if (!group.empty()) {
      const Value name = shown(group.front());
      groups.push_back(make_sequence({name, make_sequence(std::exchange(group, {}))}, Sequence::Flavor::tuple));
    }
  };
  for (Value& item : sort_by_key(std::move(pairs), false)) {
    if (!group.empty() && !equal(key_of(group.front()), key_of(item))) {
      close();
    }
    group.push_back(std::move(item));
  }
  close();
  return make_sequence(std::move(groups));
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
      {"attr", attr},
      {"batch", batch},
      {"count", length},
      {"dictsort", dictsort},
      {"first", first},
      {"groupby", groupby},
      {"items", items},
      {"join", join},
      {"last", last},
      {"length", length},
      {"list", list},
      {"map", map},
      {"max", extreme<true>},
      {"min", extreme<false>},
      {"reject", select<false, false>},
      {"rejectattr", select<false, true>},
      {"reverse", reverse},
      {"select", select<true, false>},
      {"selectattr", select<true, true>},
      {"slice", slice},
      {"sort", sort},
      {"sum", sum},
      {"unique", unique}};
  return kFilters;
}

}  // namespace shardpipe::text::jinja
