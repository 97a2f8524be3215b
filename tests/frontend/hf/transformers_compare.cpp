// The traced families against transformers: loads each folder that reference.py made, runs its rows packed together in
// one process with caches (prompts of different length at once, then token by token), and compares all logits: of the
// graph as traced and of the graph with Shardpipe's kernels. Then a batch through the plain programs, and its
// gradients.
//
//     hf_reference_tests FOLDER
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/file.h"
#include "checkpoint/folder.h"
#include "checkpoint/names.h"
#include "frontend/hf/model.h"
#include "graph/executor.h"
#include "kernels/choice.h"
#include "kernels/fuse.h"
#include "kernels/ops.h"
#include "support/close.h"
#include "support/reference_main.h"

namespace shardpipe {
namespace {

constexpr int64_t kCapacity = 128;

struct Row {
  at::Tensor prompt;     // int64 [length]
  at::Tensor generated;  // int64 [steps]
  at::Tensor logits;     // transformers', float32 [length + steps, vocab]
  at::Tensor exact;      // float64
};

std::vector<Row> read_rows(const checkpoint::Checkpoint& reference) {
  std::vector<Row> rows;
  for (int i = 0; reference.contains(fmt::format("prompt.{}", i)); ++i) {
    const auto tensor = [&](const char* what) { return reference.tensor(fmt::format("{}.{}", what, i)); };
    rows.push_back({tensor("prompt"), tensor("generated"), tensor("logits"), tensor("exact")});
  }
  return rows;
}

// The whole model in one process.
class LoadedModel {
 public:
  LoadedModel(
      const std::filesystem::path& folder, hf::Program program, bool fused, const graph::Dimensions& state_sizes = {})
      : checkpoint_(checkpoint::Checkpoint::open_folder(folder)),
        model_(hf::load_folder_model(folder, std::nullopt, checkpoint_.get(), program)),
        executor_(fused ? kernels::fuse(model_.graph, kernels::default_choice(), model_.dtype) : model_.graph) {
    std::vector<checkpoint::WantedTensor> wanted;
    const graph::Dimensions none;
    for (const graph::ValueId id : model_.graph.used_tensors()) {
      const graph::Value& value = model_.graph.values[static_cast<size_t>(id)];
      if (value.content.defined()) {
        executor_.set(id, value.content);
      } else if (value.kind == graph::ValueKind::state) {
        executor_.set(id, at::full(graph::evaluate(*value.shape, state_sizes), std::nan(""), *value.dtype));
      } else {
        wanted.push_back({value.name, graph::evaluate(*value.shape, none)});
      }
    }
    const checkpoint::Resolution found = checkpoint::resolve_names(*checkpoint_, wanted, model_.names);
    EXPECT_THAT(found.surplus, ::testing::IsEmpty());
    for (const auto& [name, source] : found.source) {
      parameters_[name] = checkpoint_->load(source, model_.dtype);
      executor_.set(model_.graph.find(name), parameters_.at(name));
    }
  }

  const hf::FolderModel& model() const { return model_; }
  std::map<std::string, at::Tensor>& parameters() { return parameters_; }

  at::Tensor run(const std::vector<at::Tensor>& inputs) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      executor_.set(model_.graph.inputs[i], inputs[i]);
    }
    executor_.run();
    at::Tensor logits = executor_.get(model_.graph.outputs[0].value).toTensor();
    EXPECT_EQ(logits.scalar_type(), model_.dtype);
    return logits;
  }

 private:
  std::shared_ptr<const checkpoint::Checkpoint> checkpoint_;
  hf::FolderModel model_;
  graph::Executor executor_;
  std::map<std::string, at::Tensor> parameters_;  // by the graph's names
};

// The packed program. Row i has cache row slot(i).
class WholeModel : public LoadedModel {
 public:
  WholeModel(const std::filesystem::path& folder, int64_t rows, bool fused)
      : LoadedModel(folder, hf::Program::generation, fused, {{"slots", rows + 1}, {"capacity", kCapacity}}),
        num_rows_(rows) {}

  // Rows run in reverse, so that no row sits where it would by accident.
  int64_t slot(size_t row) const { return num_rows_ - static_cast<int64_t>(row); }

  // Logits of every token: ids[i] are the next tokens of row i.
  std::vector<at::Tensor> step(const std::vector<at::Tensor>& ids, const std::vector<int64_t>& starts) {
    std::vector<at::Tensor> positions;
    std::vector<at::Tensor> slots;
    for (size_t i = 0; i < ids.size(); ++i) {
      positions.push_back(at::arange(starts[i], starts[i] + ids[i].size(0)));
      slots.push_back(at::full({ids[i].size(0)}, slot(i), at::kLong));
    }
    const at::Tensor packed = at::cat(ids);
    // Every token's logits, last one first: "selected" picks and orders.
    const at::Tensor selected = at::arange(packed.size(0)).flip(0);
    const at::Tensor logits = run({packed, at::cat(positions), at::cat(slots), selected}).flip(0);
    std::vector<at::Tensor> result;
    int64_t begin = 0;
    for (const at::Tensor& row : ids) {
      result.push_back(logits.narrow(0, begin, row.size(0)));
      begin += row.size(0);
    }
    return result;
  }

 private:
  int64_t num_rows_;
};

std::vector<at::Tensor> all_logits(WholeModel& whole, const std::vector<Row>& rows) {
  std::vector<at::Tensor> ids;
  std::vector<int64_t> starts;
  for (const Row& row : rows) {
    ids.push_back(row.prompt);
    starts.push_back(0);
  }
  std::vector<std::vector<at::Tensor>> parts(rows.size());
  for (int64_t step = 0; step <= rows[0].generated.size(0); ++step) {
    const std::vector<at::Tensor> logits = whole.step(ids, starts);
    for (size_t i = 0; i < rows.size(); ++i) {
      parts[i].push_back(logits[i]);
      starts[i] = rows[i].prompt.size(0) + step;
      if (step < rows[i].generated.size(0)) {
        ids[i] = rows[i].generated.narrow(0, step, 1);
      }
    }
  }
  std::vector<at::Tensor> result;
  for (const auto& row : parts) {
    result.push_back(at::cat(row));
  }
  return result;
}

at::Tensor distance(const at::Tensor& logits, const at::Tensor& exact) {
  return (logits.to(at::kDouble) - exact).abs();
}

// Greedy tokens: those of transformers, but where the model tells the best two apart by less than `least_margin`.
void compare_tokens(const Row& row, const at::Tensor& logits, double least_margin) {
  const int64_t steps = row.generated.size(0);
  const at::Tensor ours = logits.slice(0, -steps - 1, -1).argmax(1);
  const at::Tensor best = std::get<0>(row.exact.slice(0, -steps - 1, -1).topk(2, 1));
  for (int64_t step = 0; step < steps; ++step) {
    const double margin = (best[step][0] - best[step][1]).item<double>();
    if (margin >= least_margin) {
      EXPECT_EQ(ours[step].item<int64_t>(), row.generated[step].item<int64_t>()) << "step " << step << ": " << margin;
    }
  }
}

// The checkpoint that a folder of the reference is about: its own, or that which its file `folder` names.
std::filesystem::path checkpoint_of(const std::filesystem::path& made) {
  return std::filesystem::exists(made / "folder") ? std::filesystem::path(read_file(made / "folder")) : made;
}

void compare(const std::filesystem::path& made, bool fused) {
  const c10::InferenceMode inference;
  const std::filesystem::path folder = checkpoint_of(made);
  const auto reference = checkpoint::Checkpoint::open_file(made / "reference.safetensors");
  const std::vector<Row> rows = read_rows(*reference);
  ASSERT_FALSE(rows.empty());
  WholeModel whole(folder, static_cast<int64_t>(rows.size()), fused);
  if (reference->contains("inv_freq")) {
    const graph::Graph& graph = whole.model().graph;
    const graph::ValueId id = graph.find("model.rotary_emb.inv_freq");
    ASSERT_NE(id, graph::kNoValue);
    EXPECT_TRUE(test::bitwise_equal(graph.values[static_cast<size_t>(id)].content, reference->tensor("inv_freq")));
  }
  const std::vector<at::Tensor> logits = all_logits(whole, rows);

  // How far rounding takes this model in this dtype is measured by transformers' own distance from float64. Another
  // order of the same operations errs by as much: the largest of that many errors stays below twice the largest.
  double error = 0;
  for (const Row& row : rows) {
    error = std::max(error, distance(row.logits, row.exact).max().item<double>());
  }
  const double bound = 2 * error;
  double worst = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE(fmt::format("{} row {}", fused ? "fused" : "traced", i));
    worst = std::max(worst, distance(logits[i], rows[i].exact).max().item<double>());
    EXPECT_TRUE(test::close(logits[i], rows[i].exact, at::full({}, bound, at::kDouble)));
    compare_tokens(rows[i], logits[i], whole.model().dtype == at::kFloat ? 0.0 : 2 * bound);
  }
  fmt::print(
      "{} {}: error {:.3g}, transformers' {:.3g}\n", made.filename().string(), fused ? "fused" : "traced", worst,
      error);
}

// How much larger the rounding errors of a product are that the fused programs may use: oneDNN adds up each output in
// one chain over k, MKL in several, so that each bound counts in units of the product at hand.
double product_error_ratio() {
  static const double ratio = [] {
    at::manual_seed(1);
    const at::Tensor x = at::randn({64, 1536});
    const at::Tensor w = at::randn({576, 1536});
    const at::Tensor exact = at::linear(x.to(at::kDouble), w.to(at::kDouble));
    const auto error = [&](const at::Tensor& y) { return (y - exact).square().mean().sqrt().item<double>(); };
    const kernels::KernelChoice choice = kernels::default_choice();
    return std::max(1.0, error(kernels::linear(x, w, std::nullopt, 0, choice.many_f32)) / error(at::linear(x, w)));
  }();
  return ratio;
}

// Logits of a batch, with or without a mask: those of padding are only to be finite. The bound as above.
void compare_batch(
    const std::filesystem::path& folder, const checkpoint::Checkpoint& reference, bool with_mask, bool fused) {
  const c10::InferenceMode inference;
  const std::string kind = with_mask ? "masked" : "plain";
  SCOPED_TRACE(kind + (fused ? " fused" : " traced"));
  const auto program = with_mask ? hf::Program::forward_with_mask : hf::Program::forward;
  LoadedModel model(folder, program, fused);
  std::vector<at::Tensor> inputs = {reference.tensor("ids")};
  const at::Tensor mask = reference.tensor("mask");
  at::Tensor kept = at::ones_like(mask, at::kDouble);
  if (with_mask) {
    inputs.push_back(mask);
    kept = mask.to(at::kDouble);
  }
  const at::Tensor logits = model.run(inputs);
  const at::Tensor exact = reference.tensor(kind + ".exact");
  const double error = (distance(reference.tensor(kind + ".logits"), exact) * kept.unsqueeze(2)).max().item<double>();
  EXPECT_FALSE(logits.isnan().any().item<bool>());
  const double ratio = fused && logits.scalar_type() == at::kFloat ? product_error_ratio() : 1;
  EXPECT_LE((distance(logits, exact) * kept.unsqueeze(2)).max().item<double>(), 2 * ratio * error);
}

// Gradients of sum(weights * logits) by every parameter; the bound as above, from the largest error of any of them.
void compare_gradients(const std::filesystem::path& folder, const checkpoint::Checkpoint& reference) {
  LoadedModel model(folder, hf::Program::forward_with_mask, /*fused=*/false);
  for (auto& [name, parameter] : model.parameters()) {
    parameter.requires_grad_();
  }
  (model.run({reference.tensor("ids"), reference.tensor("mask")}) * reference.tensor("weights")).sum().backward();
  const std::string prefix = "gradient.";
  double error = 0;
  double worst = 0;
  size_t compared = 0;
  for (const std::string& name : reference.names()) {
    if (name.starts_with(prefix)) {
      const at::Tensor exact = reference.tensor("exact_" + name);
      const at::Tensor& parameter = model.parameters().at(name.substr(prefix.size()));
      error = std::max(error, distance(reference.tensor(name), exact).max().item<double>());
      worst = std::max(worst, distance(parameter.grad(), exact).max().item<double>());
      ++compared;
    }
  }
  EXPECT_EQ(compared, model.parameters().size());
  EXPECT_LE(worst, 2 * error);
}

class Comparison : public ::testing::Test {
 public:
  explicit Comparison(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void TestBody() override {
    compare(folder_, /*fused=*/false);
    compare(folder_, /*fused=*/true);
    const auto reference = checkpoint::Checkpoint::open_file(folder_ / "reference.safetensors");
    const std::filesystem::path folder = checkpoint_of(folder_);
    for (const bool fused : {false, true}) {
      compare_batch(folder, *reference, /*with_mask=*/false, fused);
      compare_batch(folder, *reference, /*with_mask=*/true, fused);
    }
    const auto& names = reference->names();
    if (std::any_of(names.begin(), names.end(), [](const auto& name) { return name.starts_with("gradient."); })) {
      compare_gradients(folder, *reference);
    }
  }

 private:
  std::filesystem::path folder_;
};

}  // namespace
}  // namespace shardpipe

int main(int argc, char** argv) {
  return shardpipe::test::reference_main(argc, argv, [](const std::filesystem::path& folder) {
    at::set_num_threads(1);  // the models are tiny: threads cost more than they give
    shardpipe::test::register_folders<shardpipe::Comparison>("AgainstTransformers", folder, "reference.safetensors");
  });
}
