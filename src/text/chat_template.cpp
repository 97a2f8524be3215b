#include "text/chat_template.h"

#include <algorithm>
#include <array>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "text/jinja_ast.h"
#include "text/jinja_budget.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_text.h"

namespace shardpipe::text {
namespace {

using Sources = std::map<std::string, std::string>;

Json read_object(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    return Json::object();
  }
  Json json = read_json(path);
  if (!json.is_object()) {
    throw_input("{} is not a JSON object", path.string());
  }
  return json;
}

Sources read_template_files(const std::filesystem::path& folder) {
  Sources sources;
  const auto extra = folder / "additional_chat_templates";
  if (std::filesystem::is_directory(extra)) {
    for (const auto& entry : std::filesystem::directory_iterator(extra)) {
      if (entry.path().extension() == ".jinja") {
        sources[entry.path().stem().string()] = read_file(entry.path());
      }
    }
  }
  if (std::filesystem::exists(folder / "chat_template.jinja")) {
    sources["default"] = read_file(folder / "chat_template.jinja");
  }
  return sources;
}

Sources sources_of_config(const Json& config, const std::string& where) {
  Sources sources;
  const Json found = config.value("chat_template", Json());
  if (found.is_string()) {
    sources["default"] = found.get<std::string>();
  } else if (found.is_object()) {
    for (const auto& [name, source] : found.items()) {
      if (!source.is_string()) {
        throw_input("\"chat_template\" of {}: the template \"{}\" is not a text", where, name);
      }
      sources[name] = source.get<std::string>();
    }
  } else if (found.is_array()) {
    for (const Json& named : found) {
      if (!named.is_object() || !named.value("name", Json()).is_string() ||
          !named.value("template", Json()).is_string()) {
        throw_input("\"chat_template\" of {}: an entry of the list lacks \"name\" or \"template\"", where);
      }
      sources[named["name"].get<std::string>()] = named["template"].get<std::string>();
    }
  } else if (!found.is_null()) {
    throw_input("\"chat_template\" of {} is neither a text nor a list of templates", where);
  }
  return sources;
}

// A token is written as a text or as {"content": text, ...}.
void add_token(const std::string& name, const Json& token, Json& tokens) {
  if (token.is_string()) {
    tokens[name] = token;
  } else if (token.is_object() && token.value("content", Json()).is_string()) {
    tokens[name] = token["content"];
  }
}

void add_tokens(const Json& from, Json& tokens) {
  for (const auto& [name, token] : from.items()) {
    if (name.ends_with("_token")) {
      add_token(name, token, tokens);
    } else if (name == "extra_special_tokens" && token.is_object()) {
      for (const auto& [extra, value] : token.items()) {
        add_token(extra, value, tokens);
      }
    }
  }
}

// The reasoning of a message has had several names; templates read reasoning_content, some thinking (as transformers
// 5 does it).
Json with_reasoning(const Json& message) {
  for (const char* field : {"reasoning_content", "thinking", "reasoning"}) {
    const auto found = message.find(field);
    if (found == message.end() || found->is_null()) {
      continue;
    }
    Json copy = Json::object();
    copy["thinking"] = *found;
    for (const auto& [name, value] : message.items()) {
      copy[name] = value;
    }
    copy["reasoning_content"] = *found;
    return copy;
  }
  return message;
}

std::shared_ptr<const jinja::Template> compile(const std::string& source) {
  if (!jinja::is_valid_utf8(source)) {
    throw_input("the chat template is not valid UTF-8");
  }
  return std::make_shared<const jinja::Template>(jinja::parse(source));
}

}  // namespace

ChatTemplate ChatTemplate::from_folder(const std::filesystem::path& folder) {
  const auto config_path = folder / "tokenizer_config.json";
  const Json config = read_object(config_path);
  Sources sources = read_template_files(folder);
  if (sources.empty()) {
    sources = sources_of_config(config, config_path.string());
  }
  const auto find = [&](const char* name) -> std::shared_ptr<const jinja::Template> {
    const auto found = sources.find(name);
    try {
      return found == sources.end() ? nullptr : compile(found->second);
    } catch (Error& error) {
      error.add_context(folder.string());
      throw;
    }
  };
  ChatTemplate result;
  result.default_ = find("default");
  result.tool_use_ = find("tool_use");
  if (!result.default_ && !result.tool_use_) {
    throw Error(
        ErrorCode::usage,
        sources.empty() ? "no chat template in " + folder.string()
                        : "no chat template named \"default\" in " + folder.string(),
        "give a chat model's folder (chat_template.jinja, or \"chat_template\" in tokenizer_config.json), or leave out "
        "--chat");
  }
  result.variables_ = Json::object();
  add_tokens(config, result.variables_);
  if (!config.contains("added_tokens_decoder")) {
    // The older of the two files, and the stronger where it is still read.
    add_tokens(read_object(folder / "special_tokens_map.json"), result.variables_);
  }
  return result;
}

ChatTemplate ChatTemplate::from_source(const std::string& source, Json variables) {
  ChatTemplate result;
  result.default_ = compile(source);
  result.variables_ = std::move(variables);
  return result;
}

std::string ChatTemplate::apply(const Json& messages, bool add_generation_prompt, const Json& extra_variables) const {
  if (!messages.is_array() || !extra_variables.is_object()) {
    throw_usage("a chat is a list of messages and its variables are an object");
  }
  Json all = Json::array();
  for (const Json& message : messages) {
    if (!message.is_object()) {
      throw_usage("message {} of the chat is not an object with \"role\" and \"content\"", all.size());
    }
    all.push_back(with_reasoning(message));
  }
  Json variables = {{"messages", std::move(all)}, {"tools", nullptr}, {"documents", nullptr}};
  variables["add_generation_prompt"] = add_generation_prompt;
  for (const Json* source : {&variables_, &extra_variables}) {
    for (const auto& [name, value] : source->items()) {
      variables[name] = value;
    }
  }
  const auto& chosen = tool_use_ && !variables["tools"].is_null() ? tool_use_ : default_;
  if (!chosen) {
    throw Error(
        ErrorCode::usage, "the model has a chat template for conversations with tools only", "leave out --chat");
  }
  const jinja::Budget budget;
  std::unordered_map<std::string, jinja::Value> values;
  for (const auto& [name, value] : variables.items()) {
    values.emplace(name, jinja::from_json(value));
  }
  return jinja::Interpreter(*chosen, std::move(values)).run();
}

}  // namespace shardpipe::text
