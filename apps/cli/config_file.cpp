#include "config_file.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

namespace shardpipe::cli {
namespace {

std::string value_of(const std::vector<std::string>& arguments, const std::string& name) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == name && i + 1 < arguments.size()) {
      return arguments[i + 1];
    }
    if (arguments[i].starts_with(name + "=")) {
      return arguments[i].substr(name.size() + 1);
    }
  }
  return "";
}

bool given(const std::vector<std::string>& arguments, const std::string& name) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    return argument == name || argument.starts_with(name + "=");
  });
}

std::string text_of(const Json& value, const std::string& key, const std::string& path) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_number()) {
    return value.dump();
  }
  throw_input("\"{}\" in {} must be a number, a text, true, false, or a list of those", key, path);
}

}  // namespace

void apply_config_file(CLI::App& command, std::vector<std::string>& arguments) {
  const std::string path = value_of(arguments, "--config");
  if (path.empty()) {
    return;
  }
  const Json config = read_json(path, {.comments = true, .refuse_duplicate_keys = true});
  if (!config.is_object()) {
    throw_input("{} must hold one JSON object with the names of options", path);
  }
  std::vector<std::string> added;
  for (const auto& [key, value] : config.items()) {
    const std::string name = "--" + key;
    if (command.get_option_no_throw(name) == nullptr || key == "config") {
      throw_usage("\"{}\" in {} is no option of {}", key, path, command.get_name());
    }
    if (given(arguments, name)) {
      continue;
    }
    if (value.is_boolean()) {
      if (value.get<bool>()) {
        added.push_back(name);
      }
    } else if (value.is_array()) {
      for (const Json& item : value) {
        added.push_back(name + "=" + text_of(item, key, path));
      }
    } else {
      added.push_back(name + "=" + text_of(value, key, path));
    }
  }
  arguments.insert(arguments.end(), added.begin(), added.end());
}

}  // namespace shardpipe::cli
