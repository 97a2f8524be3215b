#include "generate/request.h"

#include "base/json.h"

namespace shardpipe::generation {

std::string serialize(const Request& request) {
  Json json;
  json["prompts"] = request.prompts;
  if (request.decoder_start) {
    json["decoder_start"] = *request.decoder_start;
  }
  json["max_new_tokens"] = request.options.max_new_tokens;
  json["min_new_tokens"] = request.options.min_new_tokens;
  json["eos_token_ids"] = request.options.eos_token_ids;
  json["stop"] = request.options.stop;
  json["logprobs"] = request.options.logprobs;
  json["lanes"] = request.lanes;
  json["tokenizer_folder"] = request.tokenizer_folder;
  // Stop texts come from the command line and may hold any bytes.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Request parse_request(std::string_view text) {
  const Json json = parse_json(text, "the generation request");
  Request request;
  request.prompts = json.at("prompts").get<std::vector<std::vector<int64_t>>>();
  if (json.contains("decoder_start")) {
    request.decoder_start = json.at("decoder_start").get<int64_t>();
  }
  request.options.max_new_tokens = json.at("max_new_tokens");
  request.options.min_new_tokens = json.at("min_new_tokens");
  request.options.eos_token_ids = json.at("eos_token_ids").get<std::vector<int64_t>>();
  request.options.stop = json.at("stop").get<std::vector<std::string>>();
  request.options.logprobs = json.at("logprobs");
  request.lanes = json.at("lanes");
  request.tokenizer_folder = json.at("tokenizer_folder");
  return request;
}

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::length:
      return "length";
    case FinishReason::eos:
      return "eos";
    case FinishReason::stop:
      return "stop";
    case FinishReason::none:
      break;
  }
  return "";
}

}  // namespace shardpipe::generation
