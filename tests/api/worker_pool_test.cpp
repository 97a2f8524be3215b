// A model in processes of a WorkerPool answers like one in this process; its state stays; its processes end with their
// owner, and their ends are told.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <torch/nn.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "frontend/hf/model_folder.h"
#include "shardpipe/artefact.h"
#include "shardpipe/engine.h"
#include "shardpipe/module.h"
#include "shardpipe/worker_pool.h"
#include "support/errors.h"

namespace shardpipe {
namespace {

namespace nn = torch::nn;
using test::expect_error;

bool running(pid_t process) {
  return ::kill(process, 0) == 0;
}

bool all_end(const std::vector<pid_t>& processes, int seconds) {
  for (int i = 0; i < seconds * 20; ++i) {
    if (std::none_of(processes.begin(), processes.end(), running)) {
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return false;
}

PlanOptions options_of(int ranks) {
  PlanOptions options;
  options.layout.pp = ranks;
  options.threads = 1;
  options.kernels = "reference";
  return options;
}

WorkerPoolOptions pool_options() {
  WorkerPoolOptions options;
  options.program = SHARDPIPE_TEST_PROGRAM;
  options.timeout_s = 60;
  return options;
}

struct Statistics : nn::Module {
  Statistics() {
    torch::manual_seed(1);
    first = register_module("first", nn::Linear(4, 6));
    norm = register_module("norm", nn::BatchNorm1d(6));
    second = register_module("second", nn::Linear(6, 6));
    last = register_module("last", nn::BatchNorm1d(6));
  }
  at::Tensor forward(const at::Tensor& x) { return last(torch::relu(second(norm(first(x))))); }
  nn::Linear first{nullptr}, second{nullptr};
  nn::BatchNorm1d norm{nullptr}, last{nullptr};
};

Model statistics() {
  return Model::from_module(
      std::make_shared<Statistics>(),
      {{{"x", at::kFloat, {"batch", 4}}}, [](nn::Module& module, const std::vector<at::Tensor>& in) {
         const at::Tensor y = module.as<Statistics>()->forward(in[0]);
         return NamedTensors{{"y", y}, {"loss", y.square().mean()}};
       }});
}

std::vector<at::Tensor> batches() {
  torch::manual_seed(2);
  std::vector<at::Tensor> list;
  for (const int64_t rows : {6, 3, 8, 5, 4}) {
    list.push_back(torch::randn({rows, 4}));
  }
  return list;
}

std::map<std::string, at::Tensor> buffers_of(nn::Module& module) {
  std::map<std::string, at::Tensor> buffers;
  for (const auto& buffer : module.named_buffers()) {
    buffers[buffer.key()] = buffer.value();
  }
  return buffers;
}

void expect_state(const NamedTensors& state, nn::Module& module) {
  const std::map<std::string, at::Tensor> expected = buffers_of(module);
  EXPECT_EQ(state.size(), expected.size());
  for (const auto& [name, tensor] : state) {
    EXPECT_TRUE(tensor.equal(expected.at(name))) << name;
  }
}

// Five calls as the module itself, two from the beginning again, and two from where the first ended.
template <typename Engine>
void expect_kept(Engine& engine) {
  const c10::NoGradGuard no_grad;
  Statistics module;
  for (const at::Tensor& x : batches()) {
    EXPECT_TRUE(engine.run({{"x", x}}).outputs.at(0).second.equal(module.forward(x)));
  }
  const NamedTensors kept = engine.state();
  expect_state(kept, module);
  engine.reset_state();
  Statistics again;
  expect_state(engine.state(), again);
  const at::Tensor x = batches()[0];
  EXPECT_TRUE(engine.run({{"x", x}}).outputs.at(0).second.equal(again.forward(x)));
  engine.set_state(kept);
  EXPECT_TRUE(engine.run({{"x", x}}).outputs.at(0).second.equal(module.forward(x)));
  NamedTensors bad = kept;
  bad.pop_back();
  expect_error(ErrorCode::usage, "the state does not fit the model: \"", [&] { engine.set_state(bad); });
  EXPECT_TRUE(engine.run({{"x", x}}).outputs.at(0).second.equal(module.forward(x)));
}

TEST(EngineState, IsKeptResetAndReplaced) {
  World world = World::from_environment();
  PlanOptions options = options_of(1);
  options.program = ModelProgram::forward;
  Engine engine(make_plan(statistics(), world, options), world);
  expect_kept(engine);
  const test::ModelFolder folder;
  engine.save_state(folder.path() / "state");
  const NamedTensors kept = engine.state();
  engine.reset_state();
  engine.load_state(folder.path() / "state");
  for (size_t i = 0; i < kept.size(); ++i) {
    EXPECT_TRUE(engine.state()[i].second.equal(kept[i].second));
  }
  write_tensors(folder.path() / "state", {});
  expect_error(ErrorCode::input, "is no state of this model", [&] { engine.load_state(folder.path() / "state"); });
  world.finish();
}

TEST(WorkerPool, KeepsStateAndSaysWhoDied) {
  const test::ModelFolder folder;
  const std::filesystem::path artefact = folder.path() / "artefact";
  compile(statistics(), {options_of(2)}, artefact);
  WorkerPool pool(artefact, pool_options());
  expect_kept(pool);
  // With gradients: another program, the same state.
  pool.reset_state();
  Statistics module;
  const at::Tensor x = batches()[0];
  module.forward(x);
  pool.run({{"x", x}});
  RunOptions loss;
  loss.loss = "loss";
  const RunResult result = pool.run({{"x", x}}, loss);
  module.forward(x).square().mean().backward();
  ASSERT_EQ(result.gradients.size(), 8u);
  for (const auto& [name, gradient] : result.gradients) {
    EXPECT_TRUE(gradient.equal(module.named_parameters()[name].grad())) << name;
  }
  expect_state(pool.state(), module);
  // A request that is wrong costs nothing.
  expect_error(ErrorCode::usage, "\"z\"", [&] { pool.run({{"z", x}}); });
  expect_error(ErrorCode::usage, "no configuration and no caches", [&] { pool.generate({{1}}, {}); });
  expect_state(pool.state(), module);

  const std::vector<pid_t> workers = pool.process_ids();
  ASSERT_EQ(workers.size(), 2u);
  ::kill(workers[1], SIGKILL);
  expect_error(ErrorCode::rank, "rank 1 died (signal 9, killed)", [&] { pool.run({{"x", x}}); });
  EXPECT_TRUE(all_end(workers, 10));
  expect_error(
      ErrorCode::rank,
      "the processes of the worker pool have ended: rank 1 died (signal 9, killed); hint: WorkerPool::restart()", [&] {
        pool.run({{"x", x}});
      });
  pool.restart();
  expect_kept(pool);
}

void write_llama(const test::ModelFolder& folder) {
  Json json = test::llama_json();
  json["num_hidden_layers"] = 2;
  folder.write("config.json", json.dump());
  torch::manual_seed(3);
  NamedTensors weights = {
      {"model.embed_tokens.weight", at::randn({101, 48})},
      {"lm_head.weight", at::randn({101, 48})},
      {"model.norm.weight", at::ones({48})}};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const auto& [name, rows, columns] :
         {std::tuple("self_attn.q_proj", 48, 48),
          {"self_attn.k_proj", 24, 48},
          {"self_attn.v_proj", 24, 48},
          {"self_attn.o_proj", 48, 48},
          {"mlp.gate_proj", 80, 48},
          {"mlp.up_proj", 80, 48},
          {"mlp.down_proj", 48, 80}}) {
      weights.emplace_back(layer + name + ".weight", at::randn({rows, columns}) / 7);
    }
    for (const char* name : {"input_layernorm", "post_attention_layernorm"}) {
      weights.emplace_back(layer + name + ".weight", at::ones({48}));
    }
  }
  write_tensors(folder.path() / "model.safetensors", weights);
}

TEST(WorkerPool, GeneratesLikeAnEngineAndEndsItsProcesses) {
  const test::ModelFolder folder;
  write_llama(folder);
  const std::vector<std::vector<int64_t>> prompts = {{5, 6, 7}, {11}, {90, 3, 55, 20, 17}};
  GenerateOptions options;
  options.max_new_tokens = 9;
  options.logprobs = true;
  World world = World::from_environment();
  Engine engine(make_plan(Model::from_folder(folder.path()), world, options_of(1)), world);

  WorkerPoolOptions pooled = pool_options();
  pooled.plan = options_of(2);
  std::vector<pid_t> workers;
  {
    WorkerPool pool(folder.path(), pooled);
    workers = pool.process_ids();
    for (const auto& asked : {prompts, {{42, 1}}}) {  // two shapes
      std::vector<std::vector<int64_t>> live(asked.size());
      const GenerateResult expected = generate(engine, asked, options);
      const GenerateResult result = pool.generate(
          asked, options, [&](size_t prompt, int64_t token, FinishReason) { live[prompt].push_back(token); });
      ASSERT_EQ(result.outputs.size(), asked.size());
      for (size_t i = 0; i < asked.size(); ++i) {
        EXPECT_EQ(result.outputs[i].token_ids, expected.outputs[i].token_ids);
        EXPECT_EQ(live[i], expected.outputs[i].token_ids);
        ASSERT_EQ(result.outputs[i].logprobs.size(), expected.outputs[i].logprobs.size());
        for (size_t t = 0; t < result.outputs[i].logprobs.size(); ++t) {
          // Other microbatches, other sizes of products.
          EXPECT_NEAR(result.outputs[i].logprobs[t], expected.outputs[i].logprobs[t], 1e-5);
        }
      }
      EXPECT_FALSE(result.steps.empty());
    }
    expect_error(ErrorCode::usage, "token id 101 in prompt 0 is outside", [&] { pool.generate({{101}}, options); });
    struct Stop {};
    EXPECT_THROW(pool.generate(prompts, options, [](size_t, int64_t, FinishReason) { throw Stop(); }), Stop);
    const RunResult forward = pool.run({{"input_ids", at::ones({2, 4}, at::kLong)}});
    EXPECT_EQ(forward.outputs.at(0).second.sizes(), at::IntArrayRef({2, 4, 101}));
  }
  EXPECT_TRUE(all_end(workers, 1));
  world.finish();
}

// Ranks that share matrices, replicas, and both with a pipeline, however they talk.
TEST(WorkerPool, AnswersInEveryLayout) {
  const test::ModelFolder folder;
  write_llama(folder);
  const std::vector<std::vector<int64_t>> prompts = {{5, 6, 7}, {11}, {90, 3, 55, 20, 17}};
  GenerateOptions options;
  options.max_new_tokens = 5;
  torch::manual_seed(4);
  const at::Tensor ids = torch::randint(101, {3, 6}, at::kLong);
  World world = World::from_environment();
  Engine engine(make_plan(Model::from_folder(folder.path()), world, options_of(1)), world);
  const GenerateResult expected = generate(engine, prompts, options);
  PlanOptions forward = options_of(1);
  forward.program = ModelProgram::forward;
  Engine whole(make_plan(Model::from_folder(folder.path()), world, forward), world);
  const at::Tensor logits = whole.run({{"input_ids", ids}}).outputs.at(0).second;

  for (const auto& [pp, dp, tp, transport] :
       {std::tuple(1, 1, 2, "shm"), {1, 2, 1, "auto"}, {2, 1, 2, "gloo"}, {2, 1, 2, "auto"}}) {
    SCOPED_TRACE(fmt::format("pp {}, dp {}, tp {}, {}", pp, dp, tp, transport));
    WorkerPoolOptions pooled = pool_options();
    pooled.plan = options_of(pp);
    pooled.plan.layout.dp = dp;
    pooled.plan.layout.tp = tp;
    pooled.transport = transport;
    WorkerPool pool(folder.path(), pooled);
    EXPECT_EQ(pool.process_ids().size(), static_cast<size_t>(pp * dp * tp));
    const GenerateResult result = pool.generate(prompts, options);
    ASSERT_EQ(result.outputs.size(), prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_EQ(result.outputs[i].token_ids, expected.outputs[i].token_ids);
    }
    const at::Tensor found = pool.run({{"input_ids", ids}}).outputs.at(0).second;
    // Sums of 80 float32 in another order, through two layers.
    EXPECT_LE((found - logits).abs().max().item<double>(), 1e-5 * logits.abs().max().item<double>());
  }
  world.finish();
}

TEST(WorkerPool, EndsWithItsOwner) {
  const test::ModelFolder folder;
  compile(statistics(), {options_of(2)}, folder.path() / "artefact");
  const std::string command =
      std::string("exec " SHARDPIPE_POOL_OWNER " " SHARDPIPE_TEST_PROGRAM " ") + (folder.path() / "artefact").string();
  FILE* output = ::popen(command.c_str(), "r");
  ASSERT_NE(output, nullptr);
  int owner = 0;
  std::vector<pid_t> workers(2);
  ASSERT_EQ(std::fscanf(output, "%d %d %d", &owner, &workers[0], &workers[1]), 3);
  EXPECT_TRUE(running(workers[0]) && running(workers[1]));
  ::kill(owner, SIGKILL);
  EXPECT_TRUE(all_end(workers, 5));
  ::pclose(output);
}

TEST(WorkerPool, Refuses) {
  const test::ModelFolder folder;
  expect_error(ErrorCode::usage, "no model at /nowhere/m", [] { WorkerPool pool("/nowhere/m", pool_options()); });
  WorkerPoolOptions options = pool_options();
  options.program = "/nowhere/shardpipe";
  expect_error(ErrorCode::usage, "cannot start '/nowhere/shardpipe'", [&] { WorkerPool pool(folder.path(), options); });
  options = pool_options();
  options.timeout_s = 0;
  expect_error(ErrorCode::usage, "timeout_s is 0 s, must be above 0", [&] { WorkerPool pool(folder.path(), options); });
  options = pool_options();
  options.transport = "pigeon";
  expect_error(ErrorCode::usage, "pigeon", [&] { WorkerPool pool(folder.path(), options); });
  options = pool_options();
  options.plan.split = [](const std::vector<std::string>&, int) { return std::vector<std::string>(); };
  expect_error(ErrorCode::usage, "cannot call a split function", [&] { WorkerPool pool(folder.path(), options); });
  options = pool_options();
  options.plan.device = "tpu";
  expect_error(ErrorCode::usage, "--device \"tpu\" is not known", [&] { WorkerPool pool(folder.path(), options); });
  // What a process finds wrong is told by kind.
  options = pool_options();
  WorkerPool pool(folder.path(), options);  // a folder without config.json
  expect_error(ErrorCode::usage, "it has no config.json", [&] { pool.run({{"x", at::ones({1})}}); });
  expect_error(ErrorCode::usage, "there is no worker pool at \"nobody\"", [] { run_pool_worker("nobody", 0, 10); });
}

TEST(Compile, Modules) {
  const test::ModelFolder folder;
  PlanOptions options = options_of(1);
  options.program = ModelProgram::forward;
  const Model opaque_model = Model::from_module(
      nn::Linear(3, 3).ptr(), {{{"x", at::kFloat, {"batch", 3}}}, [](nn::Module&, const std::vector<at::Tensor>& in) {
                                 return NamedTensors{
                                     {"y", opaque(
                                               "f", [](const auto& x) { return x; }, in)[0]}};
                               }});
  expect_error(
      ErrorCode::usage, "opaque code in module", [&] { compile(opaque_model, {options}, folder.path() / "o"); });
  CompileOptions referring{options};
  referring.references = true;
  expect_error(ErrorCode::usage, "the weights of a module are in no file", [&] {
    compile(statistics(), referring, folder.path() / "r");
  });
  compile(statistics(), {options}, folder.path() / "a");
  const Model compiled = Model::from_folder(folder.path() / "a");
  expect_error(ErrorCode::usage, "is compiled already", [&] { compile(compiled, {options}, folder.path() / "b"); });
  expect_error(ErrorCode::usage, "--dtype bfloat16 contradicts the artefact", [&] {
    Model::from_folder(folder.path() / "a", "bfloat16");
  });
  World world = World::from_environment();
  PlanOptions other = options;
  other.layout.pp = 2;
  expect_error(ErrorCode::usage, "--pp 2 contradicts the artefact", [&] { make_plan(compiled, world, other); });
  other = options;
  other.layout.chunks = -1;
  expect_error(ErrorCode::usage, "--chunks is -1", [&] { make_plan(compiled, world, other); });
  other = options;
  other.verify_files = true;
  Engine engine(make_plan(compiled, world, other), world);
  expect_kept(engine);
  world.finish();
}

}  // namespace
}  // namespace shardpipe
