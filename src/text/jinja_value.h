#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"

namespace shardpipe::text::jinja {

class Value;
struct Arguments;

/// Jinja's default Undefined: prints as nothing, is false and empty; any other use throws `message`.
/// A null message marks a variable that was never set.
struct Undefined {
  std::shared_ptr<const std::string> message;
};
struct None {};

/// A Python str as UTF-8. `markup` is set by the filters safe and escape: `+` then escapes its other operand.
struct Text {
  std::string bytes;
  bool markup = false;
};

/// Whatever Python has a length and an order for. Immutable, as the sandbox of chat templates demands.
struct Sequence {
  enum class Flavor { list, tuple, range, dict_items, dict_keys, dict_values };
  Flavor flavor = Flavor::list;
  std::vector<Value> items;
  int64_t start = 0, stop = 0, step = 1;  ///< of a range, for its printed form
  int depth = 0;                          ///< 1 + the deepest item's
};

/// A Python dict: insertion order, keys compared as Python does (1 == 1.0 == true).
class Dict {
 public:
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  /// Throws Error(input) for an unhashable key.
  void set(Value key, Value value);
  int depth() const { return depth_; }

 private:
  std::vector<std::pair<Value, Value>> entries_;
  std::unordered_map<std::string, size_t> texts_;
  std::vector<size_t> others_;  ///< entries whose key is no text
  int depth_ = 0;
};

/// A Python generator: gives each item once.
struct Iterator {
  std::function<std::optional<Value>()> next;
  int depth = 0;
};

/// Jinja's namespace(): the one mutable value. Owned by the rendering, so that cycles through it cannot leak.
struct Namespace {
  Dict attributes;
};

struct Callable {
  std::string name;
  std::function<Value(Arguments&)> function;
};

/// The variable `loop`.
struct Loop;

class Value {
 public:
  using TextPtr = std::shared_ptr<const Text>;
  using SequencePtr = std::shared_ptr<const Sequence>;
  using DictPtr = std::shared_ptr<const Dict>;
  using IteratorPtr = std::shared_ptr<Iterator>;
  using LoopPtr = std::shared_ptr<Loop>;
  using CallablePtr = std::shared_ptr<const Callable>;

  Value() = default;
  Value(Undefined value) : data_(std::move(value)) {}
  Value(None value) : data_(value) {}
  template <std::same_as<bool> T>
  Value(T value) : data_(value) {}
  template <std::integral T>
  requires(!std::same_as<T, bool>) Value(T value) : data_(static_cast<int64_t>(value)) {}
  Value(double value) : data_(value) {}
  Value(std::string text, bool markup = false) : data_(std::make_shared<const Text>(Text{std::move(text), markup})) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(TextPtr value) : data_(std::move(value)) {}
  Value(SequencePtr value) : data_(std::move(value)) {}
  Value(DictPtr value) : data_(std::move(value)) {}
  Value(IteratorPtr value) : data_(std::move(value)) {}
  Value(Namespace* value) : data_(value) {}
  Value(LoopPtr value) : data_(std::move(value)) {}
  Value(CallablePtr value) : data_(std::move(value)) {}

  bool is_missing() const { return is_undefined() && !std::get<Undefined>(data_).message; }
  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  /// Integers and, as in Python, booleans.
  std::optional<int64_t> integer() const;
  /// Integers, booleans and floats.
  std::optional<double> number() const;
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }
  const std::string* text() const;
  bool is_markup() const;
  const Sequence* sequence() const { return pointer<SequencePtr>(); }
  const Dict* dict() const { return pointer<DictPtr>(); }
  Iterator* iterator() const { return pointer<IteratorPtr>(); }
  Loop* loop() const { return pointer<LoopPtr>(); }
  const Callable* callable() const { return pointer<CallablePtr>(); }
  Namespace* space() const {
    const auto* found = std::get_if<Namespace*>(&data_);
    return found == nullptr ? nullptr : *found;
  }
  const Undefined* undefined() const { return std::get_if<Undefined>(&data_); }

  /// Whether both are the same object (Python's `is`).
  bool is(const Value& other) const { return identity() == other.identity(); }
  /// Nesting of containers: 0 for a scalar.
  int depth() const;

 private:
  template <typename Pointer>
  typename Pointer::element_type* pointer() const {
    const auto* found = std::get_if<Pointer>(&data_);
    return found == nullptr ? nullptr : found->get();
  }
  std::pair<size_t, uint64_t> identity() const;

  std::variant<
      Undefined,
      None,
      bool,
      int64_t,
      double,
      TextPtr,
      SequencePtr,
      DictPtr,
      IteratorPtr,
      Namespace*,
      LoopPtr,
      CallablePtr>
      data_;
};

using Values = std::vector<Value>;

struct Loop {
  Value iterable;
  Value::IteratorPtr iterator;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  std::optional<Value> after;  ///< the item that last, nextitem or length had to look at early
  Value current, before;
  std::optional<int64_t> length;
  std::optional<Values> last_changed;
  std::function<Value(const Value& iterable, int64_t depth0)> recurse;  ///< empty unless the loop is recursive

  std::optional<Value> advance();
  bool peek();
  int64_t count();
};

/// Arguments of a call.
struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;
};

/// An Undefined with Jinja's message.
Value undefined(std::string message);
/// Throws Error(input) with the message of an Undefined; `name` is used when it has none.
[[noreturn]] void fail_undefined(const Value& value);

/// Containers with their depth set. Throw Error(input) beyond kMaxValueDepth.
Value make_sequence(Values items, Sequence::Flavor flavor = Sequence::Flavor::list);
Value make_range(int64_t start, int64_t stop, int64_t step);
Value make_dict(Dict dict);
Value make_iterator(std::function<std::optional<Value>()> next, int source_depth);
Value make_callable(std::string name, std::function<Value(Arguments&)> function);

/// Throws Error(input) for an integer beyond 64 bits and for nesting beyond kMaxValueDepth.
Value from_json(const Json& json, int depth = 0);

/// Whether Python could use it as a key: no list or dict, nor a tuple that holds one.
bool hashable(const Value& value);
/// Python's type name: "str", "NoneType", ...
const char* type_name(const Value& value);
/// Python's bool(value).
bool truthy(const Value& value);
/// Python's len(value); nullopt where it has none.
std::optional<int64_t> length_of(const Value& value);
/// Python's iter(value); null where it cannot be iterated.
Value::IteratorPtr try_iterate(const Value& value);
/// Throws Error(input) when it cannot be iterated.
Value::IteratorPtr iterate(const Value& value);
/// Python's list(value).
Values list_of(const Value& value);

/// Python's `==`, ordering and `in`. less and contains throw Error(input) where Python raises TypeError.
bool equal(const Value& left, const Value& right);
bool less(const Value& left, const Value& right, const char* sign = "<");
bool contains(const Value& container, const Value& item);

/// Python's str(value) and repr(value). Throws Error(input) for a cycle through a namespace.
std::string to_text(const Value& value);
std::string repr(const Value& value);
std::string repr(std::string_view text);
/// The shortest text that reads back as the same double, in Python's notation.
std::string float_text(double value);

struct JsonStyle {
  bool ascii = false;
  std::optional<std::string> indent;  ///< of one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
/// Python's json.dumps. Throws Error(input) for what JSON cannot say.
std::string dump_json(const Value& value, const JsonStyle& style);

}  // namespace shardpipe::text::jinja
