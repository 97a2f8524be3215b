#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "layout_options.h"
#include "prompts.h"
#include "report.h"
#include "shardpipe/engine.h"

namespace shardpipe::cli {
namespace {

struct Options {
  RunOptions run;
  PromptOptions prompts;
  std::string tokenizer;
  std::optional<int64_t> max_new_tokens;
  std::optional<int64_t> min_new_tokens;
  std::vector<std::string> stop;
  bool logprobs = false;
  bool ignore_eos = false;
  bool stats = false;
  bool json = false;
  int64_t seed = 0;
  // Known to the contract, refused in this version unless they ask for what greedy search does anyway.
  int64_t num_beams = 1;
  int64_t num_return_sequences = 1;
  int64_t no_repeat_ngram_size = 0;
  double length_penalty = 1;
  double repetition_penalty = 1;
  double temperature = 1;
  double top_p = 1;
  double min_p = 0;
  int64_t top_k = 0;
  bool do_sample = false;
  bool early_stopping = false;
};

void check_search(const Options& options, const Model& model) {
  const auto refuse = [](bool asked, const std::string& what) {
    if (asked) {
      throw Error(ErrorCode::usage, what + " is not in this version", "greedy search is: leave the option out");
    }
  };
  refuse(options.do_sample, "sampling (--do-sample)");
  refuse(options.num_beams != 1, fmt::format("beam search (--num-beams {})", options.num_beams));
  refuse(options.num_return_sequences != 1, "--num-return-sequences above 1");
  refuse(options.no_repeat_ngram_size != 0, "--no-repeat-ngram-size");
  refuse(options.repetition_penalty != 1, "--repetition-penalty");
  for (const std::string& setting : model.unsupported_generation_settings()) {
    refuse(true, "\"" + setting + "\" of generation_config.json");
  }
  if (model.wants_sampling()) {
    log_warning("generation_config.json asks for sampling, which is not in this version: greedy search is used");
  }
}

std::string text_of(const std::optional<Tokenizer>& tokenizer, const Output& output) {
  return tokenizer ? tokenizer->decode(output.token_ids) : std::string();
}

// Prints the text of a lone prompt as it comes, those of several prompts one after the other at the end.
class Printer {
 public:
  Printer(const Options& options, const Prompts& prompts, const std::optional<Tokenizer>& tokenizer)
      : live_(!options.json && prompts.ids.size() == 1 && tokenizer) {
    if (live_) {
      stream_.emplace(*tokenizer);
      if (::isatty(STDOUT_FILENO) != 0 && !prompts.texts.empty() && !options.prompts.chat) {
        write("\033[1m" + prompts.texts[0] + "\033[0m");
      }
    }
  }
  void token(int64_t id, FinishReason reason) {
    if (live_) {
      write(stream_->push(id) + (reason == FinishReason::none ? "" : stream_->finish() + "\n"));
    }
  }
  bool live() const { return live_; }

 private:
  bool live_;
  std::optional<TokenStream> stream_;
};

// What each rank tells rank 0 for the report.
Json rank_report(const World& world, const Engine& engine, const GenerateResult& result, bool stats) {
  Json report = cli::rank_report(world, engine);
  if (stats) {
    report["resident_weight_bytes"] = engine.resident_weight_bytes();
    Json steps = Json::array();
    for (const StepStats& step : result.steps) {
      steps.push_back(
          {{"compute_s", step.compute_s},
           {"reduce_s", step.reduce_s},
           {"wait_s", step.wait_s},
           {"bytes_sent", step.bytes_sent}});
    }
    report["steps"] = std::move(steps);
  }
  return report;
}

const char* reason_name(FinishReason reason) {
  return reason == FinishReason::eos ? "eos" : reason == FinishReason::stop ? "stop" : "length";
}

Json timing(const GenerateResult& result, const Prompts& prompts, double load_s) {
  double prompt_tokens = 0;
  for (const auto& ids : prompts.ids) {
    prompt_tokens += static_cast<double>(ids.size());
  }
  double decoded = 0;
  for (const Output& output : result.outputs) {
    decoded += static_cast<double>(output.token_ids.size()) - 1;
  }
  Json json;
  json["load_s"] = load_s;
  json["prefill_s"] = result.prefill_s;
  json["decode_s"] = result.decode_s;
  json["prefill_tokens_per_s"] = result.prefill_s > 0 ? prompt_tokens / result.prefill_s : 0;
  json["decode_tokens_per_s"] = decoded > 0 && result.decode_s > 0 ? decoded / result.decode_s : 0;
  return json;
}

Json report(
    const Options& options,
    const Plan& plan,
    const GenerateResult& result,
    const Prompts& prompts,
    const std::optional<Tokenizer>& tokenizer,
    const std::vector<std::string>& ranks,
    double load_s) {
  Json json;
  json["model"] = options.run.model;
  json["layout"] = layout_report(plan.layout(), result.lanes);
  json["outputs"] = Json::array();
  for (size_t i = 0; i < result.outputs.size(); ++i) {
    const Output& output = result.outputs[i];
    Json entry;
    entry["text"] = text_of(tokenizer, output);
    entry["token_ids"] = output.token_ids;
    entry["prompt_tokens"] = prompts.ids[i].size();
    entry["finish_reason"] = reason_name(output.finish_reason);
    if (options.logprobs) {
      entry["logprobs"] = output.logprobs;
    }
    json["outputs"].push_back(std::move(entry));
  }
  json["timing"] = timing(result, prompts, load_s);
  json["ranks"] = ranks_report(ranks);
  return json;
}

void print_stats(const Json& json) {
  fmt::print(
      stderr, "{:>5} {:>12} {:>12} {:>12} {:>12} {:>14} {:>14}\n", "rank", "step", "compute ms", "reduce ms", "wait ms",
      "bytes sent", "peak RSS MiB");
  for (const Json& rank : json["ranks"]) {
    double compute = 0;
    double reduce = 0;
    double wait = 0;
    int64_t bytes = 0;
    const Json& steps = rank["steps"];
    if (steps.empty()) {
      fmt::print(stderr, "{:>5} {:>12}\n", rank["rank"].get<int>(), "idle");
      continue;
    }
    for (size_t i = 1; i < steps.size(); ++i) {
      compute += steps[i]["compute_s"].get<double>();
      reduce += steps[i]["reduce_s"].get<double>();
      wait += steps[i]["wait_s"].get<double>();
      bytes += steps[i]["bytes_sent"].get<int64_t>();
    }
    const double count = std::max<double>(1, static_cast<double>(steps.size()) - 1);
    const int64_t rss = rank["peak_rss_bytes"].get<int64_t>() >> 20;
    fmt::print(
        stderr, "{:>5} {:>12} {:>12.2f} {:>12.2f} {:>12.2f} {:>14} {:>14}\n", rank["rank"].get<int>(), "prefill",
        steps[0]["compute_s"].get<double>() * 1e3, steps[0]["reduce_s"].get<double>() * 1e3,
        steps[0]["wait_s"].get<double>() * 1e3, steps[0]["bytes_sent"].get<int64_t>(), rss);
    fmt::print(
        stderr, "{:>5} {:>12} {:>12.2f} {:>12.2f} {:>12.2f} {:>14.1f}\n", "", "a token", compute / count * 1e3,
        reduce / count * 1e3, wait / count * 1e3, static_cast<double>(bytes) / count);
  }
  const Json& timing = json["timing"];
  fmt::print(
      stderr, "load {:.2f} s, prefill {:.1f} tokens/s, decode {:.1f} tokens/s\n", timing["load_s"].get<double>(),
      timing["prefill_tokens_per_s"].get<double>(), timing["decode_tokens_per_s"].get<double>());
}

// Tokens before the new ones that generation_config.json's lengths count: of the longest prompt, or of what a decoder
// with an encoder starts with.
int64_t counted_tokens(const Model& model, const Prompts& prompts) {
  if (model.decoder_start_token_id()) {
    return 1;
  }
  size_t longest = 0;
  for (const auto& ids : prompts.ids) {
    longest = std::max(longest, ids.size());
  }
  return static_cast<int64_t>(longest);
}

int64_t chosen_max_new_tokens(const Options& options, const Model& model, const Prompts& prompts) {
  constexpr int64_t kDefault = 20;
  int64_t tokens = options.max_new_tokens.value_or(model.max_new_tokens().value_or(0));
  if (tokens == 0 && !options.max_new_tokens && model.max_length()) {
    tokens = std::max<int64_t>(1, *model.max_length() - counted_tokens(model, prompts));
  } else if (tokens == 0 && !options.max_new_tokens) {
    tokens = kDefault;
  }
  if (tokens < 1) {
    throw_usage("--max-new-tokens is {}, must be at least 1", tokens);
  }
  return tokens;
}

int64_t chosen_min_new_tokens(const Options& options, const Model& model) {
  // What a prompt leaves of "min_length" differs by row; a decoder with an encoder starts with one token.
  const bool same_start = model.min_length() && model.decoder_start_token_id();
  const int64_t of_length = same_start ? std::max<int64_t>(0, *model.min_length() - 1) : 0;
  return options.min_new_tokens.value_or(model.min_new_tokens().value_or(of_length));
}

int generate_command(Options& options, const Invocation& invocation) {
  check(options.run);
  check(options.prompts);
  if (must_launch(options.run)) {
    return launch_ranks(options.run, invocation);
  }
  std::signal(SIGPIPE, SIG_IGN);
  World world = World::from_environment(options.run.timeout_s, options.run.transport);
  const bool first = world.rank() == 0;
  const Model model = open_model(options.run, "", first);
  const std::string folder = options.tokenizer.empty() ? options.run.model : options.tokenizer;
  std::optional<Tokenizer> tokenizer;
  Prompts prompts;
  GenerateOptions generation;
  if (first) {
    check_search(options, model);
    const bool needs_tokenizer =
        options.prompts.input_ids.empty() || !options.tokenizer.empty() || !options.stop.empty();
    if (needs_tokenizer || std::filesystem::exists(std::filesystem::path(folder) / "tokenizer.json")) {
      try {
        tokenizer = Tokenizer::from_folder(folder);
      } catch (const Error&) {
        if (needs_tokenizer) {
          throw;
        }
      }
    }
    prompts = read_prompts(options.prompts, folder, tokenizer ? &*tokenizer : nullptr);
    generation.max_new_tokens = chosen_max_new_tokens(options, model, prompts);
    generation.min_new_tokens = chosen_min_new_tokens(options, model);
    generation.eos_token_ids = options.ignore_eos ? std::vector<int64_t>{} : model.eos_token_ids();
    generation.stop = options.stop;
    generation.logprobs = options.logprobs;
    model.check_prompts(prompts.ids, generation.max_new_tokens);
  }
  const Plan plan = make_plan(model, world, options.run.plan);
  Engine engine(plan, world);
  const double load_s = now_s() - invocation.start_s;
  Printer printer(options, prompts, tokenizer);
  const auto on_token = [&](size_t, int64_t token, FinishReason reason) { printer.token(token, reason); };
  const GenerateResult result =
      generate(engine, prompts.ids, generation, first ? TokenCallback(on_token) : TokenCallback(), folder);
  const std::vector<std::string> ranks = world.gather(rank_report(world, engine, result, options.stats).dump());
  world.finish();
  if (!first) {
    return 0;
  }
  const Json json = report(options, plan, result, prompts, tokenizer, ranks, load_s);
  if (options.json) {
    write_json(json);
  } else {
    for (const Output& output : result.outputs) {
      if (!printer.live()) {
        write((tokenizer ? text_of(tokenizer, output) : fmt::format("{}", fmt::join(output.token_ids, " "))) + "\n");
      }
    }
    if (options.stats) {
      print_stats(json);
    }
  }
  return 0;
}

}  // namespace

Action add_generate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_run_options(app, options->run);
  app.add_option("--tokenizer", options->tokenizer, "folder with tokenizer.json (default: the model's)");
  add_repeatable(app, "--prompt", options->prompts.prompts, "text to continue (repeatable)");
  app.add_option("--prompts", options->prompts.file, "file with one prompt a line");
  app.add_option("--input-ids", options->prompts.input_ids, "safetensors file with int64 input_ids [rows, length]");
  app.add_flag("--chat", options->prompts.chat, "each prompt is a user's message in the model's chat template");
  app.add_option("--max-new-tokens", options->max_new_tokens, "most tokens to add to each prompt");
  app.add_option("--min-new-tokens", options->min_new_tokens, "no end token before");
  add_repeatable(app, "--stop", options->stop, "end a text that contains this (repeatable)");
  app.add_flag("--logprobs", options->logprobs, "report the log probability of each token");
  app.add_flag("--ignore-eos", options->ignore_eos, "go on after the end token");
  app.add_flag("--stats", options->stats, "per rank and token: compute, waiting, bytes sent");
  app.add_flag("--json", options->json, "print one JSON object");
  app.add_option("--seed", options->seed, "of sampling (no effect on greedy search)");
  const char* later = "Not in this version";
  app.add_option("--num-beams", options->num_beams)->group(later);
  app.add_option("--length-penalty", options->length_penalty)->group(later);
  app.add_flag("--early-stopping", options->early_stopping)->group(later);
  app.add_option("--num-return-sequences", options->num_return_sequences)->group(later);
  app.add_option("--no-repeat-ngram-size", options->no_repeat_ngram_size)->group(later);
  app.add_flag("--do-sample", options->do_sample)->group(later);
  app.add_option("--temperature", options->temperature)->group(later);
  app.add_option("--top-k", options->top_k)->group(later);
  app.add_option("--top-p", options->top_p)->group(later);
  app.add_option("--min-p", options->min_p)->group(later);
  app.add_option("--repetition-penalty", options->repetition_penalty)->group(later);
  return [options](const Invocation& invocation) { return generate_command(*options, invocation); };
}

}  // namespace shardpipe::cli
