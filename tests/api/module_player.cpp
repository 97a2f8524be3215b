// The ranks of module_test.cpp: runs a C++ module over all ranks of the job and compares with plain LibTorch on the
// same microbatches.
//   api_module_player CASE CHUNKS SPLIT
#include <shardpipe/engine.h>
#include <shardpipe/module.h>
#include <torch/torch.h>

#include <cmath>
#include <iostream>
#include <map>

namespace shardpipe {
namespace {

namespace nn = torch::nn;
using Tensors = std::vector<at::Tensor>;

struct Case {
  std::function<std::shared_ptr<nn::Module>()> make;
  ModuleSignature signature;
  NamedTensors inputs;
  std::vector<std::string> repeated = {};  // parameters that are used several times
};

template <typename M>
ModuleSignature signature_of(std::vector<ModuleInput> inputs) {
  return {std::move(inputs), [](nn::Module& module, const Tensors& in) { return module.as<M>()->run(in); }};
}

// A language model whose embedding is its head.
struct Tied : nn::Module {
  Tied() : embed(register_module("embed", nn::Embedding(20, 12))), blocks(register_module("blocks", nn::ModuleList())) {
    for (int i = 0; i < 3; ++i) {
      blocks->push_back(nn::Sequential(nn::LayerNorm(nn::LayerNormOptions({12})), nn::Linear(12, 12), nn::GELU()));
    }
  }
  NamedTensors run(const Tensors& in) {
    at::Tensor h = embed(in[0]);
    for (const auto& block : *blocks) {
      h = h + block->as<nn::Sequential>()->forward(h);
    }
    const at::Tensor logits = torch::linear(h, embed->weight);
    return {{"logits", logits}, {"loss", torch::cross_entropy_loss(logits.flatten(0, 1), in[1].flatten())}};
  }
  nn::Embedding embed;
  nn::ModuleList blocks;
};

// In train mode: each stage has statistics of its own, which follow the microbatches in their order.
struct Norms : nn::Module {
  Norms() : layers(register_module("layers", nn::ModuleList())) {
    for (int i = 0; i < 3; ++i) {
      layers->push_back(nn::Sequential(
          nn::Conv2d(nn::Conv2dOptions(4, 4, 3).padding(1)), nn::BatchNorm2d(4), nn::ReLU(nn::ReLUOptions(true))));
    }
  }
  NamedTensors run(const Tensors& in) {
    at::Tensor h = in[0];
    NamedTensors after;
    for (size_t i = 0; i < layers->size(); ++i) {
      h = layers[i]->as<nn::Sequential>()->forward(h);
      const auto& norm = *layers[i]->as<nn::Sequential>()->ptr(1)->as<nn::BatchNorm2d>();
      const std::string name = "layers." + std::to_string(i);
      after.emplace_back(name + ".mean", norm.running_mean.clone());
      after.emplace_back(name + ".var", norm.running_var.clone());
      after.emplace_back(name + ".count", norm.num_batches_tracked.clone());
    }
    NamedTensors outputs = {{"y", h.mean({2, 3})}, {"loss", torch::mse_loss(h.mean({2, 3}), in[1])}};
    outputs.insert(outputs.end(), after.begin(), after.end());
    return outputs;
  }
  nn::ModuleList layers;
};

// Code that branches on values, between layers in stages of their own.
struct Router : nn::Module {
  Router() {
    first = register_module("first", nn::Linear(6, 6));
    left = register_parameter("left", torch::randn({6, 6}));
    right = register_parameter("right", torch::randn({6, 6}));
    last = register_module("last", nn::Linear(6, 3));
  }
  NamedTensors run(const Tensors& in) {
    const auto route = [](const Tensors& x) {
      Tensors rows;
      for (int64_t i = 0; i < x[0].size(0); ++i) {
        const bool to_left = x[0][i].sum().item<float>() > 0;
        rows.push_back(torch::mv(x[to_left ? 1 : 2], x[0][i]));
      }
      return Tensors{torch::stack(rows)};
    };
    const at::Tensor h = torch::tanh(first(in[0]));
    const at::Tensor y = last(torch::relu(opaque("route", route, {h, left, right})[0]));
    return {{"y", y}, {"loss", torch::mse_loss(y, in[1])}};
  }
  nn::Linear first = nullptr, last = nullptr;
  at::Tensor left, right;
};

template <typename M>
std::shared_ptr<nn::Module> made() {
  torch::manual_seed(0);
  return std::make_shared<M>();
}

Case find_case(const std::string& name) {
  torch::manual_seed(1);
  if (name == "tied") {
    const at::Tensor ids = torch::randint(20, {7, 5}, at::kLong);
    return {
        made<Tied>,
        signature_of<Tied>({{"ids", at::kLong, {"batch", "seq"}}, {"labels", at::kLong, {"batch", "seq"}}}),
        {{"ids", ids}, {"labels", ids.roll(1, 1)}},
        {"embed.weight"}};
  }
  if (name == "norms") {
    return {
        made<Norms>,
        signature_of<Norms>({{"x", at::kFloat, {"batch", 4, 5, 5}}, {"target", at::kFloat, {"batch", 4}}}),
        {{"x", torch::randn({7, 4, 5, 5})}, {"target", torch::randn({7, 4})}}};
  }
  return {
      made<Router>,
      signature_of<Router>({{"x", at::kFloat, {"batch", 6}}, {"target", at::kFloat, {"batch", 3}}}),
      {{"x", torch::randn({7, 6})}, {"target", torch::randn({7, 3})}}};
}

struct Expected {
  std::vector<NamedTensors> outputs;  // of each microbatch
  std::map<std::string, at::Tensor> gradients, magnitudes;
  double loss = 0;
};

// Plain LibTorch on the same microbatches; losses are means over rows.
Expected expect(const Case& known, int chunks) {
  const std::shared_ptr<nn::Module> module = known.make();
  Expected expected;
  const auto total = static_cast<double>(known.inputs[0].second.size(0));
  for (int m = 0; m < chunks; ++m) {
    Tensors part;
    for (const auto& [name, tensor] : known.inputs) {
      part.push_back(tensor.tensor_split(chunks)[static_cast<size_t>(m)]);
    }
    module->zero_grad();
    NamedTensors outputs = known.signature.forward(*module, part);
    const double weight = static_cast<double>(part[0].size(0)) / total;
    for (auto& [name, tensor] : outputs) {
      if (name == "loss") {
        tensor.backward(torch::full({}, weight));
        expected.loss += weight * tensor.item<double>();
      }
      tensor = tensor.detach();
    }
    expected.outputs.push_back(std::move(outputs));
    for (const auto& parameter : module->named_parameters()) {
      const at::Tensor& gradient = parameter.value().grad();
      if (!gradient.defined()) {
        continue;  // no row went there
      }
      at::Tensor& sum = expected.gradients[parameter.key()];
      sum = sum.defined() ? sum + gradient : gradient.clone();
      at::Tensor& magnitude = expected.magnitudes[parameter.key()];
      const at::Tensor absolute = gradient.to(at::kDouble).abs();
      magnitude = magnitude.defined() ? magnitude + absolute : absolute;
    }
  }
  return expected;
}

int failures = 0;

void check(bool good, const std::string& what) {
  if (!good) {
    std::cerr << "differs from plain LibTorch: " << what << "\n";
    ++failures;
  }
}

void compare(const Case& known, const RunResult& result, int chunks) {
  const Expected expected = expect(known, chunks);
  check(result.outputs.size() == expected.outputs[0].size(), "number of outputs");
  for (size_t i = 0; i < result.outputs.size(); ++i) {
    const auto& [name, tensor] = result.outputs[i];
    const at::Tensor& last = expected.outputs.back()[i].second;
    if (name == "loss") {
      check(std::abs(tensor.item<double>() - expected.loss) <= 1e-6 * std::abs(expected.loss), name);
    } else if (name == "y" || name == "logits") {
      Tensors parts;
      for (const NamedTensors& part : expected.outputs) {
        parts.push_back(part[i].second);
      }
      check(tensor.equal(torch::cat(parts)), name);
    } else {  // of what the microbatches leave behind, the last one's
      check(tensor.equal(last), name);
    }
  }
  check(result.gradients.size() == expected.gradients.size(), "number of gradients");
  for (const auto& [name, gradient] : result.gradients) {
    const at::Tensor& plain = expected.gradients.at(name);
    if (std::find(known.repeated.begin(), known.repeated.end(), name) == known.repeated.end()) {
      check(gradient.equal(plain), "gradient of " + name);
    } else {  // the same 2 addends a microbatch in another order: a rounding for each but one, of the largest sum
      const double bound = (2 * chunks - 1) * std::pow(2.0, -23) * expected.magnitudes.at(name).max().item<double>();
      check((gradient - plain).abs().max().item<double>() <= bound, "gradient of " + name);
    }
  }
}

int play(const std::string& name, int chunks, const std::string& split) {
  World world = World::from_environment();
  const Case known = find_case(name);
  PlanOptions options;
  options.layout.pp = world.size();
  options.layout.split = split;
  options.kernels = "reference";
  options.gradients = true;
  options.threads = 1;
  Engine engine(make_plan(Model::from_module(known.make(), known.signature), world, options), world);
  const bool first = world.rank() == 0;
  const RunResult result = engine.run(first ? known.inputs : NamedTensors(), {.chunks = chunks, .loss = "loss"});
  // Left where they are computed: another batch, on the statistics that the first one left.
  RunOptions there;
  there.chunks = chunks;
  there.outputs_on_last = true;
  const RunResult left = engine.run(first ? known.inputs : NamedTensors(), there);
  check(left.outputs.empty() == (world.rank() + 1 != world.size()), "rank of the outputs");
  if (first) {
    compare(known, result, chunks);
  }
  world.finish();
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace shardpipe

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: api_module_player CASE CHUNKS SPLIT\n";
    return 2;
  }
  at::set_num_threads(1);
  try {
    return shardpipe::play(argv[1], std::atoi(argv[2]), argv[3]);
  } catch (const shardpipe::Error& error) {
    std::_Exit(shardpipe::fail(error));
  }
}
