// The forward programs against transformers: loads each folder that forward_reference.py made, runs its calls in one
// process, and compares all outputs and gradients: of the graph as traced and of the graph with Shardpipe's kernels.
// Encoder-decoders also step by step, through the program that generates.
//
//     forward_reference_tests FOLDER
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include <filesystem>

#include "base/file.h"
#include "checkpoint/folder.h"
#include "checkpoint/names.h"
#include "frontend/hf/model.h"
#include "graph/executor.h"
#include "kernels/choice.h"
#include "kernels/fuse.h"
#include "support/close.h"

namespace shardpipe {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

// The tensors of the reference under a prefix.
Tensors under(const checkpoint::Checkpoint& reference, const std::string& prefix) {
  Tensors result;
  for (const std::string& name : reference.names()) {
    if (name.starts_with(prefix)) {
      result.emplace(name.substr(prefix.size()), reference.tensor(name));
    }
  }
  return result;
}

double distance(const at::Tensor& a, const at::Tensor& exact) {
  return a.numel() == 0 ? 0.0 : (a.to(at::kDouble) - exact).abs().max().item<double>();
}

class WholeModel {
 public:
  WholeModel(
      const std::filesystem::path& folder,
      bool fused,
      hf::Program program = hf::Program::forward,
      const graph::Dimensions& state_sizes = {})
      : checkpoint_(checkpoint::Checkpoint::open_folder(folder)),
        model_(hf::load_folder_model(folder, std::nullopt, checkpoint_.get(), program)),
        executor_(fused ? kernels::fuse(model_.graph, kernels::default_choice(), model_.dtype) : model_.graph) {
    std::vector<checkpoint::WantedTensor> wanted;
    for (const graph::ValueId id : model_.graph.used_tensors()) {
      const graph::Value& value = model_.graph.values[static_cast<size_t>(id)];
      if (value.content.defined()) {
        executor_.set(id, value.content);
      } else if (value.kind == graph::ValueKind::state) {
        executor_.set(id, at::full(graph::evaluate(*value.shape, state_sizes), std::nan(""), *value.dtype));
      } else {
        wanted.push_back({value.name, graph::evaluate(*value.shape, {})});
      }
    }
    const checkpoint::Resolution found = checkpoint::resolve_names(*checkpoint_, wanted, model_.names);
    EXPECT_THAT(found.surplus, ::testing::IsEmpty());
    for (const auto& [name, source] : found.source) {
      // A clone: gradients need memory that may be written.
      parameters_.emplace(name, checkpoint_->load(source, model_.dtype).clone());
    }
  }

  const hf::FolderModel& model() const { return model_; }

  Tensors run(Tensors inputs) {
    for (const hf::OptionalInput& input : model_.optional_inputs) {
      if (!inputs.contains(input.name)) {
        inputs.emplace(input.name, at::full_like(inputs.at(input.like), input.value));
      }
    }
    for (const auto& [name, tensor] : parameters_) {
      executor_.set(model_.graph.find(name), tensor);
    }
    for (const auto& [name, tensor] : inputs) {
      executor_.set(model_.graph.find(name), tensor);
    }
    executor_.run();
    Tensors outputs;
    for (const auto& output : model_.graph.outputs) {
      outputs.emplace(output.name, executor_.get(output.value).toTensor());
    }
    return outputs;
  }

  // Gradients of sum(output * cotangent), under every name of a parameter.
  Tensors gradients(const Tensors& inputs, const Tensors& cotangents) {
    std::vector<std::string> names;
    std::vector<at::Tensor> leaves;
    for (auto& [name, tensor] : parameters_) {
      tensor.requires_grad_(true);
      names.push_back(name);
      leaves.push_back(tensor);
    }
    const Tensors outputs = run(inputs);
    at::Tensor loss = at::zeros({});
    for (const auto& [name, cotangent] : cotangents) {
      loss = loss + (outputs.at(name) * cotangent).sum();
    }
    const auto made = torch::autograd::grad({loss}, leaves, {}, std::nullopt, false, /*allow_unused=*/true);
    Tensors result;
    for (size_t i = 0; i < made.size(); ++i) {
      const at::Tensor gradient = made[i].defined() ? made[i] : at::zeros_like(leaves[i]);
      const graph::Value& value = model_.graph.values[static_cast<size_t>(model_.graph.find(names[i]))];
      result.emplace(names[i], gradient);
      for (const std::string& other : value.tied_names) {
        result.emplace(other, gradient);
      }
      leaves[i].requires_grad_(false);
    }
    return result;
  }

 private:
  std::shared_ptr<const checkpoint::Checkpoint> checkpoint_;
  hf::FolderModel model_;
  graph::Executor executor_;
  Tensors parameters_;
};

void compare_gradients(const checkpoint::Checkpoint& reference, WholeModel& whole) {
  const Tensors theirs = under(reference, "gradient.");
  const Tensors exact = under(reference, "exact_gradient.");
  const Tensors ours = whole.gradients(under(reference, "input.0."), under(reference, "cotangent."));
  // As for outputs, per parameter; a parameter of few elements may happen to be exact in transformers, so no bound is
  // below the relative error of the others. Relative to the largest gradient in its module: that of a key's bias is
  // zero but for the rounding of what it sums up, which is what the gradient of the key's weight sums up.
  std::map<std::string, double> sizes;
  const auto module_of = [](const std::string& name) { return name.substr(0, name.rfind('.')); };
  for (const auto& [name, tensor] : exact) {
    double& size = sizes[module_of(name)];
    size = std::max(size, tensor.abs().max().item<double>());
  }
  double relative = 0;
  for (const auto& [name, tensor] : exact) {
    if (const double size = sizes.at(module_of(name)); size > 0) {
      relative = std::max(relative, distance(theirs.at(name), tensor) / size);
    }
  }
  double worst = 0;
  for (const auto& [name, tensor] : exact) {
    SCOPED_TRACE(name);
    const auto found = ours.find(name);
    if (found == ours.end()) {
      // Not in the graph at all: no output depends on it.
      EXPECT_EQ(tensor.abs().max().item<double>(), 0.0);
      continue;
    }
    const double size = sizes.at(module_of(name));
    EXPECT_TRUE(test::close(found->second, tensor, at::full({}, 2 * relative * size, at::kDouble)));
    worst = std::max(worst, size > 0 ? distance(found->second, tensor) / size : 0.0);
  }
  fmt::print("  gradients: relative error {:.3g}, transformers' {:.3g}\n", worst, relative);
}

// A call's logits by the program that generates: rows packed, without padding, in reverse; the sources and the first
// tokens of the decoder in the first step, then one token a row. [rows, decoder length, vocabulary].
at::Tensor generated(const std::filesystem::path& folder, bool fused, const Tensors& inputs, int64_t first_tokens) {
  const at::Tensor& ids = inputs.at("input_ids");
  const at::Tensor& decoder_ids = inputs.at("decoder_input_ids");
  const int64_t rows = ids.size(0);
  const int64_t length = decoder_ids.size(1);
  WholeModel whole(
      folder, fused, hf::Program::generation,
      {{"slots", rows}, {"capacity", length}, {"source_capacity", ids.size(1)}});
  const auto of_rows = [&](auto part) {
    std::vector<at::Tensor> parts;
    for (int64_t row = rows; row-- > 0;) {
      parts.push_back(part(row));
    }
    return at::cat(parts);
  };
  const auto mask = inputs.find("attention_mask");
  const at::Tensor lengths = mask == inputs.end() ? at::full({rows}, ids.size(1), at::kLong) : mask->second.sum(1);
  const auto source = [&](auto of_row) {
    return of_rows([&](int64_t row) { return of_row(row, lengths[row].item<int64_t>()); });
  };
  const auto slots_of = [](int64_t row, int64_t count) { return at::full({count}, row, at::kLong); };
  Tensors step = {
      {"source_ids", source([&](int64_t row, int64_t count) { return ids[row].narrow(0, 0, count); })},
      {"source_positions", source([](int64_t, int64_t count) { return at::arange(count, at::kLong); })},
      {"source_slots", source(slots_of)},
      {"source_lengths", lengths}};
  std::vector<at::Tensor> logits;
  for (int64_t at = 0; at < length;) {
    const int64_t count = at == 0 ? std::min(first_tokens, length) : 1;
    step["input_ids"] = of_rows([&](int64_t row) { return decoder_ids[row].narrow(0, at, count); });
    step["positions"] = of_rows([&](int64_t) { return at::arange(at, at + count, at::kLong); });
    step["slots"] = of_rows([&](int64_t row) { return slots_of(row, count); });
    step["selected"] = at::arange(rows * count, at::kLong);
    logits.push_back(whole.run(step).at("logits").view({rows, count, -1}).flip(0));
    step["source_ids"] = step["source_positions"] = step["source_slots"] = at::empty({0}, at::kLong);
    at += count;
  }
  return at::cat(logits, 1);
}

void compare(const std::filesystem::path& made, bool fused) {
  const bool elsewhere = std::filesystem::exists(made / "folder");
  const std::filesystem::path folder = elsewhere ? std::filesystem::path(read_file(made / "folder")) : made;
  const auto reference = checkpoint::Checkpoint::open_file(made / "forward.safetensors");
  WholeModel whole(folder, fused);
  // How far rounding takes this model in this dtype is measured by transformers' own distance from float64. Another
  // order of the same operations errs by as much: the largest of that many errors stays below twice the largest.
  std::map<std::string, double> errors;
  std::vector<Tensors> outputs;
  for (int call = 0;; ++call) {
    const Tensors inputs = under(*reference, fmt::format("input.{}.", call));
    if (inputs.empty()) {
      break;
    }
    const at::NoGradGuard no_grad;
    outputs.push_back(whole.run(inputs));
    for (const auto& [name, theirs] : under(*reference, fmt::format("output.{}.", call))) {
      const at::Tensor exact = reference->tensor(fmt::format("exact.{}.{}", call, name));
      errors[name] = std::max(errors[name], distance(theirs, exact));
    }
  }
  ASSERT_FALSE(outputs.empty());
  std::map<std::string, double> worst;
  for (size_t call = 0; call < outputs.size(); ++call) {
    EXPECT_EQ(outputs[call].size(), errors.size());
    for (const auto& [name, error] : errors) {
      SCOPED_TRACE(fmt::format("{} call {} {}", fused ? "fused" : "traced", call, name));
      ASSERT_TRUE(outputs[call].contains(name));
      const at::Tensor ours = outputs[call].at(name);
      const at::Tensor exact = reference->tensor(fmt::format("exact.{}.{}", call, name));
      EXPECT_EQ(ours.scalar_type(), whole.model().dtype);
      EXPECT_TRUE(test::close(ours, exact, at::full({}, 2 * error, at::kDouble)));
      worst[name] = std::max(worst[name], distance(ours, exact));
    }
  }
  for (const auto& [name, error] : errors) {
    fmt::print(
        "{} {} {}: error {:.3g}, transformers' {:.3g}\n", made.filename().string(), fused ? "fused" : "traced", name,
        worst[name], error);
  }
  for (size_t call = 0; call < outputs.size() && whole.model().encoder_decoder; ++call) {
    const Tensors inputs = under(*reference, fmt::format("input.{}.", call));
    if (inputs.contains("decoder_attention_mask")) {
      continue;
    }
    SCOPED_TRACE(fmt::format("{} call {} generated", fused ? "fused" : "traced", call));
    const at::NoGradGuard no_grad;
    const at::Tensor exact = reference->tensor(fmt::format("exact.{}.logits", call));
    for (const int64_t first_tokens : {1, 5, 20}) {
      const at::Tensor ours = generated(folder, fused, inputs, first_tokens);
      EXPECT_TRUE(test::close(ours, exact, at::full({}, 2 * errors.at("logits"), at::kDouble)));
      worst["generated"] = std::max(worst["generated"], distance(ours, exact));
    }
  }
  if (worst.contains("generated")) {
    fmt::print("  generated: error {:.3g}\n", worst["generated"]);
  }
  if (whole.model().dtype == at::kFloat && !fused) {
    compare_gradients(*reference, whole);
  }
}

class Comparison : public ::testing::Test {
 public:
  explicit Comparison(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void TestBody() override {
    compare(folder_, /*fused=*/false);
    compare(folder_, /*fused=*/true);
  }

 private:
  std::filesystem::path folder_;
};

}  // namespace
}  // namespace shardpipe

namespace {

int run(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    fmt::print(stderr, "usage: forward_reference_tests FOLDER\n");
    return 2;
  }
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    const std::filesystem::path& folder = entry.path();
    if (std::filesystem::exists(folder / "forward.safetensors")) {
      ::testing::RegisterTest(
          "ForwardAgainstTransformers", folder.filename().c_str(), nullptr, nullptr, __FILE__, __LINE__,
          [folder]() -> ::testing::Test* { return new shardpipe::Comparison(folder); });
      ++found;
    }
  }
  if (found == 0) {
    fmt::print(stderr, "no reference in {}\n", argv[1]);
    return 1;
  }
  return RUN_ALL_TESTS();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
