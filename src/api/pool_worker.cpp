// A process of a WorkerPool: the launcher of the ranks, or a rank.
//
// A rank does what its channel says. Commands come to rank 0 first, which says whether it accepts them; the others are
// told only then. So a request that is refused costs nobody anything, and what is accepted is begun by all.
#include <ATen/ATen.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "api/impl.h"
#include "api/pool_channel.h"
#include "base/error.h"
#include "comm/launcher.h"
#include "generate/request.h"
#include "runtime/shared_state.h"
#include "shardpipe/artefact.h"
#include "shardpipe/worker_pool.h"

namespace shardpipe {
namespace {

// Everything that this process and its ranks print goes to the pool, which knows their errors from it.
void launch_into(PoolChannel& channel) {
  std::fflush(nullptr);
  ::dup2(channel.descriptor(), STDERR_FILENO);
}

class Worker {
 public:
  Worker(PoolChannel& channel, double timeout_s, const std::string& transport)
      : channel_(channel), world_(World::from_environment(timeout_s, transport)) {}

  void serve(const Json& start) {
    const std::string path = start.at("model");
    const std::string dtype = start.at("dtype");
    const std::string weights = start.at("weights");
    planning_ = plan_options_from_json(start.at("plan"));
    tokenizer_ = start.at("tokenizer");
    model_.emplace(
        std::filesystem::is_regular_file(path) ? Model::from_exported(path, weights) : Model::from_folder(path, dtype));
    // Sent when the ranks have met: from here on their ends are told from each other.
    answer({{"ready", true}});
    while (std::optional<PoolMessage> message = channel_.receive()) {
      const std::string command = message->head.at("command");
      if (command == "stop") {
        world_.finish();
        return;
      }
      if (command == "prepare") {
        prepare(*message);
      } else if (command == "run") {
        run(*message);
      } else if (command == "generate") {
        generate(*message);
      } else if (command == "state") {
        accept();
        const NamedTensors state = engine_ == nullptr ? NamedTensors() : engine_->state();
        answer({{"done", true}}, state);
      } else if (command == "set_state") {
        set_state(*message);
      } else if (command == "reset_state") {
        accept();
        if (engine_ != nullptr) {
          engine_->reset_state();
        }
        answer({{"done", true}});
      }
    }
  }

 private:
  bool first() const { return world_.rank() == 0; }
  void answer(const Json& head, const NamedTensors& tensors = {}) {
    if (first()) {
      channel_.send(head, tensors);
    }
  }
  void accept() { answer({{"accepted", true}}); }

  // Runs the checks of rank 0; false when they refused the request, which the pool is told.
  template <typename F>
  bool checked(F check) {
    if (!first()) {
      return true;
    }
    try {
      check();
    } catch (const Error& error) {
      answer({{"refused", error.message()}, {"hint", error.hint()}, {"code", to_string(error.code())}});
      return false;
    }
    accept();
    return true;
  }

  void prepare(const PoolMessage& message) {
    PlanOptions planning = planning_;
    planning.program = static_cast<ModelProgram>(message.head.at("program").get<int>());
    planning.gradients = message.head.at("gradients");
    const auto key = std::pair(planning.program, planning.gradients);
    const auto known = engines_.find(key);
    // What fails here fails before the others wait for the plan.
    const bool good = checked([&] {
      if (known == engines_.end()) {
        model_->impl().check_program(planning.program, planning.gradients);
      }
    });
    if (!good) {
      return;
    }
    Engine* const before = engine_;
    if (known == engines_.end()) {
      const Plan plan = make_plan(*model_, world_, planning, message.tensors);
      engine_ = &engines_.emplace(key, Engine(plan, world_)).first->second;
    } else {
      engine_ = &known->second;
    }
    // The programs of a model have one state.
    if (before != nullptr && before != engine_) {
      engine_->set_state(before->state());
    }
    answer({{"done", true}});
  }

  void run(const PoolMessage& message) {
    const RunOptions options = first() ? run_options_from_json(message.head.at("options")) : RunOptions();
    NamedTensors inputs = message.tensors;
    if (!checked([&] { engine_->impl().check_run(inputs, options); })) {
      return;
    }
    RunResult result = engine_->run(inputs, options);
    const size_t outputs = result.outputs.size();
    NamedTensors tensors = std::move(result.outputs);
    tensors.insert(tensors.end(), result.gradients.begin(), result.gradients.end());
    answer(
        {{"done", true},
         {"outputs", outputs},
         {"chunks", result.chunks},
         {"stats", {result.stats.compute_s, result.stats.reduce_s, result.stats.wait_s, result.stats.bytes_sent}}},
        tensors);
  }

  void generate(const PoolMessage& message) {
    generation::Request request;
    const bool good = checked([&] {
      request = generation::parse_request(message.head.at("request").get<std::string>());
      model_->check_prompts(request.prompts, request.options.max_new_tokens);
    });
    if (!good) {
      return;
    }
    const auto on_token = [&](size_t prompt, int64_t token, FinishReason reason) {
      answer({{"token", {prompt, token, static_cast<int>(reason)}}});
    };
    const bool live = first() && message.head.at("live").get<bool>();
    const GenerateResult result = shardpipe::generate(
        *engine_, request.prompts, request.options, live ? TokenCallback(on_token) : TokenCallback(), tokenizer_);
    if (!first()) {
      return;
    }
    Json head = {
        {"done", true}, {"lanes", result.lanes}, {"prefill_s", result.prefill_s}, {"decode_s", result.decode_s}};
    head["outputs"] = Json::array();
    NamedTensors logprobs;  // JSON has no infinity
    for (const Output& output : result.outputs) {
      head["outputs"].push_back({output.token_ids, static_cast<int>(output.finish_reason)});
      logprobs.emplace_back("", at::tensor(output.logprobs, at::kDouble));
    }
    head["steps"] = Json::array();
    for (const StepStats& step : result.steps) {
      head["steps"].push_back({step.compute_s, step.reduce_s, step.wait_s, step.bytes_sent});
    }
    answer(head, logprobs);
  }

  void set_state(const PoolMessage& message) {
    if (checked([&] { runtime::check_state(engine_->impl().engine, message.tensors, ""); })) {
      engine_->set_state(message.tensors);
      answer({{"done", true}});
    }
  }

  PoolChannel& channel_;
  World world_;
  std::optional<Model> model_;
  PlanOptions planning_;
  std::string tokenizer_;
  std::map<std::pair<ModelProgram, bool>, Engine> engines_;
  Engine* engine_ = nullptr;  // of the last prepare
};

}  // namespace

int run_pool_worker(const std::string& address, int ranks, double timeout_s, const std::string& transport) {
  PoolChannel channel = PoolChannel::connect(address);
  if (ranks > 0) {
    channel.send({{"rank", -1}});
    launch_into(channel);
    comm::LaunchOptions options;
    options.nproc = ranks;
    options.program = {"/proc/self/exe",          "worker",      "--pool", address, "--timeout",
                       std::to_string(timeout_s), "--transport", transport};
    return comm::launch(options);
  }
  Worker worker(channel, timeout_s, transport);
  channel.send({{"rank", std::stoi(std::getenv("RANK"))}});
  const std::optional<PoolMessage> start = channel.receive();
  if (start) {
    worker.serve(start->head);
  }
  return 0;
}

}  // namespace shardpipe
