// What calls of the public API refuse, in a world of one rank.
#include <gmock/gmock.h>
#include <torch/nn.h>

#include "frontend/hf/model_folder.h"
#include "shardpipe/engine.h"
#include "shardpipe/module.h"
#include "shardpipe/tokenizer.h"
#include "support/errors.h"
#include "text/tokenizer_fixture.h"

namespace shardpipe {
namespace {

namespace nn = torch::nn;
using test::expect_error;

PlanOptions reference_plan() {
  PlanOptions options;
  options.kernels = "reference";
  options.threads = 1;
  return options;
}

Model module_model(nn::AnyModule module) {
  return Model::from_module(
      module.ptr(),
      {{{"x", at::kFloat, {"batch", 4, 3}}}, [module](nn::Module&, const std::vector<at::Tensor>& in) mutable {
         return NamedTensors{{"y", module.forward(in[0])}};
       }});
}

// A llama of one layer whose weights are zeros.
Model llama(const test::ModelFolder& folder) {
  Json json = test::llama_json();
  json["num_hidden_layers"] = 1;
  folder.write("config.json", json.dump());
  NamedTensors weights = {
      {"model.embed_tokens.weight", at::zeros({101, 48})}, {"lm_head.weight", at::zeros({101, 48})}};
  for (const auto& [name, rows, columns] :
       {std::tuple("self_attn.q_proj", 48, 48),
        {"self_attn.k_proj", 24, 48},
        {"self_attn.v_proj", 24, 48},
        {"self_attn.o_proj", 48, 48},
        {"mlp.gate_proj", 80, 48},
        {"mlp.up_proj", 80, 48},
        {"mlp.down_proj", 48, 80}}) {
    weights.emplace_back(std::string("model.layers.0.") + name + ".weight", at::zeros({rows, columns}));
  }
  for (const char* name : {"model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"}) {
    weights.emplace_back(std::string(name) + ".weight", at::ones({48}));
  }
  write_tensors(folder.path() / "model.safetensors", weights);
  return Model::from_folder(folder.path());
}

TEST(ApiErrors, ProgramsWithAndWithoutCaches) {
  World world = World::from_environment();
  Engine plain(make_plan(module_model(nn::AnyModule(nn::Linear(3, 3))), world, reference_plan()), world);
  expect_error(ErrorCode::usage, "without caches does not generate; hint: plan ModelProgram::generation", [&] {
    generate(plain, {{1}}, {});
  });
  const test::ModelFolder folder;
  const Model model = llama(folder);
  Engine engine(make_plan(model, world, reference_plan()), world);
  expect_error(
      ErrorCode::usage, "is not run on a batch of tensors; hint: use generate, or plan ModelProgram::forward", [&] {
        engine.run({{"input_ids", at::ones({1, 2}, at::kLong)}});
      });
  GenerateOptions none;
  none.max_new_tokens = 0;
  expect_error(ErrorCode::usage, "--max-new-tokens is 0, must be at least 1", [&] { generate(engine, {{1}}, none); });
  EXPECT_EQ(generate(engine, {{1}}, {}).outputs.at(0).token_ids.size(), 20u);  // and goes on after an error
  world.finish();
}

TEST(ApiErrors, Prompts) {
  const test::ModelFolder folder;
  const Model model = llama(folder);
  using Prompts = std::vector<std::vector<int64_t>>;
  const std::pair<Prompts, const char*> cases[] = {
      {{}, "there is no prompt"},
      {{{1}, {}}, "prompt 1 is empty"},
      {{{1, 101}}, "token id 101 in prompt 0 is outside of the vocabulary: 0 to 100"},
      {{{-1}}, "token id -1 in prompt 0"},
      {{std::vector<int64_t>(129, 1)}, "prompt 0 has 129 tokens, the model has 128 positions"}};
  for (const auto& bad : cases) {
    expect_error(ErrorCode::usage, bad.second, [&] { model.check_prompts(bad.first, 4); });
  }
}

TEST(ApiErrors, AModuleHasNoConfiguration) {
  const Model model = module_model(nn::AnyModule(nn::Linear(3, 3)));
  const std::string message = "a C++ module has no configuration and no caches to generate with; hint: give a Hugging";
  expect_error(ErrorCode::usage, message, [&] { model.vocab_size(); });
  expect_error(ErrorCode::usage, message, [&] { model.check_prompts({{1}}, 4); });
}

TEST(ApiErrors, Plans) {
  World world = World::from_environment();
  const Model model = module_model(nn::AnyModule(nn::Linear(3, 3)));
  PlanOptions wide = reference_plan();
  wide.layout.pp = 2;
  expect_error(
      ErrorCode::usage, "--pp 2 x --dp 1 x --tp 1 is 2 ranks, this job has 1; hint: start as many processes",
      [&] { make_plan(model, world, wide); });
  PlanOptions threads = reference_plan();
  threads.threads = -1;
  expect_error(ErrorCode::usage, "--threads is -1, must be at least 1", [&] { make_plan(model, world, threads); });
  world.finish();
}

TEST(ApiErrors, ModulesThatReadValues) {
  World world = World::from_environment();
  nn::Functional branch([](const at::Tensor& x) { return x.sum().item<float>() > 0 ? x : -x; });
  expect_error(
      ErrorCode::usage, "item", [&] { make_plan(module_model(nn::AnyModule(branch)), world, reference_plan()); });
  // Cumulative averages: the factor of each update is read from a buffer.
  nn::BatchNorm1d norm(nn::BatchNormOptions(4).momentum(std::nullopt));
  expect_error(
      ErrorCode::usage, "item", [&] { make_plan(module_model(nn::AnyModule(norm)), world, reference_plan()); });
  norm->eval();
  norm->running_mean.fill_(0.5);
  Engine engine(make_plan(module_model(nn::AnyModule(norm)), world, reference_plan()), world);
  const at::Tensor x = torch::randn({2, 4, 3});
  const c10::NoGradGuard no_grad;
  EXPECT_TRUE(engine.run({{"x", x}}).outputs.at(0).second.equal(norm(x)));
  world.finish();
}

TEST(ApiErrors, Models) {
  expect_error(ErrorCode::usage, "--dtype \"int8\" is not known; hint: use float32, bfloat16 or float16", [] {
    Model::from_folder("anywhere", "int8");
  });
  expect_error(ErrorCode::usage, "there is no file /nowhere/m.pt2", [] { Model::from_exported("/nowhere/m.pt2"); });
  expect_error(ErrorCode::usage, "--timeout is 0 s, must be above 0", [] { World::from_environment(0); });
}

TEST(ApiErrors, TextsAndIds) {
  const text::TemporaryFolder folder;
  folder.write("tokenizer.json", text::letters().dump());
  const Tokenizer tokenizer = Tokenizer::from_folder(folder.path());
  expect_error(ErrorCode::usage, "2 second texts for 1 texts; as many, or none, are expected", [&] {
    tokenizer.encode_batch({"low"}, {"l", "o"});
  });
  const std::filesystem::path file = folder.path() / "ids.safetensors";
  write_tensors(file, {{"input_ids", at::ones({3}, at::kLong)}});
  expect_error(
      ErrorCode::input, "ids.safetensors has shape [3], must be [rows, length]", [&] { read_input_ids(file); });
  write_tensors(file, {{"input_ids", at::ones({2, 3}, at::kLong)}, {"attention_mask", at::ones({2, 2}, at::kLong)}});
  expect_error(ErrorCode::input, "has shape [2, 2], input_ids has [2, 3]", [&] { read_input_ids(file); });
}

}  // namespace
}  // namespace shardpipe
