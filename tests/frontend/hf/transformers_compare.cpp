// The traced families against transformers: loads each folder that reference.py made, runs its rows packed together in
// one process with caches (prompts of different length at once, then token by token), and compares all logits: of the
// graph as traced and of the graph with Shardpipe's kernels.
//
//     hf_reference_tests FOLDER
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>

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

// The whole model in one process. Row i has cache row slot(i).
class WholeModel {
 public:
  WholeModel(const std::filesystem::path& folder, size_t rows, bool fused)
      : checkpoint_(checkpoint::Checkpoint::open_folder(folder)),
        model_(hf::load_folder_model(folder, std::nullopt, checkpoint_.get())),
        executor_(fused ? kernels::fuse(model_.graph, kernels::default_choice(), model_.dtype) : model_.graph),
        num_rows_(static_cast<int64_t>(rows)) {
    std::vector<checkpoint::WantedTensor> wanted;
    const graph::Dimensions none;
    for (const graph::ValueId id : model_.graph.used_tensors()) {
      const graph::Value& value = model_.graph.values[static_cast<size_t>(id)];
      if (value.content.defined()) {
        executor_.set(id, value.content);
      } else if (value.kind == graph::ValueKind::state) {
        const auto sizes = graph::evaluate(*value.shape, {{"slots", num_rows_ + 1}, {"capacity", kCapacity}});
        executor_.set(id, at::full(sizes, std::nan(""), *value.dtype));
      } else {
        wanted.push_back({value.name, graph::evaluate(*value.shape, none)});
      }
    }
    const checkpoint::Resolution found = checkpoint::resolve_names(*checkpoint_, wanted, model_.names);
    EXPECT_THAT(found.surplus, ::testing::IsEmpty());
    for (const auto& [name, source] : found.source) {
      executor_.set(model_.graph.find(name), checkpoint_->load(source, model_.dtype));
    }
  }

  // Rows run in reverse, so that no row sits where it would by accident.
  int64_t slot(size_t row) const { return num_rows_ - static_cast<int64_t>(row); }
  const hf::FolderModel& model() const { return model_; }

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
    const std::vector<at::Tensor> inputs = {packed, at::cat(positions), at::cat(slots), selected};
    for (size_t i = 0; i < inputs.size(); ++i) {
      executor_.set(model_.graph.inputs[i], inputs[i]);
    }
    executor_.run();
    const at::Tensor logits = executor_.get(model_.graph.outputs[0].value).toTensor().flip(0);
    EXPECT_EQ(logits.scalar_type(), model_.dtype);
    std::vector<at::Tensor> result;
    int64_t begin = 0;
    for (const at::Tensor& row : ids) {
      result.push_back(logits.narrow(0, begin, row.size(0)));
      begin += row.size(0);
    }
    return result;
  }

 private:
  std::shared_ptr<const checkpoint::Checkpoint> checkpoint_;
  hf::FolderModel model_;
  graph::Executor executor_;
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

void compare(const std::filesystem::path& made, bool fused) {
  const c10::InferenceMode inference;
  const bool elsewhere = std::filesystem::exists(made / "folder");
  const std::filesystem::path folder = elsewhere ? std::filesystem::path(read_file(made / "folder")) : made;
  const auto reference = checkpoint::Checkpoint::open_file(made / "reference.safetensors");
  const std::vector<Row> rows = read_rows(*reference);
  ASSERT_FALSE(rows.empty());
  WholeModel whole(folder, rows.size(), fused);
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
    error = std::max(error, (row.logits.to(at::kDouble) - row.exact).abs().max().item<double>());
  }
  const double bound = 2 * error;
  double worst = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE(fmt::format("{} row {}", fused ? "fused" : "traced", i));
    const at::Tensor distance = (logits[i].to(at::kDouble) - rows[i].exact).abs();
    worst = std::max(worst, distance.max().item<double>());
    EXPECT_TRUE(test::close(logits[i], rows[i].exact, at::full({}, bound, at::kDouble)));
    compare_tokens(rows[i], logits[i], whole.model().dtype == at::kFloat ? 0.0 : 2 * bound);
  }
  fmt::print(
      "{} {}: error {:.3g}, transformers' {:.3g}\n", made.filename().string(), fused ? "fused" : "traced", worst,
      error);
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

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    fmt::print(stderr, "usage: hf_reference_tests FOLDER\n");
    return 2;
  }
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    const std::filesystem::path folder = entry.path();
    if (std::filesystem::exists(folder / "reference.safetensors")) {
      ::testing::RegisterTest(
          "AgainstTransformers", folder.filename().c_str(), nullptr, nullptr, __FILE__, __LINE__,
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
