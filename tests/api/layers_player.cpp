// The ranks of parallel_layers_test.cpp: a program of gtest that every rank runs.
//   api_layers_player FOLDER       FOLDER/whole.safetensors holds a Block
//   api_layers_player FOLDER PP    writes FOLDER/factory-PP-TP: what a module made by a factory gives
#include <gtest/gtest.h>
#include <shardpipe/engine.h>
#include <shardpipe/module.h>
#include <shardpipe/parallel_layers.h>
#include <torch/torch.h>

#include <filesystem>

#include "api/impl.h"
#include "api/parallel_layers.h"
#include "api/parallel_nets.h"
#include "support/errors.h"

namespace shardpipe {
namespace {

namespace nn = torch::nn;
using test::Block;
using test::expect_error;
using test::Layers;
using test::Outputs;
using test::Parallel;
using test::Plain;
using test::seeded;
using Tensors = std::vector<at::Tensor>;

World* world = nullptr;
std::string device = "cpu";  // of all tensors: $SHARDPIPE_TEST_DEVICE
std::filesystem::path folder;

constexpr double kExact = 1e-11;  // of sums of a few hundred float64 of size 1, in another order
// An error in float32 may be this many times that of torch::nn's own float32: sums in another order.
constexpr double kMargin = 8;

double distance(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == 0 ? 0 : (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

double size_of(const at::Tensor& x) {
  return x.numel() == 0 ? 0 : x.abs().max().item<double>();
}

/// What a model gives: outputs and gradients, of its parameters and of the first input where that has one.
std::map<std::string, at::Tensor> run(
    nn::Module& module, const std::function<Outputs(const Tensors&)>& forward, Tensors inputs, at::ScalarType dtype) {
  module.to(at::Device(device), dtype);
  for (at::Tensor& input : inputs) {
    input = input.to(at::Device(device));
  }
  if (inputs[0].is_floating_point()) {
    inputs[0] = inputs[0].detach().to(dtype, false, /*copy=*/true).requires_grad_();
  }
  std::map<std::string, at::Tensor> found;
  for (const auto& [name, tensor] : forward(inputs)) {
    found["output " + name] = tensor.detach().cpu();
    if (name == "loss") {
      tensor.backward();
    }
  }
  for (const auto& parameter : module.named_parameters()) {
    found[parameter.key()] = parameter.value().grad().cpu();
  }
  if (inputs[0].requires_grad()) {
    found["input"] = inputs[0].grad().cpu();
  }
  return found;
}

/// The piece of a tensor of this part, by the name of the parameter.
at::Tensor piece_of(const at::Tensor& whole, const std::string& name, const nn::Module& module) {
  const std::map<std::string, LayerPiece> pieces = find_pieces(module);
  const auto piece = pieces.find(name);
  return piece == pieces.end()
             ? whole
             : whole.narrow(piece->second.dim, piece->second.layer->local_begin(), piece->second.layer->local_extent());
}

template <template <typename> typename Net>
void expect_plain(const Tensors& inputs) {
  const auto exact_net = seeded<Net<Plain>>(1);
  const auto plain_net = seeded<Net<Plain>>(1);
  const auto exact = run(
      *exact_net, [&](const Tensors& in) { return exact_net->run(in); }, inputs, at::kDouble);
  const auto plain = run(
      *plain_net, [&](const Tensors& in) { return plain_net->run(in); }, inputs, at::kFloat);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const TensorParallel ranks(*world);
    const auto net = seeded<Net<Parallel>>(1);
    const auto found = run(
        *net, [&](const Tensors& in) { return net->run(in); }, inputs, dtype);
    ASSERT_EQ(found.size(), exact.size());
    for (const auto& [name, tensor] : found) {
      ASSERT_TRUE(tensor.defined()) << name;
      const at::Tensor expected = piece_of(exact.at(name), name, *net);
      ASSERT_EQ(tensor.sizes(), expected.sizes()) << name;
      const double own = distance(plain.at(name), exact.at(name));
      const double bound = dtype == at::kDouble ? kExact * std::max(1.0, size_of(exact.at(name)))
                                                : kMargin * std::max(own, 1.2e-7 * size_of(exact.at(name)));
      EXPECT_LE(distance(tensor, expected), bound) << name << " " << dtype;
    }
  }
}

TEST(Ranks, EveryLayerIsThatOfTorch) {
  torch::manual_seed(2);
  const at::Tensor ids = torch::tensor({0, 7, 10, 3, 5, 6, 1, 7}, at::kLong);
  expect_plain<Layers>({torch::randn({8, 5}), ids, torch::tensor({9, 3, 0, 10, 3, 4, 2, 8}, at::kLong)});
}

Tensors text() {
  torch::manual_seed(3);
  const at::Tensor ids = torch::randint(Block<Plain>::kWords, {3, 6}, at::kLong);
  return {ids, ids.roll(1, 1)};
}

TEST(Ranks, ATransformerBlockIsThatOfTorch) {
  expect_plain<Block>(text());
}

TEST(Ranks, ReductionsAreAsFewAsCanBe) {
  const TensorParallel ranks(*world);
  const auto net = seeded<Block<Parallel>>(1);
  const auto count = [&] { return world->impl().world.group().statistics().all_reduce.calls; };
  const int64_t before = count();
  const Outputs outputs = net->run(text());
  // The words, what attention and MLP give, the loss.
  EXPECT_EQ(count() - before, world->size() > 1 ? 4 : 0);
  outputs.back().second.backward();
  // What attention, MLP and head took.
  EXPECT_EQ(count() - before, world->size() > 1 ? 4 + 3 : 0);
}

TEST(Ranks, InitialValuesAreThoseOfTorch) {
  const auto plain = seeded<Block<Plain>>(5);
  const TensorParallel ranks(*world);
  EXPECT_EQ(ranks.parts(), world->size());
  EXPECT_EQ(ranks.part(), world->rank());
  const auto net = seeded<Block<Parallel>>(5);
  const auto copy = std::dynamic_pointer_cast<ColumnParallelLinearImpl>(net->q->clone());
  EXPECT_TRUE(copy->weight.equal(net->q->weight));
  EXPECT_EQ(copy->local_extent(), net->q->local_extent());
  EXPECT_EQ(net->q->local_extent(), 4 * local_count(5));
  int64_t mine = 0;
  int64_t all = 0;
  for (const auto& parameter : net->named_parameters()) {
    const at::Tensor whole = plain->named_parameters()[parameter.key()];
    EXPECT_TRUE(parameter.value().equal(piece_of(whole, parameter.key(), *net))) << parameter.key();
    mine += parameter.value().numel();
    all += whole.numel();
  }
  EXPECT_LT(mine * world->size(), all * 5 / 4 + (world->size() == 1 ? all : 0));
}

ModuleSignature signature() {
  return {
      {{"ids", at::kLong, {"batch", "length"}}, {"labels", at::kLong, {"batch", "length"}}},
      [](nn::Module& module, const Tensors& in) { return module.as<Block<Parallel>>()->run(in); }};
}

PlanOptions options(int pp) {
  PlanOptions made;
  made.layout.pp = pp;
  made.layout.tp = world->size() / pp;
  made.program = ModelProgram::forward;
  made.gradients = true;
  made.threads = 1;
  made.kernels = "reference";
  made.device = device;
  return made;
}

// A whole module through the planner lies as its layers say, and computes what torch::nn does.
TEST(Ranks, WholeModulesArePlannedAsTheirLayersSay) {
  const Tensors in = text();
  const auto plain = seeded<Block<Plain>>(1);
  const auto exact = run(
      *plain, [&](const Tensors& x) { return plain->run(x); }, in, at::kDouble);
  const auto net = seeded<Block<Parallel>>(1);
  net->to(at::kDouble);
  const Model model = Model::from_module(net, signature());
  const Plan plan = make_plan(model, *world, options(1));
  const std::map<std::string, tensor::Shard>& shards = plan.impl().plan.shards;
  if (world->size() > 1) {
    const std::map<std::string, int> dims = {{"words.weight", 0}, {"q.weight", 0},   {"k.bias", 0},
                                             {"v.weight", 0},     {"out.weight", 1}, {"up.weight", 0},
                                             {"down.weight", 1},  {"head.weight", 0}};
    for (const auto& [name, dim] : dims) {
      ASSERT_TRUE(shards.contains(name)) << name;
      EXPECT_EQ(shards.at(name).dim, dim) << name;
    }
    EXPECT_FALSE(shards.contains("out.bias"));
    EXPECT_EQ(shards.at("q.weight").all_units(), 5);  // heads
    // Their user knows better.
    PlanOptions pinned = options(1);
    pinned.layout.tp_plan = {{"up", {TensorPin::Style::replicate}}, {"head", {TensorPin::Style::rowwise}}};
    const Plan other = make_plan(model, *world, pinned);
    EXPECT_FALSE(other.impl().plan.shards.contains("up.weight"));
    EXPECT_EQ(other.impl().plan.shards.at("head.weight").dim, 1);
    EXPECT_EQ(other.impl().plan.shards.at("q.weight").dim, 0);
  }
  Engine engine(plan, *world);
  const RunResult result = engine.run({{"ids", in[0]}, {"labels", in[1]}}, {.loss = "loss"});
  if (world->rank() != 0) {
    return;
  }
  for (const auto& [name, tensor] : result.outputs) {
    EXPECT_LE(distance(tensor, exact.at("output " + name)), kExact) << name;
  }
  EXPECT_EQ(result.gradients.size(), exact.size() - 2);
  for (const auto& [name, tensor] : result.gradients) {
    EXPECT_LE(distance(tensor, exact.at(name)), kExact) << name;
  }
}

TEST(Ranks, LayersSayWhatIsGathered) {
  if (world->size() == 1) {
    return;
  }
  const Model model = Model::from_module(
      seeded<Layers<Parallel>>(1),
      {{{"x", at::kFloat, {8, 5}}, {"ids", at::kLong, {8}}, {"target", at::kLong, {8}}},
       [](nn::Module& module, const Tensors& in) { return module.as<Layers<Parallel>>()->run(in); }});
  const auto gathers = [&](const std::map<std::string, TensorPin>& pins) {
    PlanOptions made = options(1);
    made.layout.tp_plan = pins;
    const Plan plan = make_plan(model, *world, made);
    const std::vector<tensor::Collective>& all = plan.impl().plan.collectives;  // known to who planned
    return world->rank() != 0 ? -1 : std::count_if(all.begin(), all.end(), [](const tensor::Collective& one) {
      return one.op == "all_gather" && one.module == "first" && !one.backward;
    });
  };
  const auto by_layers = gathers({});
  const auto by_user = gathers({{"first", {TensorPin::Style::colwise}}});
  if (world->rank() == 0) {
    EXPECT_EQ(by_layers, 1);
    EXPECT_EQ(by_user, 0);
  }
}

// More parts than heads and words: the layers' wishes are no orders.
TEST(Ranks, LayersThatAreTooNarrowAreNoError) {
  struct Narrow : nn::Module {
    Narrow() : layer(register_module("layer", Parallel::column(8, 2, true, true))) {}
    ColumnParallelLinear layer;
  };
  const auto net = seeded<Narrow>(1);
  const Model model =
      Model::from_module(net, {{{"x", at::kFloat, {"batch", 8}}}, [](nn::Module& module, const Tensors& in) {
                                 return NamedTensors{{"y", module.as<Narrow>()->layer(in[0])}};
                               }});
  Engine engine(make_plan(model, *world, options(1)), *world);
  torch::manual_seed(4);
  const at::Tensor x = torch::randn({5, 8});
  const RunResult result = engine.run({{"x", x}});
  if (world->rank() == 0) {
    EXPECT_LE(distance(result.outputs.at(0).second, net->layer(x)), 1e-6);
  }
}

TEST(Ranks, Checkpoints) {
  const auto read = [](const std::filesystem::path& file) {
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [name, tensor] : read_tensors(file)) {
      tensors[name] = tensor;
    }
    return tensors;
  };
  const auto expected = read(folder / "whole.safetensors");
  const TensorParallel ranks(*world);
  const auto net = seeded<Block<Parallel>>(8);
  load_unsharded(*net, folder / "whole.safetensors");
  for (const auto& parameter : net->named_parameters()) {
    EXPECT_TRUE(parameter.value().requires_grad());
    EXPECT_TRUE(parameter.value().equal(piece_of(expected.at(parameter.key()), parameter.key(), *net)));
  }
  save_sharded(*net, folder / "parts");
  const auto other = seeded<Block<Parallel>>(9);
  EXPECT_FALSE(other->q->weight.equal(net->q->weight));
  load_sharded(*other, folder / "parts");
  for (const auto& parameter : net->named_parameters()) {
    EXPECT_TRUE(parameter.value().equal(other->named_parameters()[parameter.key()])) << parameter.key();
  }
  if (world->size() == 1) {
    return;
  }
  // Only one part is there, or is being written.
  const std::filesystem::path first = folder / ("first-of-" + std::to_string(world->size()));
  if (world->rank() == 0) {
    save_sharded(*net, first);
  } else {
    expect_error(ErrorCode::input, "there is no " + (first / "part-").string(), [&] { load_sharded(*other, first); });
  }
  // Heads that are cut otherwise.
  struct Cut : nn::Module {
    explicit Cut(int64_t unit) { layer = register_module("layer", Parallel::column(3, 10, true, false, unit)); }
    ColumnParallelLinear layer{nullptr};
  };
  save_sharded(Cut(1), folder / "cut");
  Cut cut(2);
  expect_error(ErrorCode::input, "\"layer.weight\" is divided along dimension 0 into ", [&] {
    load_sharded(cut, folder / "cut");
  });
}

TEST(Ranks, Refusals) {
  expect_error(ErrorCode::usage, "TensorParallel: 5 parts do not divide the", [] { TensorParallel(*world, 5); });
  expect_error(ErrorCode::usage, "TensorParallel: -1 parts do not divide the", [] { TensorParallel(*world, -1); });
  const TensorParallel alone(*world, 1);
  EXPECT_EQ(ColumnParallelLinear(4, 7)->weight.size(0), 7);
  if (world->size() == 1) {
    return;
  }
  std::shared_ptr<Block<Parallel>> net;
  {
    const TensorParallel ranks(*world);
    net = seeded<Block<Parallel>>(1);
    expect_error(ErrorCode::usage, "the input has shape [2, 20], its last dimension must be ", [&] {
      net->out(torch::zeros({2, 20}));
    });
    expect_error(ErrorCode::usage, "its last dimension must be 18", [&] { net->q(torch::zeros({2, 4})); });
    expect_error(ErrorCode::usage, "the logits have shape [2, 31], dimension 1 must be the ", [&] {
      parallel_cross_entropy(torch::zeros({2, 31}), torch::zeros({2}, at::kLong), *net->head);
    });
    expect_error(
        ErrorCode::usage, "is divided among " + std::to_string(world->size()) + " ranks already; Model::from_module",
        [&] { Model::from_module(net, signature()).impl().describe(ModelProgram::forward); });
    expect_error(ErrorCode::usage, "TensorParallel is another thread's", [&] {
      std::exception_ptr thrown;
      std::thread([&] {
        try {
          net->up(torch::zeros({2, 18}));
        } catch (...) {
          thrown = std::current_exception();
        }
      }).join();
      std::rethrow_exception(thrown);
    });
    if (world->size() == 4) {  // two groups of two
      struct Mixed : nn::Module {};
      Mixed mixed;
      mixed.register_module("four", net->q);
      const TensorParallel pair(*world, 2);
      const auto two = mixed.register_module("two", Parallel::column(3, 5, true, true));
      EXPECT_EQ(two->forward(torch::ones({1, 3})).size(1), 5);
      EXPECT_EQ(two->local_extent(), world->rank() % 2 == 0 ? 3 : 2);
      expect_error(ErrorCode::usage, "the module's layers are divided differently: \"two.weight\" is part ", [&] {
        save_sharded(mixed, folder / "mixed");
      });
    }
  }
  expect_error(ErrorCode::usage, "a layer of 26 elements is divided among", [&] { net->up(torch::zeros({2, 18})); });
  expect_error(ErrorCode::usage, "but its TensorParallel has ended; hint: keep", [&] { net->words(text()[0]); });
}

/// What a factory's module gives over pp x tp ranks.
int play_factory(int pp) {
  const Model model = Model::from_module([] { return std::make_shared<Block<Parallel>>(); }, signature(), /*seed=*/11);
  Engine engine(make_plan(model, *world, options(pp)), *world);
  const Tensors in = text();
  RunResult result = engine.run({{"ids", in[0]}, {"labels", in[1]}}, {.loss = "loss"});
  if (world->rank() == 0) {
    NamedTensors all = std::move(result.outputs);
    all.insert(all.end(), result.gradients.begin(), result.gradients.end());
    write_tensors(folder / ("factory-" + std::to_string(pp) + "-" + std::to_string(world->size() / pp)), all);
  }
  world->finish();
  return 0;
}

}  // namespace
}  // namespace shardpipe

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  at::set_num_threads(1);
  try {
    shardpipe::World world = shardpipe::World::from_environment(60);
    shardpipe::world = &world;
    shardpipe::folder = argv[1];
    if (const char* given = std::getenv("SHARDPIPE_TEST_DEVICE")) {
      shardpipe::device = given;
    }
    if (argc == 3) {
      return shardpipe::play_factory(std::atoi(argv[2]));
    }
    const int status = RUN_ALL_TESTS();
    world.finish();
    return status;
  } catch (const shardpipe::Error& error) {
    std::_Exit(shardpipe::fail(error));
  }
}
