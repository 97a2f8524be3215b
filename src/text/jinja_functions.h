#pragma once

#include <deque>
#include <string>
#include <unordered_map>

#include "text/jinja_value.h"

namespace shardpipe::text::jinja {

/// What templates can call: range, dict, namespace, joiner, cycler and, as transformers adds them, raise_exception
/// (throws Error(usage) with the template's text) and strftime_now (local time). Namespaces live in `arena`.
std::unordered_map<std::string, Value> make_globals(std::deque<Namespace>& arena);

/// namespace.name = value. Throws Error(input) unless `object` is a namespace and the name is public.
void set_member(const Value& object, const std::string& name, Value value);

}  // namespace shardpipe::text::jinja
