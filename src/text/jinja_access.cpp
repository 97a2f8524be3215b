// Attributes, subscripts and slices.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

Value unsafe(const Value& object, const std::string& name) {
  return undefined(fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(object)));
}

Value no_attribute(const Value& object, const std::string& name) {
  return undefined(
      object.is_none() ? fmt::format("'None' has no attribute '{}'", name)
                       : fmt::format("'{} object' has no attribute '{}'", type_name(object), name));
}

std::optional<Value> loop_attribute(const Value& value, const std::string& name) {
  Loop& loop = *value.loop();
  if (name == "index" || name == "index0") {
    return loop.index0 + (name == "index" ? 1 : 0);
  }
  if (name == "depth" || name == "depth0") {
    return loop.depth0 + (name == "depth" ? 1 : 0);
  }
  if (name == "first") {
    return loop.index0 == 0;
  }
  if (name == "last") {
    return !loop.peek();
  }
  if (name == "length") {
    return loop.count();
  }
  if (name == "revindex" || name == "revindex0") {
    return loop.count() - loop.index0 - (name == "revindex" ? 0 : 1);
  }
  if (name == "previtem") {
    return loop.index0 == 0 ? undefined("there is no previous item") : loop.before;
  }
  if (name == "nextitem") {
    return loop.peek() ? *loop.after : undefined("there is no next item");
  }
  if (name == "cycle") {
    return make_callable("cycle", [value](Arguments& arguments) {
      if (arguments.positional.empty()) {
        throw_input("no items for cycling given");
      }
      return arguments.positional[static_cast<size_t>(value.loop()->index0) % arguments.positional.size()];
    });
  }
  if (name == "changed") {
    return make_callable("changed", [value](Arguments& arguments) -> Value {
      auto& last = value.loop()->last_changed;
      if (last &&
          std::equal(last->begin(), last->end(), arguments.positional.begin(), arguments.positional.end(), equal)) {
        return false;
      }
      last = arguments.positional;
      return true;
    });
  }
  return std::nullopt;
}

// The attribute proper, without the key; nullopt when the type has none of that name.
std::optional<Value> own_attribute(const Value& object, const std::string& name) {
  if (name.starts_with("__") && object.space() == nullptr) {
    // What every Python object has.
    static constexpr std::string_view kInternal[] = {"__class__", "__dict__",   "__doc__",
                                                     "__init__",  "__module__", "__len__"};
    if (std::find(std::begin(kInternal), std::end(kInternal), name) != std::end(kInternal)) {
      return unsafe(object, name);
    }
  }
  if (object.is_undefined()) {
    fail_undefined(object);
  }
  if (const Namespace* space = object.space()) {
    const Value* found = space->attributes.find(std::string_view(name));
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  if (object.loop() != nullptr) {
    return loop_attribute(object, name);
  }
  return get_method(object, name);
}

// An index counted from the end when negative; nullopt outside.
std::optional<size_t> position(int64_t index, int64_t length) {
  index += index < 0 ? length : 0;
  return index >= 0 && index < length ? std::optional(static_cast<size_t>(index)) : std::nullopt;
}

// object[key] proper; nullopt where Python raises TypeError or LookupError.
std::optional<Value> own_item(const Value& object, const Value& key) {
  if (object.is_undefined()) {
    fail_undefined(object);
  }
  if (const Dict* dict = object.dict()) {
    const Value* found = hashable(key) ? dict->find(key) : nullptr;
    return found == nullptr ? std::nullopt : std::optional<Value>(*found);
  }
  if (!key.integer()) {
    return std::nullopt;
  }
  const Sequence* sequence = object.sequence();
  if (sequence != nullptr && sequence->flavor <= Sequence::Flavor::range) {
    const auto index = position(*key.integer(), static_cast<int64_t>(sequence->items.size()));
    return index ? std::optional<Value>(sequence->items[*index]) : std::nullopt;
  }
  if (const std::string* text = object.text()) {
    charge_bytes(text->size());
    const auto index = position(*key.integer(), static_cast<int64_t>(count_points(*text)));
    if (!index) {
      return std::nullopt;
    }
    size_t start = 0;
    for (size_t i = 0; i < *index; ++i) {
      start += point_bytes(*text, start);
    }
    return Value(text->substr(start, point_bytes(*text, start)), object.is_markup());
  }
  return std::nullopt;
}

struct Slice {
  int64_t start, stop, step, count;
};

// Python's slice(start, stop, step).indices(length).
Slice resolve_slice(const Value& start, const Value& stop, const Value& step, int64_t length) {
  const auto bound = [](const Value& value, int64_t otherwise) {
    if (value.is_missing() || value.is_none()) {
      return otherwise;
    }
    if (!value.integer()) {
      throw_input("slice indices must be integers or None or have an __index__ method, not {}", type_name(value));
    }
    return *value.integer();
  };
  Slice slice{0, 0, bound(step, 1), 0};
  if (slice.step == 0) {
    throw_input("slice step cannot be zero");
  }
  const bool back = slice.step < 0;
  const auto clamp = [&](int64_t index) {
    index = index < 0 ? std::max<int64_t>(index, -length - 1) + length : index;
    return std::clamp<int64_t>(index, back ? -1 : 0, back ? length - 1 : length);
  };
  const bool has_start = !start.is_missing() && !start.is_none();
  const bool has_stop = !stop.is_missing() && !stop.is_none();
  slice.start = has_start ? clamp(bound(start, 0)) : (back ? length - 1 : 0);
  slice.stop = has_stop ? clamp(bound(stop, 0)) : (back ? -1 : length);
  const int64_t span = back ? slice.start - slice.stop : slice.stop - slice.start;
  // Steps longer than the text all take one item; a shorter step keeps the arithmetic within range.
  slice.step = std::clamp<int64_t>(slice.step, -length - 1, length + 1);
  const int64_t size = back ? -slice.step : slice.step;
  slice.count = span <= 0 ? 0 : (span - 1) / size + 1;
  return slice;
}

}  // namespace

Value get_attribute(const Value& object, const std::string& name) {
  if (auto found = own_attribute(object, name)) {
    // The sandbox hides private attributes, but not keys.
    return name.starts_with("_") && object.dict() == nullptr ? unsafe(object, name) : *found;
  }
  auto item = own_item(object, Value(name));
  return item ? *item : no_attribute(object, name);
}

Value get_item(const Value& object, const Value& key) {
  if (auto found = own_item(object, key)) {
    return *found;
  }
  if (const std::string* name = key.text()) {
    if (auto found = own_attribute(object, *name)) {
      return name->starts_with("_") ? unsafe(object, *name) : *found;
    }
    return no_attribute(object, *name);
  }
  return undefined(fmt::format("{} object has no element {}", type_name(object), repr(key)));
}

Value get_slice(const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.is_undefined()) {
    fail_undefined(object);
  }
  const Sequence* sequence = object.sequence();
  if (const std::string* text = object.text()) {
    const std::u32string points = decode(*text);
    const Slice slice = resolve_slice(start, stop, step, static_cast<int64_t>(points.size()));
    std::u32string out;
    for (int64_t i = 0; i < slice.count; ++i) {
      out += points[static_cast<size_t>(slice.start + i * slice.step)];
    }
    return Value(encode(out), object.is_markup());
  }
  if (sequence == nullptr || sequence->flavor > Sequence::Flavor::range) {
    throw_input("'{}' object is not subscriptable", type_name(object));
  }
  const Slice slice = resolve_slice(start, stop, step, static_cast<int64_t>(sequence->items.size()));
  if (sequence->flavor == Sequence::Flavor::range) {
    const auto at = [&](int64_t index) {
      return *arithmetic("+", sequence->start, arithmetic("*", index, sequence->step)).integer();
    };
    return make_range(at(slice.start), at(slice.stop), *arithmetic("*", slice.step, sequence->step).integer());
  }
  Values items;
  for (int64_t i = 0; i < slice.count; ++i) {
    items.push_back(sequence->items[static_cast<size_t>(slice.start + i * slice.step)]);
  }
  return make_sequence(std::move(items), sequence->flavor);
}

}  // namespace shardpipe::text::jinja
