// A torch::nn::Module of one's own that is larger than any rank's memory, built without memory and run over all ranks
// of the job; each makes the initial weights of its own stage only, the same in every layout.
//   shardpipe launch --nproc 4 -- ./own_module BLOCKS WIDTH
#include <shardpipe/engine.h>
#include <shardpipe/module.h>
#include <torch/nn.h>

#include <cstdlib>
#include <iostream>

struct Block : torch::nn::Module {
  explicit Block(int64_t width)
      : norm(register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})))),
        up(register_module("up", torch::nn::Linear(width, 2 * width))),
        down(register_module("down", torch::nn::Linear(2 * width, width))) {}
  torch::Tensor forward(const torch::Tensor& x) {
    return x + down->forward(torch::gelu(up->forward(norm->forward(x))));
  }
  torch::nn::LayerNorm norm;
  torch::nn::Linear up;
  torch::nn::Linear down;
};

struct Net : torch::nn::Module {
  Net(int64_t count, int64_t width) : blocks(register_module("blocks", torch::nn::ModuleList())) {
    for (int64_t i = 0; i < count; ++i) {
      blocks->push_back(std::make_shared<Block>(width));
    }
  }
  torch::Tensor forward(torch::Tensor x) {
    for (const auto& block : *blocks) {
      x = block->as<Block>()->forward(x);
    }
    return x;
  }
  torch::nn::ModuleList blocks;
};

int main(int argc, char** argv) {
  using namespace shardpipe;
  if (argc != 3) {
    std::cerr << "usage: own_module BLOCKS WIDTH\n";
    return 2;
  }
  const int64_t blocks = std::atoll(argv[1]);
  const int64_t width = std::atoll(argv[2]);
  try {
    World world = World::from_environment();
    const Model model = Model::from_module(
        [=] { return std::make_shared<Net>(blocks, width); },
        {.inputs = {{"x", at::kFloat, {"batch", width}}},
         .forward = [](torch::nn::Module& net, const std::vector<at::Tensor>& in) -> NamedTensors {
           return {{"y", net.as<Net>()->forward(in[0])}};
         }},
        /*seed=*/1);
    PlanOptions options;
    options.layout.pp = world.size();
    Engine engine(make_plan(model, world, options), world);
    NamedTensors inputs;
    if (world.rank() == 0) {
      inputs = {{"x", torch::linspace(-1, 1, 4 * width).view({4, width})}};
    }
    const RunResult result = engine.run(inputs, {.chunks = 2});
    std::cerr << "rank " << world.rank() << " holds " << engine.parameter_bytes() << " bytes of parameters\n";
    if (world.rank() == 0) {
      std::cout.precision(17);
      std::cout << result.outputs[0].second.sum().item<double>() << std::endl;
    }
    world.finish();
  } catch (const Error& error) {
    std::_Exit(fail(error));
  }
}
