// Filters that choose, order or group items.
#include <algorithm>

#include "base/error.h"
#include "text/jinja_attributes.h"
#include "text/jinja_budget.h"
#include "text/jinja_filters.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

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

// What map() does with an item.
std::function<Value(const Value&)> item_change(Arguments arguments) {
  if (arguments.positional.empty() && !arguments.named.empty()) {
    const Bound bound("map", arguments, {"attribute", "default"}, 1);
    const bool has_default = bound.has(1) && !bound[1].is_none();
    return AttributeGetter(bound[0], false, has_default ? std::optional<Value>(bound[1]) : std::nullopt);
  }
  if (arguments.positional.empty()) {
    throw_input("map requires a filter argument");
  }
  const Value name = arguments.positional[0];
  arguments.positional.erase(arguments.positional.begin());
  return [name, arguments](const Value& item) { return run_filter(name, item, arguments); };
}

// What select() and its kin ask of an item.
std::function<bool(const Value&)> item_test(Arguments arguments, bool by_attribute) {
  const auto take_first = [&arguments] {
    Value first = arguments.positional[0];
    arguments.positional.erase(arguments.positional.begin());
    return first;
  };
  if (by_attribute && arguments.positional.empty()) {
    throw_input("Missing parameter for attribute name");
  }
  const AttributeGetter getter(by_attribute ? take_first() : Value(None{}));
  if (arguments.positional.empty()) {
    return [getter](const Value& item) { return truthy(getter(item)); };
  }
  const Value name = take_first();
  return [getter, name, arguments](const Value& item) { return run_test(name, getter(item), arguments); };
}

// Jinja's generators take any false subject for an empty one, and do not look at their arguments then.
Value generate_if_true(const Value& subject, Step step) {
  return truthy(subject) ? generate(subject, std::move(step))
                         : generate(make_sequence({}), [](Iterator&) { return std::nullopt; });
}

Value map(const Value& subject, Arguments& arguments) {
  return generate_if_true(
      subject,
      [arguments, change = std::function<Value(const Value&)>()](Iterator& source) mutable -> std::optional<Value> {
        if (!change) {
          change = item_change(arguments);
        }
        const auto item = source.next();
        return item ? std::optional<Value>(change(*item)) : std::nullopt;
      });
}

template <bool wanted, bool by_attribute>
Value select(const Value& subject, Arguments& arguments) {
  return generate_if_true(
      subject,
      [arguments, accepts = std::function<bool(const Value&)>()](Iterator& source) mutable -> std::optional<Value> {
        if (!accepts) {
          accepts = item_test(arguments, by_attribute);
        }
        while (auto item = source.next()) {
          charge(1);
          if (accepts(*item) == wanted) {
            return item;
          }
        }
        return std::nullopt;
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

Value groupby(const Value& subject, Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const std::optional<Value> otherwise =
      bound.has(1) && !bound[1].is_none() ? std::optional<Value>(bound[1]) : std::nullopt;
  const AttributeGetter key_of(bound[0], !bound.truth(2, false), otherwise);
  const AttributeGetter shown(bound[0], false, otherwise);
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

}  // namespace

const std::map<std::string_view, Filter>& selection_filters() {
  static const std::map<std::string_view, Filter> kFilters = {
      {"dictsort", dictsort},
      {"groupby", groupby},
      {"map", map},
      {"max", extreme<true>},
      {"min", extreme<false>},
      {"reject", select<false, false>},
      {"rejectattr", select<false, true>},
      {"select", select<true, false>},
      {"selectattr", select<true, true>},
      {"sort", sort},
      {"unique", unique}};
  return kFilters;
}

}  // namespace shardpipe::text::jinja
