#include "text/jinja_functions.h"

#include <fmt/format.h>

#include <chrono>
#include <ctime>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {
namespace {

Value range(Arguments& arguments) {
  const Bound bound("range", arguments, {"start", "stop", "step"}, 1);
  return bound.has(1) ? make_range(bound.integer(0, 0), bound.integer(1, 0), bound.integer(2, 1))
                      : make_range(0, bound.integer(0, 0), 1);
}

// Python's dict(mapping or pairs, name=value, ...).
Dict dict_of(const Arguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) {
    throw_input("dict expected at most 1 argument, got {}", arguments.positional.size());
  }
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is_undefined()) {
      fail_undefined(source);
    }
    if (const Dict* other = source.dict()) {
      for (const auto& [key, value] : other->entries()) {
        dict.set(key, value);
      }
    } else {
      for (const Value& pair : list_of(source)) {
        const Values parts = list_of(pair);
        if (parts.size() != 2) {
          throw_input("dictionary update sequence element has length {}; 2 is required", parts.size());
        }
        dict.set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) {
    dict.set(Value(name), value);
  }
  return dict;
}

void check_member_name(const Value& name) {
  if (name.text() != nullptr && name.text()->starts_with("_")) {
    throw_input("Chat templates cannot store underscore-prefixed attributes on a namespace, but got {}", repr(name));
  }
}

Value raise_exception(Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  throw Error(ErrorCode::usage, "the chat template refuses the conversation: " + to_text(bound[0]));
}

// datetime.now().strftime(format): no time zone, microseconds for %f.
Value strftime_now(Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  const auto now = std::chrono::system_clock::now();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count() % 1'000'000;
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm local{};
  localtime_r(&seconds, &local);
  charge_bytes(bound.text(0).size() * 16);
  std::string out;
  for (size_t i = 0; i < bound.text(0).size(); ++i) {
    const std::string one = bound.text(0).substr(i, bound.text(0)[i] == '%' ? 2 : 1);
    i += one.size() - 1;
    if (one == "%f") {
      out += fmt::format("{:06}", micros);
    } else if (one.size() == 2 && one != "%z" && one != "%Z") {
      char buffer[128];
      out.append(buffer, std::strftime(buffer, sizeof(buffer), one.c_str(), &local));
    } else if (one.size() == 1) {
      out += one;
    }
  }
  return out;
}

Value joiner(Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  const Value separator = bound.get(0, Value(", "));
  return make_callable("joiner", [separator, used = std::make_shared<bool>(false)](Arguments&) {
    return std::exchange(*used, true) ? separator : Value("");
  });
}

// The methods of a cycler live in a namespace; `current` is brought up to date by each call.
Value cycler(std::deque<Namespace>& arena, const Arguments& arguments) {
  if (arguments.positional.empty()) {
    throw_input("at least one item has to be provided");
  }
  Namespace* space = &arena.emplace_back();
  const auto move = [space, items = arguments.positional, at = std::make_shared<size_t>(0)](bool reset) {
    const Value seen = items[*at];
    *at = reset ? 0 : (*at + 1) % items.size();
    space->attributes.set("current", items[*at]);
    return reset ? Value(None{}) : seen;
  };
  move(true);
  space->attributes.set("next", make_callable("next", [move](Arguments&) { return move(false); }));
  space->attributes.set("reset", make_callable("reset", [move](Arguments&) { return move(true); }));
  return space;
}

}  // namespace

void set_member(const Value& object, const std::string& name, Value value) {
  if (object.space() == nullptr) {
    throw_input("cannot assign attribute on non-namespace object");
  }
  check_member_name(Value(name));
  object.space()->attributes.set(Value(name), std::move(value));
}

std::unordered_map<std::string, Value> make_globals(std::deque<Namespace>& arena) {
  std::unordered_map<std::string, Value> globals;
  const auto add = [&globals](const char* name, std::function<Value(Arguments&)> function) {
    globals.emplace(name, make_callable(name, std::move(function)));
  };
  add("range", range);
  add("dict", [](Arguments& arguments) { return make_dict(dict_of(arguments)); });
  add("namespace", [&arena](Arguments& arguments) -> Value {
    charge(16);
    Namespace* space = &arena.emplace_back();
    space->attributes = dict_of(arguments);
    for (const auto& [name, value] : space->attributes.entries()) {
      check_member_name(name);
    }
    return space;
  });
  add("raise_exception", raise_exception);
  add("strftime_now", strftime_now);
  add("joiner", joiner);
  add("cycler", [&arena](Arguments& arguments) { return cycler(arena, arguments); });
  return globals;
}

}  // namespace shardpipe::text::jinja
