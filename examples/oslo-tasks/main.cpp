// The tasks of OSLO's pipeline tutorial besides generation: sequence classification and masked language models, on a
// folder of Hugging Face cut over all ranks of the job.
//   torchrun --nproc_per_node 2 --no-python ./tasks classify FOLDER "what a film"
//   shardpipe launch --nproc 2 -- ./tasks fill-mask FOLDER "the capital of France is [MASK]."
#include <shardpipe/engine.h>
#include <shardpipe/tokenizer.h>
#include <torch/types.h>

#include <cstdlib>
#include <iostream>

using namespace shardpipe;

// Rows of equal length as a tensor [texts, tokens].
static torch::Tensor tensor_of(const std::vector<EncodedText>& texts, std::vector<int64_t> EncodedText::*row) {
  std::vector<torch::Tensor> rows;
  for (const EncodedText& text : texts) {
    rows.push_back(torch::tensor(text.*row));
  }
  return torch::stack(rows);
}

// logits [texts, classes]
static void print_classes(const torch::Tensor& logits) {
  const auto [scores, classes] = logits.softmax(-1).max(-1);
  for (int64_t text = 0; text < logits.size(0); ++text) {
    std::cout << classes[text].item<int64_t>() << " " << scores[text].item<double>() << "\n";
  }
}

// logits [texts, tokens, vocabulary]: each text with its masks filled in.
static void print_filled(const torch::Tensor& logits, std::vector<EncodedText> texts, const Tokenizer& tokenizer) {
  const int64_t mask = tokenizer.encode("[MASK]", false).at(0);
  const torch::Tensor best = logits.argmax(-1);
  for (size_t text = 0; text < texts.size(); ++text) {
    std::vector<int64_t>& ids = texts[text].ids;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == mask) {
        ids[i] = best[static_cast<int64_t>(text)][static_cast<int64_t>(i)].item<int64_t>();
      }
    }
    std::cout << tokenizer.decode(ids) << "\n";
  }
}

int main(int argc, char** argv) {
  const std::string task = argc > 3 ? argv[1] : "";
  if (task != "classify" && task != "fill-mask") {
    std::cerr << "usage: tasks classify|fill-mask FOLDER TEXT...\n";
    return 2;
  }
  try {
    World world = World::from_environment();
    const Model model = Model::from_folder(argv[2]);  // AutoModelForSequenceClassification, AutoModelForMaskedLM
    PlanOptions options;
    options.layout.pp = world.size();  // pipeline_parallel_size; any number, not only powers of 2
    options.program = ModelProgram::forward_with_mask;
    Engine engine(make_plan(model, world, options), world);  // oslo.initialize
    const Tokenizer tokenizer = Tokenizer::from_folder(argv[2]);
    const std::vector<EncodedText> texts = tokenizer.encode_batch({argv + 3, argv + argc});
    NamedTensors inputs;
    if (world.rank() == 0) {
      inputs = {
          {"input_ids", tensor_of(texts, &EncodedText::ids)},
          {"token_type_ids", tensor_of(texts, &EncodedText::type_ids)},
          {"attention_mask", tensor_of(texts, &EncodedText::attention_mask)}};
    }
    const RunResult result = engine.run(inputs);  // model(**tokens)
    for (const auto& [name, tensor] : result.outputs) {
      if (name == "logits") {
        task == "classify" ? print_classes(tensor) : print_filled(tensor, texts, tokenizer);
      }
    }
    world.finish();
  } catch (const Error& error) {
    std::_Exit(fail(error));
  }
}
