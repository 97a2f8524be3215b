#include "generate/session.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "generate/replicas.h"
#include "schedule/lower.h"

namespace shardpipe::generation {
namespace {

using Clock = std::chrono::steady_clock;

class Driver : public runtime::TokenDriver {
 public:
  Driver(const Request& request, std::shared_ptr<const text::Tokenizer> tokenizer, const TokenCallback& on_token)
      : decoder_prompt_{request.decoder_start.value_or(0)},
        sampler_(request.options, std::move(tokenizer)),
        on_token_(on_token) {
    std::vector<Row> rows;
    for (const std::vector<int64_t>& prompt : request.prompts) {
      Row& row = rows.emplace_back();
      row.prompt = request.decoder_start ? &decoder_prompt_ : &prompt;
      row.source = request.decoder_start ? &prompt : nullptr;
    }
    for (std::vector<Row>& part : split_rows(std::move(rows), request.lanes)) {
      first_rows_.push_back(first_rows_.empty() ? 0 : first_rows_.back() + lanes_.back().rows().size());
      lanes_.emplace_back(std::move(part), request.options.logprobs);
    }
  }

  bool any_active() const {
    return std::any_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.active(); });
  }
  bool all_have_tokens() const {
    return std::all_of(
        lanes_.begin(), lanes_.end(), [](const Lane& lane) { return !lane.rows().front().output.token_ids.empty(); });
  }
  const std::vector<Lane>& lanes() const { return lanes_; }
  Clock::time_point first_tokens() const { return first_tokens_; }

  bool active(int microbatch) const override { return at(microbatch).active(); }
  const graph::Dimensions& dimensions(int microbatch) const override { return at(microbatch).dimensions(); }
  c10::IValue input(int microbatch, const std::string& name) override { return at(microbatch).input(name); }
  at::Tensor tokens(int microbatch) override { return at(microbatch).choices(); }

  void outputs(int microbatch, const std::vector<std::pair<std::string, c10::IValue>>& values) override {
    Lane& lane = lanes_[static_cast<size_t>(microbatch)];
    const auto logits = std::find_if(values.begin(), values.end(), [](const auto& v) { return v.first == "logits"; });
    if (logits == values.end()) {
      throw_internal("the model has no output \"logits\" to generate from");
    }
    std::vector<const Row*> rows;
    for (const size_t slot : lane.active_rows()) {
      rows.push_back(&lane.rows()[slot]);
    }
    lane.set_choices(sampler_.choose(logits->second.toTensor(), rows));
  }

  void advance(int microbatch) override {
    const size_t first = first_rows_[static_cast<size_t>(microbatch)];
    lanes_[static_cast<size_t>(microbatch)].advance([&](size_t slot, const Choice& choice) {
      if (on_token_) {
        on_token_(first + slot, choice.token, choice.finish_reason);
      }
    });
    if (first_tokens_ == Clock::time_point{} && all_have_tokens()) {
      first_tokens_ = Clock::now();
    }
  }

 private:
  const Lane& at(int microbatch) const { return lanes_[static_cast<size_t>(microbatch)]; }

  std::vector<int64_t> decoder_prompt_;  // of every row, where there is an encoder
  std::vector<Lane> lanes_;
  std::vector<size_t> first_rows_;  // row of the request that is a lane's first
  Sampler sampler_;
  const TokenCallback& on_token_;
  Clock::time_point first_tokens_{};
};

std::vector<graph::Dimensions> cache_sizes(const Driver& driver, const Request& request) {
  std::vector<graph::Dimensions> sizes;
  for (const Lane& lane : driver.lanes()) {
    int64_t longest = 0;
    int64_t longest_source = 0;
    for (const Row& row : lane.rows()) {
      longest = std::max(longest, static_cast<int64_t>(row.prompt->size()));
      longest_source = std::max(longest_source, row.source == nullptr ? 0 : static_cast<int64_t>(row.source->size()));
    }
    // The last token chosen is never fed back.
    sizes.push_back({
        {"slots", static_cast<int64_t>(lane.rows().size())},
        {"capacity", longest + request.options.max_new_tokens - 1},
        {"source_capacity", longest_source},
    });
  }
  return sizes;
}

std::shared_ptr<const text::Tokenizer> stop_tokenizer(const runtime::Engine& engine, const Request& request) {
  return engine.has_last_stage() && !request.options.stop.empty()
             ? text::Tokenizer::from_folder(request.tokenizer_folder)
             : nullptr;
}

void check(const Request& request) {
  const auto rows = static_cast<int>(request.prompts.size());
  if (rows < 1 || request.lanes < 1 || request.lanes > rows || request.options.max_new_tokens < 1) {
    throw_internal(
        "a request of {} prompts in {} lanes for {} tokens", rows, request.lanes, request.options.max_new_tokens);
  }
}

// The prompts of one replica, continued.
GenerateResult continue_prompts(runtime::Engine& engine, const Request& request, const TokenCallback& on_token) {
  const Clock::time_point start = Clock::now();
  Request own = request;
  if (!engine.has_last_stage()) {
    own.options.stop.clear();  // the last stage decides
  }
  Driver driver(own, stop_tokenizer(engine, request), on_token);
  engine.reset_states(cache_sizes(driver, own));

  const schedule::Schedule lowered = engine.plan().schedule(request.lanes, false);
  const auto rank = static_cast<size_t>(engine.rank());
  const auto first = schedule::add_token_exchange(lowered, true).ranks[rank];
  const auto step = schedule::add_token_exchange(lowered, false).ranks[rank];

  GenerateResult result;
  result.steps.push_back(engine.run(first, driver));
  while (driver.any_active()) {
    result.steps.push_back(engine.run(step, driver));
  }
  const Clock::time_point end = Clock::now();
  result.prefill_s = std::chrono::duration<double>(driver.first_tokens() - start).count();
  result.decode_s = std::chrono::duration<double>(end - driver.first_tokens()).count();
  for (const Lane& lane : driver.lanes()) {
    for (const Row& row : lane.rows()) {
      result.outputs.push_back(row.output);
    }
  }
  return result;
}

}  // namespace

GenerateResult generate(runtime::Engine& engine, const Request& request, const TokenCallback& on_token) {
  check(request);
  const size_t prompts = request.prompts.size();
  const auto [first, count] = prompts_of(prompts, engine.plan().layout.dp, engine.at().dp);
  GenerateResult result;
  if (count == prompts) {
    result = continue_prompts(engine, request, on_token);
  } else if (count > 0) {
    Request own = request;
    own.prompts.assign(
        request.prompts.begin() + static_cast<ptrdiff_t>(first),
        request.prompts.begin() + static_cast<ptrdiff_t>(first + count));
    own.lanes = std::min(request.lanes, static_cast<int>(count));
    const size_t begin = first;
    const TokenCallback numbered = [&](size_t row, int64_t token, FinishReason reason) {
      on_token(begin + row, token, reason);
    };
    result = continue_prompts(engine, own, on_token ? numbered : on_token);
  }
  result.lanes = request.lanes;
  join_replicas(engine, prompts, result, on_token);
  return result;
}

}  // namespace shardpipe::generation
