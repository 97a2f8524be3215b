// PiPPy's hf_generate.py: a Hugging Face model cut by size over all ranks of the job, and generate() on it.
//   torchrun --nproc_per_node 2 --no-python ./hf_generate FOLDER equal_size "The capital of France is"
// or `shardpipe launch --nproc 2 -- ./hf_generate …`. SPLIT: even, equal_size, threshold:BYTES or balanced.
#include <shardpipe/engine.h>
#include <shardpipe/tokenizer.h>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  using namespace shardpipe;
  if (argc < 4) {
    std::cerr << "usage: hf_generate FOLDER SPLIT PROMPT...\n";
    return 2;
  }
  try {
    World world = World::from_environment();
    // Nothing is loaded here: each rank maps the file, single or sharded, and reads its own stage (PiPPy:
    // index_filename and defer_stage_init).
    const Model model = Model::from_folder(argv[1]);
    PlanOptions options;
    options.layout.pp = world.size();                        // num_ranks
    options.layout.split = argv[2];                          // split_policy
    options.layout.chunks = argc - 3;                        // num_chunks: a microbatch for each prompt
    Engine engine(make_plan(model, world, options), world);  // all_compile
    const Tokenizer tokenizer = Tokenizer::from_folder(argv[1]);
    std::vector<std::vector<int64_t>> prompts;
    for (int i = 3; i < argc; ++i) {
      prompts.push_back(tokenizer.encode(argv[i]));
    }
    const GenerateResult result = generate(engine, prompts, {.max_new_tokens = 8});  // no inject_pipeline_forward
    if (world.rank() == 0) {
      for (const Output& output : result.outputs) {
        std::cout << tokenizer.decode(output.token_ids) << std::endl;
      }
    }
    world.finish();
  } catch (const Error& error) {
    std::_Exit(fail(error));
  }
}
