#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/json.h"

namespace shardpipe::text {

namespace jinja {
struct Template;
}

/// The template that turns a conversation into a prompt, as Hugging Face's tokenizer.apply_chat_template does:
/// Jinja 3.1 in its immutable sandbox with trim_blocks, lstrip_blocks, break and continue. What one rendering may cost
/// is bounded (jinja_budget.h).
class ChatTemplate {
 public:
  /// Reads chat_template.jinja (and additional_chat_templates/*.jinja), else "chat_template" of tokenizer_config.json:
  /// a text, or named ones of which "default" is used, and "tool_use" for conversations with tools. Special tokens
  /// (bos_token,
  /// ...) come from tokenizer_config.json and special_tokens_map.json. Throws Error(usage) when there is none,
  /// Error(input) for files that cannot be read or parsed.
  static ChatTemplate from_folder(const std::filesystem::path& folder);

  /// `variables`: what the template sees besides the conversation. Throws Error(input) naming the line.
  static ChatTemplate from_source(const std::string& source, Json variables = Json::object());

  /// The prompt for `messages`, a list of {"role", "content", ...}. `extra_variables` ("tools", "documents",
  /// "enable_thinking", ...) win over special tokens.
  /// Throws Error(usage) for messages of another shape and when the template refuses them (raise_exception);
  /// Error(input) when it fails.
  std::string apply(
      const Json& messages, bool add_generation_prompt, const Json& extra_variables = Json::object()) const;

 private:
  std::shared_ptr<const jinja::Template> default_;   ///< null: only templates of other names
  std::shared_ptr<const jinja::Template> tool_use_;  ///< null: the default one
  Json variables_;
};

}  // namespace shardpipe::text
