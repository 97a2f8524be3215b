// Continues texts with a compiled model from one ordinary process; the model runs in processes that it starts.
//   shardpipe compile --model models/SmolLM2-135M-Instruct --pp 2 --output compiled
//   ./worker_pool compiled "The capital of France is" "One, two, three,"
#include <shardpipe/tokenizer.h>
#include <shardpipe/worker_pool.h>

#include <iostream>

int main(int argc, char** argv) {
  using namespace shardpipe;
  if (argc < 3) {
    std::cerr << "usage: worker_pool ARTEFACT PROMPT...\n";
    return 2;
  }
  try {
    WorkerPool pool(argv[1]);  // one process a rank, until the end of this scope
    const Tokenizer tokenizer = Tokenizer::from_folder(argv[1]);
    for (int i = 2; i < argc; ++i) {
      const GenerateResult result = pool.generate({tokenizer.encode(argv[i])}, {.max_new_tokens = 8});
      std::cout << tokenizer.decode(result.outputs[0].token_ids) << std::endl;
    }
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    return exit_status(error.code());
  }
}
