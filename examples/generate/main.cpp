// Continues a text with a model cut over all ranks of the job.
//   shardpipe launch --nproc 2 -- ./generate models/SmolLM2-135M-Instruct "The capital of France is"
#include <shardpipe/engine.h>
#include <shardpipe/tokenizer.h>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  using namespace shardpipe;
  if (argc != 3) {
    std::cerr << "usage: generate MODEL_FOLDER PROMPT\n";
    return 2;
  }
  try {
    World world = World::from_environment();  // the rank that the launcher gave this process
    const Model model = Model::from_folder(argv[1]);
    PlanOptions options;
    options.layout.pp = world.size();
    const Plan plan = make_plan(model, world, options);  // rank 0 plans, the others receive
    Engine engine(plan, world);                          // this rank's weights only
    const Tokenizer tokenizer = Tokenizer::from_folder(argv[1]);
    const GenerateResult result = generate(engine, {tokenizer.encode(argv[2])}, {.max_new_tokens = 8});
    if (world.rank() == 0) {
      std::cout << tokenizer.decode(result.outputs[0].token_ids) << std::endl;
    }
    world.finish();
  } catch (const Error& error) {
    std::_Exit(fail(error));
  }
}
