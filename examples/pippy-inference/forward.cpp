// PiPPy's pipe_driver(**inputs) for any model, such as RegNet: a torch.export file cut over all ranks of the job, one
// forward of a batch in microbatches.
//   shardpipe launch --nproc 4 -- ./forward regnet.pt2 inputs.safetensors outputs.safetensors 4
#include <ATen/core/Tensor.h>
#include <shardpipe/engine.h>
#include <shardpipe/tensors.h>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  using namespace shardpipe;
  if (argc != 5) {
    std::cerr << "usage: forward MODEL.pt2 INPUTS OUTPUTS CHUNKS\n";
    return 2;
  }
  try {
    World world = World::from_environment();
    PlanOptions options;
    options.layout.pp = world.size();
    options.layout.split = "equal_size";
    Engine engine(make_plan(Model::from_exported(argv[1]), world, options), world);
    NamedTensors inputs;
    if (world.rank() == 0) {
      inputs = read_tensors(argv[2]);
    }
    const RunResult result = engine.run(inputs, {.chunks = std::atoi(argv[4])});
    if (world.rank() == 0) {
      write_tensors(argv[3], result.outputs);
    }
    world.finish();
  } catch (const Error& error) {
    std::_Exit(fail(error));
  }
}
