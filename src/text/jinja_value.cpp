#include "text/jinja_value.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {

std::optional<int64_t> Value::integer() const {
  if (const auto* value = std::get_if<int64_t>(&data_)) {
    return *value;
  }
  if (const auto* value = std::get_if<bool>(&data_)) {
    return *value ? 1 : 0;
  }
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (const auto* value = std::get_if<double>(&data_)) {
    return *value;
  }
  if (const auto value = integer()) {
    return static_cast<double>(*value);
  }
  return std::nullopt;
}

const std::string* Value::text() const {
  const Text* found = pointer<TextPtr>();
  return found == nullptr ? nullptr : &found->bytes;
}

bool Value::is_markup() const {
  const Text* found = pointer<TextPtr>();
  return found != nullptr && found->markup;
}

int Value::depth() const {
  if (const Sequence* found = sequence()) {
    return found->depth;
  }
  if (const Dict* found = dict()) {
    return found->depth();
  }
  if (const Iterator* found = iterator()) {
    return found->depth;
  }
  return 0;
}

std::pair<size_t, uint64_t> Value::identity() const {
  const uint64_t bits = std::visit(
      [](const auto& value) -> uint64_t {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, Undefined> || std::is_same_v<T, None>) {
          return 0;
        } else if constexpr (std::is_same_v<T, double>) {
          return std::bit_cast<uint64_t>(value);
        } else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, int64_t>) {
          return static_cast<uint64_t>(value);
        } else {
          return reinterpret_cast<uint64_t>(&*value);
        }
      },
      data_);
  return {data_.index(), bits};
}

namespace {

int deeper(int depth) {
  if (depth >= kMaxValueDepth) {
    throw_input("a value of the chat template is nested deeper than {} levels", kMaxValueDepth);
  }
  return depth + 1;
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  const auto found = texts_.find(std::string(key));
  return found == texts_.end() ? nullptr : &entries_[found->second].second;
}

const Value* Dict::find(const Value& key) const {
  if (const std::string* text = key.text()) {
    return find(std::string_view(*text));
  }
  if (!hashable(key)) {
    throw_input("unhashable type: '{}'", type_name(key));
  }
  for (const size_t index : others_) {
    if (equal(entries_[index].first, key)) {
      return &entries_[index].second;
    }
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  charge(2);
  depth_ = std::max({depth_, deeper(key.depth()), deeper(value.depth())});
  if (const Value* found = find(key)) {
    *const_cast<Value*>(found) = std::move(value);
    return;
  }
  if (const std::string* text = key.text()) {
    texts_.emplace(*text, entries_.size());
  } else {
    others_.push_back(entries_.size());
  }
  entries_.emplace_back(std::move(key), std::move(value));
}

std::optional<Value> Loop::advance() {
  std::optional<Value> item = after ? std::exchange(after, std::nullopt) : iterator->next();
  if (item) {
    ++index0;
    before = std::exchange(current, *item);
  }
  return item;
}

bool Loop::peek() {
  if (!after) {
    after = iterator->next();
  }
  return after.has_value();
}

int64_t Loop::count() {
  if (!length) {
    length = length_of(iterable);
  }
  if (!length) {
    // A generator has no length: read the rest of it now.
    Values rest;
    while (auto item = iterator->next()) {
      charge(1);
      rest.push_back(std::move(*item));
    }
    length = static_cast<int64_t>(rest.size()) + index0 + 1 + (after ? 1 : 0);
    iterator = iterate(make_sequence(std::move(rest)));
  }
  return *length;
}

Value undefined(std::string message) {
  return Undefined{std::make_shared<const std::string>(std::move(message))};
}

void fail_undefined(const Value& value) {
  const Undefined* found = value.undefined();
  throw_input("{}", found != nullptr && found->message ? *found->message : "a value is undefined");
}

Value make_sequence(Values items, Sequence::Flavor flavor) {
  charge(2 * items.size() + 1);
  auto sequence = std::make_shared<Sequence>();
  int depth = 0;
  for (const Value& item : items) {
    depth = std::max(depth, item.depth());
  }
  sequence->flavor = flavor;
  sequence->items = std::move(items);
  sequence->depth = deeper(depth);
  return Value::SequencePtr(std::move(sequence));
}

Value make_range(int64_t start, int64_t stop, int64_t step) {
  constexpr int64_t kMaxRange = 100'000;  // the sandbox's own limit
  if (step == 0) {
    throw_input("range() arg 3 must not be zero");
  }
  auto sequence = std::make_shared<Sequence>();
  sequence->flavor = Sequence::Flavor::range;
  sequence->start = start;
  sequence->stop = stop;
  sequence->step = step;
  sequence->depth = 1;
  for (__int128 i = start; step > 0 ? i < stop : i > stop; i += step) {
    if (sequence->items.size() == kMaxRange) {
      throw_input("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMaxRange);
    }
    sequence->items.emplace_back(static_cast<int64_t>(i));
  }
  charge(2 * sequence->items.size() + 1);
  return Value::SequencePtr(std::move(sequence));
}

Value make_dict(Dict dict) {
  return Value::DictPtr(std::make_shared<const Dict>(std::move(dict)));
}

Value make_iterator(std::function<std::optional<Value>()> next, int source_depth) {
  return std::make_shared<Iterator>(Iterator{std::move(next), deeper(source_depth)});
}

Value make_callable(std::string name, std::function<Value(Arguments&)> function) {
  return Value::CallablePtr(std::make_shared<const Callable>(Callable{std::move(name), std::move(function)}));
}

Value from_json(const Json& json, int depth) {
  // Checked on the way down: the input may be deeper than the stack.
  depth = deeper(depth);
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<int64_t>();
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
        throw_input("the integer {} in a chat is beyond 64 bits", json.get<uint64_t>());
      }
      return json.get<int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return json.get<std::string>();
    case Json::value_t::array: {
      Values items;
      for (const Json& item : json) {
        items.push_back(from_json(item, depth));
      }
      return make_sequence(std::move(items));
    }
    case Json::value_t::object: {
      Dict dict;
      for (const auto& [key, value] : json.items()) {
        dict.set(Value(key), from_json(value, depth));
      }
      return make_dict(std::move(dict));
    }
    default:
      return None{};
  }
}

bool hashable(const Value& value) {
  const Sequence* sequence = value.sequence();
  if (sequence != nullptr && sequence->flavor == Sequence::Flavor::tuple) {
    charge(sequence->items.size());
    return std::all_of(sequence->items.begin(), sequence->items.end(), hashable);
  }
  return value.dict() == nullptr && (sequence == nullptr || sequence->flavor != Sequence::Flavor::list);
}

const char* type_name(const Value& value) {
  if (const Sequence* sequence = value.sequence()) {
    static constexpr const char* kNames[] = {"list", "tuple", "range", "dict_items", "dict_keys", "dict_values"};
    return kNames[static_cast<size_t>(sequence->flavor)];
  }
  return value.is_undefined() ? "Undefined"
         : value.is_none()    ? "NoneType"
         : value.boolean()    ? "bool"
         : value.is_integer() ? "int"
         : value.real()       ? "float"
         : value.text()       ? (value.is_markup() ? "Markup" : "str")
         : value.dict()       ? "dict"
         : value.iterator()   ? "generator"
         : value.space()      ? "Namespace"
         : value.loop()       ? "LoopContext"
                              : "function";
}

bool truthy(const Value& value) {
  if (const auto number = value.number()) {
    return *number != 0;  // NaN is true, as in Python
  }
  if (value.is_undefined() || value.is_none()) {
    return false;
  }
  if (const std::string* text = value.text()) {
    return !text->empty();
  }
  if (const Sequence* sequence = value.sequence()) {
    return !sequence->items.empty();
  }
  if (const Dict* dict = value.dict()) {
    return !dict->entries().empty();
  }
  return true;
}

std::optional<int64_t> length_of(const Value& value) {
  if (const std::string* text = value.text()) {
    charge_bytes(text->size());
    return static_cast<int64_t>(count_points(*text));
  }
  if (const Sequence* sequence = value.sequence()) {
    return static_cast<int64_t>(sequence->items.size());
  }
  if (const Dict* dict = value.dict()) {
    return static_cast<int64_t>(dict->entries().size());
  }
  if (value.loop() != nullptr) {
    return value.loop()->count();
  }
  return value.is_undefined() ? std::optional<int64_t>(0) : std::nullopt;
}

Value::IteratorPtr try_iterate(const Value& value) {
  const auto wrap = [&value](std::function<std::optional<Value>()> next) {
    return std::make_shared<Iterator>(Iterator{std::move(next), value.depth()});
  };
  if (const Sequence* sequence = value.sequence()) {
    return wrap([value, sequence, index = size_t{0}]() mutable {
      return index < sequence->items.size() ? std::optional<Value>(sequence->items[index++]) : std::nullopt;
    });
  }
  if (const Dict* dict = value.dict()) {
    return wrap([value, dict, index = size_t{0}]() mutable {
      return index < dict->entries().size() ? std::optional<Value>(dict->entries()[index++].first) : std::nullopt;
    });
  }
  if (const std::string* text = value.text()) {
    return wrap([value, text, index = size_t{0}]() mutable -> std::optional<Value> {
      if (index == text->size()) {
        return std::nullopt;
      }
      const size_t start = index;
      index += point_bytes(*text, index);
      return Value(text->substr(start, index - start));
    });
  }
  if (Iterator* iterator = value.iterator()) {
    return wrap([value, iterator] { return iterator->next(); });
  }
  return value.is_undefined() ? wrap([] { return std::nullopt; }) : nullptr;
}

Value::IteratorPtr iterate(const Value& value) {
  auto iterator = try_iterate(value);
  if (!iterator) {
    throw_input("'{}' object is not iterable", type_name(value));
  }
  return iterator;
}

Values list_of(const Value& value) {
  Values items;
  const auto iterator = iterate(value);
  while (auto item = iterator->next()) {
    charge(2);
    items.push_back(std::move(*item));
  }
  return items;
}

}  // namespace shardpipe::text::jinja
