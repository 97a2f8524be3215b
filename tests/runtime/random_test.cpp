// Random programs, cuts and microbatches: any layout gives what the uncut program gives, bit for bit, and that is what
// LibTorch's autograd gives on the same microbatches.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>

#include "graph/executor.h"
#include "graph/text.h"
#include "graph/verify.h"
#include "random_model.h"
#include "runtime/batch_run.h"
#include "schedule/builders.h"
#include "threads.h"

namespace shardpipe::runtime {
namespace {

int rounds(int count) {
  const char* scale = std::getenv("SHARDPIPE_FUZZ_SCALE");
  return std::max(1, static_cast<int>(count * (scale != nullptr ? std::atof(scale) : 1.0)));
}

// One stage a rank, or several where their number has divisors.
plan::Plan plan_of(
    graph::Graph graph, partition::CutPoints cuts, int virtual_stages = 1, const std::string& name = "fill-drain") {
  plan::Plan plan;
  plan.layout.schedule = name;
  plan.layout.pp = (static_cast<int>(cuts.size()) + 1) / virtual_stages;
  plan.layout.virtual_stages = virtual_stages;
  plan.graph = std::move(graph);
  plan.scalars = plan::describe_scalars(plan.graph);
  plan.cuts = std::move(cuts);
  plan.stages = partition::cut(plan.graph, plan.cuts);
  plan.place_stages();
  return plan;
}

struct Answer {
  BatchResult result;
  bool failed = false;
  std::string error;
};

Answer run(const plan::Plan& plan, const NamedTensors& inputs, const RunOptions& options) {
  Answer answer;
  try {
    test::run_stages(plan, [&](Engine& engine) {
      BatchResult result = run_batch(engine, engine.rank() == 0 ? inputs : NamedTensors(), options);
      if (engine.rank() == 0) {
        answer.result = std::move(result);
      }
    });
  } catch (const std::exception& error) {
    answer.failed = true;
    answer.error = error.what();
  }
  return answer;
}

bool same(const NamedTensors& a, const NamedTensors& b, std::string& where) {
  if (a.size() != b.size()) {
    where = fmt::format("{} and {} tensors", a.size(), b.size());
    return false;
  }
  for (size_t i = 0; i < a.size(); ++i) {
    const bool equal = a[i].first == b[i].first && a[i].second.scalar_type() == b[i].second.scalar_type() &&
                       a[i].second.sizes() == b[i].second.sizes() &&
                       at::allclose(a[i].second.to(at::kDouble), b[i].second.to(at::kDouble), 0, 0, true);
    if (!equal) {
      where = a[i].first;
      return false;
    }
  }
  return true;
}

// LibTorch's own: the whole graph in one executor, one backward a microbatch, gradients added up.
struct Reference {
  std::vector<at::Tensor> outs;
  double loss = 0;
  std::map<std::string, at::Tensor> gradients;
};

Reference reference(const graph::Graph& graph, const NamedTensors& inputs, const std::vector<int64_t>& rows, bool ce) {
  Reference answer;
  graph::Executor executor(graph);
  std::vector<at::Tensor> leaves;
  std::vector<std::string> names;
  std::map<graph::ValueId, at::Tensor> states;
  for (const graph::ValueId id : graph.used_tensors()) {
    const graph::Value& value = graph.values[static_cast<size_t>(id)];
    if (value.kind == graph::ValueKind::parameter) {
      leaves.push_back(value.content.detach().requires_grad_());
      names.push_back(value.name);
      executor.set(id, leaves.back());
    } else if (value.kind == graph::ValueKind::state) {
      states[id] = value.content.clone();
    } else {
      executor.set(id, value.content);
    }
  }
  const auto count_of = [&](const at::Tensor& ids) {
    return ce ? ids.ne(2).sum().item<double>() : static_cast<double>(ids.numel() * 4);
  };
  const double total = count_of(inputs[2].second);
  int64_t start = 0;
  for (const int64_t size : rows) {
    for (const auto& [name, tensor] : inputs) {
      const graph::ValueId id = graph.find(name);
      if (name == "k") {
        executor.set(id, tensor.item<int64_t>());
      } else {
        executor.set(id, tensor.narrow(0, start, size));
      }
    }
    for (auto& [id, state] : states) {
      state = state.clone();
      executor.set(id, state);
    }
    const c10::AutoGradMode grad(true);
    executor.run();
    const double weight =
        total == 0 ? 1.0 / static_cast<double>(rows.size()) : count_of(inputs[2].second.narrow(0, start, size)) / total;
    start += size;
    at::Tensor loss;
    for (const graph::Output& output : graph.outputs) {
      if (output.name == "out") {
        answer.outs.push_back(executor.get(output.value).toTensor().detach());
      } else if (output.name == "loss") {
        loss = executor.get(output.value).toTensor();
      }
    }
    if (weight > 0) {
      answer.loss += weight * loss.item<double>();
      const auto gradients =
          torch::autograd::grad({loss}, leaves, {at::full({}, weight)}, false, false, /*allow_unused=*/true);
      for (size_t i = 0; i < leaves.size(); ++i) {
        if (gradients[i].defined()) {
          at::Tensor& sum = answer.gradients[names[i]];
          sum = sum.defined() ? sum + gradients[i] : gradients[i];
        }
      }
    }
    executor.release_results();
  }
  return answer;
}

size_t uses_of(const graph::Graph& graph, const std::string& name) {
  size_t count = 0;
  for (const graph::Node& node : graph.nodes) {
    for (const graph::ValueId id : graph::Graph::operands(node)) {
      count += graph.values[static_cast<size_t>(id)].name == name ? 1 : 0;
    }
  }
  return count;
}

// Those that can have so many ranks, stages a rank and microbatches with backwards (0: without).
std::vector<std::string> schedules_for(int ranks, int virtual_stages, int microbatches) {
  std::vector<std::string> names;
  for (const std::string& name : schedule::schedule_names()) {
    try {
      schedule::make_schedule(name, ranks, virtual_stages, std::max(1, microbatches), microbatches > 0);
      names.push_back(name);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::usage) << error.what();
    }
  }
  return names;
}

void check(unsigned seed, int& refused) {
  const std::string reproduce = fmt::format("SHARDPIPE_SEED={} runtime_tests --gtest_filter=RandomModels.*", seed);
  test::RandomModel model(seed);
  graph::verify(model.graph, "the generator");
  std::mt19937 random(seed);
  const auto draw = [&](size_t limit) { return random() % limit; };
  const int64_t rows = 1 + static_cast<int64_t>(draw(9));
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const NamedTensors inputs = {
      {"x", at::randn({rows, 4}, generator)},
      {"y", at::randn({rows, 4}, generator)},
      {"ids", at::randint(4, {rows}, generator, at::kLong)},
      {"k", at::scalar_tensor(static_cast<int64_t>(draw(5)), at::kLong)}};
  RunOptions options;
  options.chunks = 1 + static_cast<int>(draw(4));
  const bool gradients = draw(3) > 0;
  options.loss = gradients ? "loss" : "";
  const Answer whole = run(plan_of(model.graph, {}), inputs, options);
  ASSERT_FALSE(whole.failed) << whole.error << "\n" << reproduce;
  const int chunks = whole.result.microbatches;
  const Reference expected = reference(model.graph, inputs, split_rows(rows, chunks), model.cross_entropy);
  ASSERT_TRUE(whole.result.outputs[0].second.equal(at::cat(expected.outs))) << reproduce;
  if (gradients) {
    ASSERT_EQ(whole.result.gradients.size(), expected.gradients.size()) << reproduce;
    for (const auto& [name, gradient] : whole.result.gradients) {
      const at::Tensor& wanted = expected.gradients.at(name);
      // Of a parameter with several uses each use is summed over the microbatches first.
      const bool bitwise = chunks == 1 || uses_of(model.graph, name) == 1;
      ASSERT_TRUE(bitwise ? gradient.equal(wanted) : at::allclose(gradient, wanted, 1e-4, 1e-5))
          << name << "\n"
          << gradient - wanted << "\n"
          << reproduce;
    }
  }
  for (int layout = 0; layout < 3; ++layout) {
    partition::CutPoints cuts;
    for (size_t stages = 1 + draw(3); stages > 0; --stages) {
      cuts.push_back(1 + draw(model.graph.nodes.size() - 1));
    }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    std::vector<int> divisors;
    for (int n = 1; n <= static_cast<int>(cuts.size()) + 1; ++n) {
      if ((cuts.size() + 1) % static_cast<size_t>(n) == 0) {
        divisors.push_back(n);
      }
    }
    plan::Plan plan;
    try {
      const int virtual_stages = divisors[draw(divisors.size())];
      const std::vector<std::string> names =
          schedules_for(static_cast<int>(cuts.size() + 1) / virtual_stages, virtual_stages, gradients ? chunks : 0);
      plan = plan_of(model.graph, cuts, virtual_stages, names[draw(names.size())]);
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::usage) << error.what() << "\n" << reproduce;
      ++refused;
      continue;
    }
    const Answer answer = run(plan, inputs, options);
    ASSERT_FALSE(answer.failed) << answer.error << "\n" << reproduce;
    std::string where;
    ASSERT_TRUE(same(answer.result.outputs, whole.result.outputs, where)) << where << "\n" << reproduce;
    ASSERT_TRUE(same(answer.result.gradients, whole.result.gradients, where)) << where << "\n" << reproduce;
  }
}

TEST(RandomModels, AnyCutGivesTheUncutResultBitwise) {
  at::set_num_threads(1);
  int refused = 0;
  if (const char* seed = std::getenv("SHARDPIPE_SEED")) {
    check(static_cast<unsigned>(std::atoi(seed)), refused);
    return;
  }
  const int count = rounds(300);
  for (int seed = 0; seed < count && !HasFatalFailure(); ++seed) {
    check(static_cast<unsigned>(seed), refused);
  }
  EXPECT_LT(refused, count) << "most cuts are possible";
}

}  // namespace
}  // namespace shardpipe::runtime
