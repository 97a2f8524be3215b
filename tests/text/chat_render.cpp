// Renders chat templates for chat_reference.py: one JSON object a line in, one out.
//   {"template": text or "folder": path, "messages", "add_generation_prompt", "variables"}
//   -> {"text"} or {"error": message, "code": "input"|...}
#include <iostream>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "text/chat_template.h"

int main() {
  using shardpipe::Json;
  using shardpipe::text::ChatTemplate;
  std::string line;
  while (std::getline(std::cin, line)) {
    Json answer;
    try {
      const Json job = shardpipe::parse_json(line, "the job", {.depth = 600});
      const auto chat = job.contains("folder") ? ChatTemplate::from_folder(job["folder"].get<std::string>())
                                               : ChatTemplate::from_source(job["template"].get<std::string>());
      answer["text"] = chat.apply(
          job.value("messages", Json::array()), job.value("add_generation_prompt", false),
          job.value("variables", Json::object()));
    } catch (...) {
      const shardpipe::Error error = shardpipe::current_error();
      answer = {{"error", error.message()}, {"code", shardpipe::to_string(error.code())}};
    }
    std::cout << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
  }
}
