// The exported programs of export_models.py against Python's ep.module(): outputs, changed buffers and gradients to the
// bit, whole, after a round trip through text, and cut into stages. Argument: the folder that the script filled.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <filesystem>

#include "base/error.h"
#include "frontend/pt2/run_exported.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "partition/stages.h"

namespace shardpipe::pt2 {
namespace {

using test::Tensors;

using test::reference_folder;

struct Reference {
  Tensors inputs, outputs, second_inputs, second_outputs, gradients, after;
};

Reference read_reference(const std::filesystem::path& folder) {
  const auto file = checkpoint::SafetensorsFile::open(folder / "reference.safetensors");
  Reference reference;
  const std::pair<std::string, Tensors*> groups[] = {
      {"in.", &reference.inputs},           {"out.", &reference.outputs},    {"in2.", &reference.second_inputs},
      {"out2.", &reference.second_outputs}, {"grad.", &reference.gradients}, {"after.", &reference.after}};
  for (const checkpoint::TensorInfo& info : file->tensors()) {
    for (const auto& [prefix, tensors] : groups) {
      if (info.name.starts_with(prefix)) {
        (*tensors)[info.name.substr(prefix.size())] = file->tensor(info.name).clone();
      }
    }
  }
  return reference;
}

// `absent_is_zero`: of gradients. Python's cond gives zeros to what only the other branch uses.
void expect_bits(const Tensors& expected, const Tensors& actual, const char* what, bool absent_is_zero = false) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : expected) {
    names.push_back(name);
    const auto found = actual.find(name);
    if (found == actual.end() && absent_is_zero && !tensor.any().item<bool>()) {
      continue;
    }
    if (found == actual.end()) {
      ADD_FAILURE() << what << " " << name << " is missing";
      continue;
    }
    const at::Tensor value = found->second.detach().contiguous();
    const bool same = value.sizes() == tensor.sizes() && value.scalar_type() == tensor.scalar_type();
    EXPECT_TRUE(same) << what << " " << name << ": " << value.toString() << value.sizes() << ", expected "
                      << tensor.toString() << tensor.sizes();
    if (same && tensor.numel() > 0 &&
        std::memcmp(value.const_data_ptr(), tensor.const_data_ptr(), tensor.nbytes()) != 0) {
      ADD_FAILURE() << what << " " << name << " differs by "
                    << (value.to(at::kDouble) - tensor.to(at::kDouble)).abs().max().item<double>() << " of "
                    << tensor.to(at::kDouble).abs().max().item<double>();
    }
  }
}

// Gradients under every name of a tied parameter.
Tensors by_all_names(const graph::Graph& graph, const Tensors& tensors) {
  Tensors all;
  for (const auto& [name, tensor] : tensors) {
    all[name] = tensor;
    for (const std::string& tied : graph.values[static_cast<size_t>(graph.find(name))].tied_names) {
      all[tied] = tensor;
    }
  }
  return all;
}

// Runs stage after stage, values carried over the edges.
Tensors run_stages(
    const graph::Graph& graph, const partition::Stages& stages, const Tensors& inputs, const Tensors& tensors) {
  std::map<std::string, c10::IValue> carried;
  Tensors outputs;
  const c10::AutoGradMode mode(false);
  for (const graph::Graph& part : stages.graphs) {
    graph::verify(part, "cut");
    graph::Executor executor(part);
    Tensors own = tensors;
    for (auto& [name, tensor] : own) {
      const bool state = graph.values[static_cast<size_t>(graph.find(name))].kind == graph::ValueKind::state;
      tensor = state ? tensor.clone() : tensor;
    }
    test::set_tensors(executor, part, own);
    for (const graph::ValueId id : part.inputs) {
      const graph::Value& value = part.values[static_cast<size_t>(id)];
      const auto edge = carried.find(value.name);
      executor.set(id, edge != carried.end() ? edge->second : test::as_input(inputs.at(value.name), value.type));
    }
    executor.run();
    for (const graph::Output& output : part.outputs) {
      if (output.name.starts_with("edge.")) {
        carried[output.name] = executor.get(output.value);
      } else {
        outputs[output.name] = test::as_tensor(executor.get(output.value));
      }
    }
  }
  return outputs;
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(reference_folder)) {
    if (std::filesystem::exists(entry.path() / "reference.safetensors")) {
      names.push_back(entry.path().filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Exported, EqualsPython) {
  const std::vector<std::string> names = case_names();
  ASSERT_GE(names.size(), 30u);
  int cuts = 0;
  size_t gradients = 0;
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const ExportedModel model = load_exported(reference_folder / name / "model.pt2");
    const Reference reference = read_reference(reference_folder / name);
    const std::string text = graph::print(model.graph);
    const graph::Graph parsed = graph::parse(text, name);
    EXPECT_EQ(graph::print(parsed), text);
    graph::verify(parsed, "parse");
    const Tensors tensors = test::load_tensors(model);
    const bool wants_gradients = !reference.gradients.empty();
    for (const graph::Graph* graph : std::initializer_list<const graph::Graph*>{&model.graph, &parsed}) {
      SCOPED_TRACE(graph == &parsed ? "parsed" : "loaded");
      check_inputs(model, reference.inputs);
      const test::ExportedRun run = test::run_exported(*graph, reference.inputs, tensors, wants_gradients);
      expect_bits(reference.outputs, run.outputs, "output");
      EXPECT_EQ(run.outputs.size(), reference.outputs.size());
      expect_bits(reference.after, by_all_names(*graph, run.states), "buffer");
      expect_bits(reference.gradients, by_all_names(*graph, run.gradients), "gradient", true);
      gradients += reference.gradients.size();
      if (!reference.second_inputs.empty()) {
        check_inputs(model, reference.second_inputs);
        expect_bits(
            reference.second_outputs, test::run_exported(*graph, reference.second_inputs, tensors, false).outputs,
            "second output");
      }
    }
    if (name.find("dropout") != std::string::npos) {
      continue;  // stages would draw from one generator in another order
    }
    // The outputs under no_grad: autocast may choose other kernels with gradients.
    const Tensors whole = test::run_exported(model.graph, reference.inputs, tensors, false).outputs;
    for (size_t stages = 2; stages <= 4; ++stages) {
      partition::CutPoints points;
      for (size_t i = 1; i < stages; ++i) {
        points.push_back(i * model.graph.nodes.size() / stages);
      }
      try {
        const Tensors outputs = run_stages(model.graph, partition::cut(model.graph, points), reference.inputs, tensors);
        expect_bits(whole, outputs, "output of stages");
        ++cuts;
      } catch (const Error& error) {  // a state, or a tensor changed in place, would be in two stages
        EXPECT_EQ(error.code(), ErrorCode::usage) << error.what();
      }
    }
  }
  EXPECT_GT(cuts, 80);
  EXPECT_GT(gradients, 500u);
}

}  // namespace
}  // namespace shardpipe::pt2

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    std::fprintf(stderr, "usage: pt2_reference_tests FOLDER\n");
    return 2;
  }
  shardpipe::test::reference_folder = argv[1];
  at::set_num_threads(1);
  return RUN_ALL_TESTS();
}
