#include "prompts.h"

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "shardpipe/tensors.h"

namespace shardpipe::cli {
namespace {

std::vector<std::string> lines_of(const std::string& path) {
  const std::string content = read_file(path);
  std::vector<std::string> lines;
  size_t at = 0;
  while (at < content.size()) {
    const size_t end = std::min(content.find('\n', at), content.size());
    std::string line = content.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') {
      line.pop_back();
    }
    lines.push_back(std::move(line));
    at = end + 1;
  }
  return lines;
}

}  // namespace

void check(const PromptOptions& options) {
  const int sources = static_cast<int>(!options.prompts.empty()) + static_cast<int>(!options.file.empty()) +
                      static_cast<int>(!options.input_ids.empty());
  if (sources != 1) {
    throw_usage("{} of --prompt, --prompts and --input-ids are given, exactly one is needed", sources);
  }
  if (options.chat && !options.input_ids.empty()) {
    throw_usage("--chat needs text: it cannot be used with --input-ids");
  }
}

Prompts read_prompts(const PromptOptions& options, const std::string& folder, const Tokenizer* tokenizer) {
  Prompts prompts;
  if (!options.input_ids.empty()) {
    prompts.ids = read_input_ids(options.input_ids);
    return prompts;
  }
  prompts.texts = options.file.empty() ? options.prompts : lines_of(options.file);
  if (prompts.texts.empty()) {
    throw_usage("{} holds no prompt", options.file);
  }
  for (const std::string& text : prompts.texts) {
    if (options.chat) {
      Json messages = Json::array();
      messages.push_back({{"role", "user"}, {"content", text}});
      const std::string chat = Tokenizer::chat(folder, messages.dump(-1, ' ', false, Json::error_handler_t::replace));
      prompts.ids.push_back(tokenizer->encode(chat, false));
    } else {
      prompts.ids.push_back(tokenizer->encode(text));
    }
  }
  return prompts;
}

}  // namespace shardpipe::cli
