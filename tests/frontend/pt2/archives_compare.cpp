// Archives of export_models.py: what the loader says of them, weights beside them, refused inputs, damaged bytes.
#include <gmock/gmock.h>

#include <fstream>
#include <random>

#include "base/file.h"
#include "frontend/pt2/hand_made.h"
#include "frontend/pt2/run_exported.h"
#include "graph/fuzz.h"
#include "graph/text.h"
#include "partition/layers.h"
#include "support/errors.h"

namespace shardpipe::pt2 {
namespace {

using test::expect_error;
using test::reference_folder;
using test::Tensors;
using testing::ElementsAre;

ExportedModel load(const std::string& name) {
  return load_exported(reference_folder / name / "model.pt2");
}

std::vector<std::string> names_of(const std::vector<graph::Output>& outputs) {
  std::vector<std::string> names;
  for (const graph::Output& output : outputs) {
    names.push_back(output.name);
  }
  return names;
}

TEST(Archive, NamesInputsOutputsAndDimensions) {
  const ExportedModel nested = load("nested");
  std::vector<std::string> inputs;
  for (const ExportedInput& input : nested.inputs) {
    inputs.push_back(input.name);
  }
  EXPECT_THAT(inputs, ElementsAre("batch.x", "batch.more.y", "extra.0", "extra.1"));
  EXPECT_THAT(
      names_of(nested.graph.outputs),
      ElementsAre("loss", "pair.0", "pair.1.0", "pair.1.2", "pair.1.3", "pair.1.5", "where", "count", "half"));
  EXPECT_THAT(nested.graph.dimensions, ElementsAre("batch_x_dim0"));
  std::vector<std::string> constants;
  for (const ConstantInput& input : nested.constant_inputs) {
    constants.push_back(input.name);
  }
  EXPECT_THAT(constants, ElementsAre("factor", "flag", "mode"));

  const ExportedModel gpt2 = load("gpt2_loss_dropout");
  EXPECT_THAT(names_of(gpt2.graph.outputs), ElementsAre("loss", "logits"));
  EXPECT_THAT(gpt2.graph.dimensions, ElementsAre("input_ids_dim0", "input_ids_dim1"));
  const graph::Value& tied = gpt2.graph.values[static_cast<size_t>(gpt2.graph.find("lm_head.weight"))];
  EXPECT_EQ(tied.name, "transformer.wte.weight");
  EXPECT_THAT(tied.tied_names, ElementsAre("lm_head.weight"));
  EXPECT_THAT(names_of(load("pippy").graph.outputs), ElementsAre("0", "1", "2"));
  EXPECT_THAT(names_of(load("mlp").graph.outputs), ElementsAre("0"));
  EXPECT_THAT(names_of(load("lstm").graph.outputs), ElementsAre("tags", "state.h", "state.c", "best"));
  EXPECT_THAT(load("mlp").frozen, ElementsAre("scale"));
}

TEST(Archive, FindsLayersByTheirModules) {
  const ExportedModel llama = load("llama");
  const partition::Layers layers = partition::find_layers(llama.graph);
  EXPECT_EQ(layers.class_name, "LlamaDecoderLayer");
  EXPECT_THAT(layers.paths, ElementsAre("model.layers.0", "model.layers.1", "model.layers.2"));
  EXPECT_EQ(partition::find_layers(load("bert").graph).class_name, "BertLayer");
  EXPECT_EQ(partition::find_layers(load("mlp").graph).paths.size(), 3u);
  EXPECT_EQ(partition::find_layers(load("resnet_train").graph).class_name, "Block");
  // Each layer is one run of nodes.
  std::vector<std::string> order;
  for (const graph::Node& node : llama.graph.nodes) {
    for (const std::string& path : layers.paths) {
      if (partition::inside(node.module, path) && (order.empty() || order.back() != path)) {
        order.push_back(path);
      }
    }
  }
  EXPECT_EQ(order, layers.paths);
  for (const graph::Node& node : llama.graph.nodes) {
    EXPECT_FALSE(node.op && node.op->operator_name().name.starts_with("aten::_assert")) << node.op_name();
  }
}

TEST(Archive, KeepsStatesRegionsAndWrappedNumbers) {
  const ExportedModel train = load("resnet_train");
  EXPECT_EQ(
      train.graph.values[static_cast<size_t>(train.graph.find("stem.1.running_mean"))].kind, graph::ValueKind::state);
  EXPECT_TRUE(train.graph.updates.empty());
  const ExportedModel decomposed = load("resnet_train_decomposed");
  EXPECT_EQ(decomposed.graph.updates.size(), 21u);
  const ExportedModel eval = load("resnet_eval");
  EXPECT_EQ(
      eval.graph.values[static_cast<size_t>(eval.graph.find("stem.1.running_mean"))].kind, graph::ValueKind::buffer);
  const ExportedModel mutating = load("mutating");
  for (const char* name : {"steps", "mean", "cache"}) {
    EXPECT_EQ(mutating.graph.values[static_cast<size_t>(mutating.graph.find(name))].kind, graph::ValueKind::state)
        << name;
  }
  EXPECT_EQ(mutating.graph.nodes.front().op_name(), "aten::clone");
  const std::string text = graph::print(load("regions").graph);
  EXPECT_NE(text.find(" autocast(bfloat16, true, false, 0)"), std::string::npos) << text;
  EXPECT_NE(text.find(" autocast(bfloat16, false, false, 0)"), std::string::npos);
  EXPECT_NE(text.find(" autocast(bfloat16, true, false, 1)"), std::string::npos);
  EXPECT_NE(text.find(" no_grad in \"c\""), std::string::npos);
  EXPECT_EQ(text.find(" autocast(float16"), std::string::npos) << "a region of another device does nothing";
}

TEST(Archive, IsACheckpoint) {
  const ExportedModel model = load("llama");
  const auto archive = checkpoint::Checkpoint::open(model.path);
  EXPECT_EQ(archive->names().size(), 32u);
  EXPECT_EQ(archive->info("lm_head.weight").shape, (std::vector<int64_t>{64, 32}));
  EXPECT_THAT(archive->opened_files(), ElementsAre(model.path));
}

TEST(Archive, WeightsBesideIt) {
  const auto folder = reference_folder / "special";
  const ExportedModel model = load_exported(folder / "meta.pt2");
  EXPECT_GT(model.without_data.size(), 20u);
  expect_error(ErrorCode::input, "give them with --weights DIR", [&] { find_weights(model, nullptr); });
  const auto beside = checkpoint::Checkpoint::open(folder / "weights");
  const auto reference = checkpoint::SafetensorsFile::open(folder / "weights.safetensors");
  const Tensors inputs = {{"input_ids", reference->tensor("in.input_ids")}};
  const test::ExportedRun run = test::run_exported(model.graph, inputs, test::load_tensors(model, beside.get()), false);
  EXPECT_TRUE(at::equal(run.outputs.at("logits"), reference->tensor("out.logits")));
  // The rotary frequencies of llama are in no checkpoint.
  const ExportedModel llama = load_exported(folder / "fake.pt2");
  const auto weights = checkpoint::Checkpoint::open(folder / "llama_weights");
  expect_error(ErrorCode::input, "\"model.rotary_emb.inv_freq\"; hint: non-persistent buffers", [&] {
    find_weights(llama, weights.get());
  });
}

TEST(Archive, NamesAnUnknownOperatorWithItsModule) {
  expect_error(ErrorCode::input, "LibTorch has no operator torch.ops.ours.twice.default (node twice of \"\")", [] {
    load_exported(reference_folder / "special" / "custom_op.pt2");
  });
}

TEST(Archive, DamagedBytesAreRefusedOrLoaded) {
  const std::string valid = read_file(reference_folder / "cond_true" / "model.pt2");
  const test::TestFile file("");
  int accepted = 0;
  const int count = test::fuzz_count(400);
  for (int seed = 0; seed < count; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::string bytes = valid;
    for (size_t edits = 1 + test::draw(random, 4); edits-- > 0;) {
      bytes[test::draw(random, bytes.size())] = static_cast<char>(test::draw(random, 256));
    }
    if (test::draw(random, 4) == 0) {
      bytes.resize(test::draw(random, bytes.size()));
    }
    file.write(bytes);
    try {
      load_exported(file.path());
      ++accepted;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::input) << error.what();
    }
  }
  EXPECT_GT(accepted, count / 50);
  EXPECT_LT(accepted, count);
}

TEST(Archive, ChecksInputs) {
  const ExportedModel model = load("llama");
  const at::Tensor ids = at::zeros({2, 6}, at::kLong);
  const graph::Dimensions dimensions = check_inputs(model, {{"input_ids", ids}});
  EXPECT_EQ(dimensions, (graph::Dimensions{{"input_ids_dim0", 2}, {"input_ids_dim1", 6}}));
  const auto refused = [&](const ExportedModel& program, const Tensors& inputs, const std::string& part) {
    expect_error(ErrorCode::usage, part, [&] { check_inputs(program, inputs); });
  };
  refused(model, {}, "the input \"input_ids\" is missing");
  refused(
      model, {{"input_ids", ids}, {"mask", ids}}, "the program has no input \"mask\"; hint: it takes \"input_ids\"");
  refused(
      model, {{"input_ids", ids}, {"use_cache", ids}}, "the input \"use_cache\" is a constant of the exported program");
  refused(model, {{"input_ids", ids.to(at::kInt)}}, "the input \"input_ids\" is int32, the program takes int64");
  refused(
      model, {{"input_ids", ids[0]}}, "has 1 dimensions ([6]), the program takes 2 ([input_ids_dim0, input_ids_dim1])");
  refused(
      model, {{"input_ids", at::zeros({17, 6}, at::kLong)}},
      "dimension 0 of the input \"input_ids\" is 17, the program was exported for input_ids_dim0 from 1 to 16");
  refused(
      model, {{"input_ids", at::zeros({1, 1}, at::kLong)}},
      "dimension 1 of the input \"input_ids\" is 1, the program was exported for input_ids_dim1 from 2 to 32");
  const ExportedModel bert = load("bert");
  refused(
      bert, {{"input_ids", ids}, {"attention_mask", at::ones({2, 5}, at::kLong)}},
      "dimension 1 of the input \"attention_mask\" is 5, it must be 6 (input_ids_dim1)");
  refused(
      load("mlp"), {{"x", at::zeros({2, 15})}},
      "dimension 1 of the input \"x\" is 15, the program was exported for 16");
  const ExportedModel derived = load("derived");
  refused(
      derived, {{"x", at::zeros({4, 4})}, {"y", at::zeros({7, 4})}, {"z", at::zeros({5})}},
      "dimension 0 of the input \"y\" is 7, it must be 8 (2*x_dim0)");
  refused(
      derived, {{"x", at::zeros({4, 4})}, {"y", at::zeros({8, 4})}, {"z", at::zeros({4})}},
      "dimension 0 of the input \"z\" is 4, it must be 5 (x_dim0+1)");
}

}  // namespace
}  // namespace shardpipe::pt2
