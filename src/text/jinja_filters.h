#pragma once

#include <map>
#include <string_view>

#include "text/jinja_value.h"

namespace shardpipe::text::jinja {

/// `subject | name(arguments)`.
using Filter = Value (*)(const Value& subject, Arguments& arguments);
/// `subject is name(arguments)`.
using Test = bool (*)(const Value& subject, Arguments& arguments);

/// Null for an unknown name.
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);

/// The parts of the table of filters.
const std::map<std::string_view, Filter>& scalar_filters();
const std::map<std::string_view, Filter>& sequence_filters();
const std::map<std::string_view, Filter>& selection_filters();

}  // namespace shardpipe::text::jinja
