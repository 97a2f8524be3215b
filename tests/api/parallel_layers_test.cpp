// Parallel layers on 1, 2, 3 and 4 ranks in processes of their own (layers_player.cpp), and what they say of wrong
// requests and checkpoints.
#include "shardpipe/parallel_layers.h"

#include <gtest/gtest.h>

#include "api/parallel_nets.h"
#include "base/file.h"
#include "frontend/hf/model_folder.h"
#include "shardpipe/tensors.h"
#include "support/errors.h"

namespace shardpipe {
namespace {

namespace nn = torch::nn;
using test::Block;
using test::expect_error;
using test::Parallel;
using test::Plain;
using test::seeded;

NamedTensors named(const torch::nn::Module& module, const std::string& prefix = "") {
  NamedTensors tensors;
  for (const auto& parameter : module.named_parameters()) {
    tensors.emplace_back(prefix + parameter.key(), parameter.value().detach());
  }
  return tensors;
}

int play(int ranks, std::vector<std::string> arguments) {
  LaunchOptions options;
  options.nproc = ranks;
  options.arguments = {SHARDPIPE_LAYERS_PLAYER};
  options.arguments.insert(options.arguments.end(), arguments.begin(), arguments.end());
  return launch(options);
}

class ParallelLayers : public testing::Test {
 protected:
  ParallelLayers() { write_tensors(path("whole.safetensors"), named(*seeded<Block<Plain>>(7))); }
  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }

  test::ModelFolder folder_;
};

TEST_F(ParallelLayers, OnSeveralRanks) {
  for (const int ranks : {1, 2, 3}) {
    EXPECT_EQ(play(ranks, {path("").string(), "--gtest_brief=1"}), 0) << ranks;
  }
  EXPECT_EQ(play(4, {path("").string(), "--gtest_brief=1", "--gtest_filter=*Refusals"}), 0);
  // Those of 1 and 2 are gone.
  const auto net = seeded<Block<Parallel>>(1);
  expect_error(ErrorCode::input, "parts was saved in 3 parts, the module has 1; hint: divide the module among 3", [&] {
    load_sharded(*net, path("parts"));
  });
}

// Of a module made by a factory, whatever the layout.
TEST_F(ParallelLayers, InitialValuesOfAFactoryDoNotDependOnTheLayout) {
  const auto read = [&](int pp, int tp) {
    EXPECT_EQ(play(pp * tp, {path("").string(), std::to_string(pp)}), 0) << pp << " x " << tp;
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [name, tensor] : read_tensors(path(fmt::format("factory-{}-{}", pp, tp)))) {
      tensors[name] = tensor;
    }
    return tensors;
  };
  const auto alone = read(1, 1);
  EXPECT_GT(alone.at("h").abs().max().item<double>(), 0.1);
  EXPECT_EQ(alone.size(), 2U + 16U);
  for (const auto& [pp, tp] : {std::pair(1, 2), {1, 3}, {2, 2}}) {
    const auto divided = read(pp, tp);
    ASSERT_EQ(divided.size(), alone.size());
    for (const auto& [name, tensor] : divided) {
      const double size = alone.at(name).abs().max().item<double>();
      EXPECT_LE((tensor - alone.at(name)).abs().max().item<double>(), 2e-6 * std::max(1.0, size)) << name;
    }
  }
}

TEST_F(ParallelLayers, LoadsWholeCheckpoints) {
  const auto plain = seeded<Block<Plain>>(7);
  const auto net = seeded<Block<Parallel>>(1);
  const auto expect_loaded = [&] {
    for (const auto& [name, tensor] : named(*plain)) {
      EXPECT_TRUE(net->named_parameters()[name].equal(tensor)) << name;
    }
    const torch::NoGradGuard no_grad;
    net->q->weight.zero_();
  };
  load_unsharded(*net, path("whole.safetensors"));
  expect_loaded();
  // A folder with an index.
  NamedTensors rest = named(*plain);
  const std::pair<std::string, at::Tensor> last = rest.back();
  rest.pop_back();
  write_tensors(path("a.safetensors"), rest);
  write_tensors(path("b.safetensors"), {last});
  Json index;
  for (const auto& [name, tensor] : rest) {
    index["weight_map"][name] = "a.safetensors";
  }
  index["weight_map"][last.first] = "b.safetensors";
  write_file(path("model.safetensors.index.json"), index.dump());
  load_unsharded(*net, path(""));
  expect_loaded();
  NamedTensors more = named(*plain, "net.");
  more.emplace_back("optimizer", at::ones({1}));
  write_tensors(path("more.safetensors"), more);
  load_unsharded(*net, path("more.safetensors"), {"net."});
  expect_loaded();
  more.emplace_back("net.rest", at::ones({1}));
  write_tensors(path("more.safetensors"), more);
  expect_error(
      ErrorCode::input,
      "more.safetensors has tensors that the module does not have: \"net.rest\"; hint: LoadOptions::allow_unexpected",
      [&] { load_unsharded(*net, path("more.safetensors"), {"net."}); });
  load_unsharded(*net, path("more.safetensors"), {"net.", true});
  expect_loaded();
  expect_error(
      ErrorCode::input,
      "\"words.weight\" of the module is missing in " + path("more.safetensors").string() + "; its 18",
      [&] { load_unsharded(*net, path("more.safetensors")); });
  NamedTensors odd = named(*plain);
  odd.back().second = at::ones({2, 3});
  write_tensors(path("odd.safetensors"), odd);
  expect_error(
      ErrorCode::input,
      "\"head.weight\" has shape [2, 3] in " + path("odd.safetensors").string() +
          ", the module's \"head.weight\" has shape [31, 18]",
      [&] { load_unsharded(*net, path("odd.safetensors")); });
  EXPECT_EQ(net->q->weight.abs().max().item<double>(), 0);  // nothing has changed
  expect_error(ErrorCode::input, "no checkpoint at", [&] { load_unsharded(*net, path("nothing")); });
  nn::Module nothing;
  nothing.register_parameter("weight", torch::empty({2}, at::kMeta));
  expect_error(ErrorCode::usage, "\"weight\" of the module is on meta, which holds no values", [&] {
    load_unsharded(nothing, path("whole.safetensors"));
  });
}

// One tensor under two names, buffers, another dtype.
TEST_F(ParallelLayers, TiedTensorsAndBuffers) {
  struct Tied : nn::Module {
    Tied() {
      words = register_module("words", Parallel::embedding(6, 4));
      register_module("head", words.ptr());
      norm = register_module("norm", nn::BatchNorm1d(4));
    }
    VocabParallelEmbedding words{nullptr};
    nn::BatchNorm1d norm{nullptr};
  };
  const auto net = seeded<Tied>(1);
  NamedTensors one;
  for (const auto& [name, tensor] : named(*net)) {
    if (name != "words.weight") {
      one.emplace_back(name, torch::rand_like(tensor).to(at::kHalf));
    }
  }
  for (const auto& buffer : net->named_buffers()) {
    one.emplace_back(buffer.key(), at::ones_like(buffer.value()) * 3);
  }
  write_tensors(path("one"), one);
  load_unsharded(*net, path("one"));
  EXPECT_EQ(one.at(0).first, "head.weight");
  EXPECT_TRUE(net->words->weight.equal(one.at(0).second.to(at::kFloat)));
  EXPECT_EQ(net->norm->num_batches_tracked.item<int64_t>(), 3);
  save_sharded(*net, path("whole"));
  const auto other = seeded<Tied>(2);
  load_sharded(*other, path("whole"));
  EXPECT_TRUE(other->words->weight.equal(net->words->weight));
  EXPECT_EQ(other->norm->running_var[0].item<float>(), 3);
}

TEST_F(ParallelLayers, SaysWhatIsWrongWithParts) {
  const auto net = seeded<Block<Parallel>>(1);
  const auto load = [&](const std::string& name) { return [&, name] { load_sharded(*net, path(name)); }; };
  expect_error(
      ErrorCode::input, "there is no " + path("none/part-0-of-1.safetensors").string() + "; hint: save_sharded()",
      load("none"));
  save_sharded(*net, path("saved"));
  const std::filesystem::path file = path("saved/part-0-of-1.safetensors");
  load("saved")();
  const std::string good = read_file(file);
  const auto change = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    ASSERT_EQ(from.size(), to.size());
    ASSERT_NE(text.find(from), std::string::npos) << from;
    write_file(file, text.replace(text.find(from), from.size(), to));
  };
  change("shardpipe.part", "shardpipe.past");
  expect_error(ErrorCode::input, "is no part that save_sharded() wrote", load("saved"));
  change("parts\\\":1", "parts\\\":2");
  expect_error(ErrorCode::input, "part-0-of-1.safetensors says that it is part 0 of 2", load("saved"));
  change("parts\\\":1", "parts\\\":[");
  expect_error(ErrorCode::input, "part-0-of-1.safetensors", load("saved"));
  change("\\\"parts\\\":1", "\\\"ports\\\":1");
  expect_error(ErrorCode::input, "part-0-of-1.safetensors is damaged: it describes itself as {", load("saved"));
  change("\"norm.bias\"", "\"norm.bios\"");
  expect_error(ErrorCode::input, "\"norm.bias\" of the module is missing in", load("saved"));
  change("\\\"q.bias\\\":null", "\\\"q.bias\\\":true");
  expect_error(ErrorCode::input, "part-0-of-1.safetensors is damaged: how \"q.bias\" is divided", load("saved"));
  write_file(file, good);
  struct Wider : nn::Module {
    explicit Wider(int64_t in) { layer = register_module("layer", Parallel::column(in, 4, false, true)); }
    ColumnParallelLinear layer{nullptr};
  };
  save_sharded(Wider(3), path("wider"));
  Wider wider(2);
  expect_error(
      ErrorCode::input,
      "\"layer.weight\" has shape [4, 3] in " + path("wider/part-0-of-1.safetensors").string() +
          ", the module's piece of \"layer.weight\" has shape [4, 2]",
      [&] { load_sharded(wider, path("wider")); });
  write_file(file, good.substr(0, good.size() - 4));
  expect_error(ErrorCode::input, file.string(), load("saved"));
  write_file(path("file"), "");
  expect_error(
      ErrorCode::io, "cannot make the folder " + path("file/x").string(), [&] { save_sharded(*net, path("file/x")); });
}

TEST(ParallelLayersOptions, AreChecked) {
  expect_error(
      ErrorCode::usage, "has 0 output features in units of 1, must be at least 1", [] { ColumnParallelLinear(3, 0); });
  expect_error(ErrorCode::usage, "has 10 output features, which is no multiple of its unit of 4", [] {
    Parallel::column(3, 10, true, true, 4);
  });
  expect_error(ErrorCode::usage, "has -2 input features", [] { RowParallelLinear(-2, 3); });
  expect_error(
      ErrorCode::usage, "RowParallelLinear: out_features is 0, must be at least 1", [] { RowParallelLinear(3, 0); });
  expect_error(ErrorCode::usage, "ColumnParallelLinear: in_features is 0", [] { ColumnParallelLinear(0, 3); });
  expect_error(ErrorCode::usage, "VocabParallelEmbedding: embedding_dim is 0", [] { VocabParallelEmbedding(3, 0); });
  expect_error(ErrorCode::usage, "VocabParallelEmbedding: padding_idx is 3, there are 3 rows", [] {
    Parallel::embedding(3, 2, 3);
  });
  expect_error(ErrorCode::usage, "RowParallelLinear: the input has shape [2, 4], its last dimension must be 3", [] {
    RowParallelLinear(3, 2)->forward(at::ones({2, 4}));
  });
  expect_error(ErrorCode::usage, "VocabParallelEmbedding: the input has shape [], its last", [] {
    VocabParallelEmbedding(3, 2)->logits(at::ones({}));
  });
  expect_error(
      ErrorCode::usage, "the logits have shape [2, 4], dimension 1 must be the 3 classes of the head's output", [] {
        parallel_cross_entropy(at::ones({2, 4}), at::zeros({2}, at::kLong), *VocabParallelEmbedding(3, 2));
      });
  EXPECT_EQ(local_count(5), 5);
  EXPECT_EQ(
      c10::str(Parallel::column(3, 10, true, false)),
      "shardpipe::ColumnParallelLinear(in_features=3, out_features=10, bias=true, gather_output=false, part=0 of 1)");
  EXPECT_EQ(
      c10::str(Parallel::row(3, 10, true, false)),
      "shardpipe::RowParallelLinear(in_features=3, out_features=10, bias=true, input_is_parallel=false, part=0 of 1)");
  EXPECT_EQ(
      c10::str(Parallel::embedding(3, 10)),
      "shardpipe::VocabParallelEmbedding(num_embeddings=3, embedding_dim=10, part=0 of 1)");
}

}  // namespace
}  // namespace shardpipe
