// A BERT classifier whose attention is made of parallel layers, as in neuronx-distributed's tutorial on inference with
// tensor parallelism:
//
//   eager CONFIG CHECKPOINT INPUTS OUTPUTS     on the ranks of this job: shardpipe launch --nproc 2 -- ...
//   compile CONFIG CHECKPOINT FOLDER           for tp 2, to a folder that needs neither model nor checkpoint
//   call FOLDER INPUTS OUTPUTS                 from this one ordinary process
//
// CONFIG is the model's config.json, CHECKPOINT has whole tensors (torch.save of the state dict, or safetensors),
// INPUTS holds input_ids, attention_mask and token_type_ids as safetensors.
#include <shardpipe/artefact.h>
#include <shardpipe/module.h>
#include <shardpipe/parallel_layers.h>
#include <shardpipe/worker_pool.h>
#include <torch/torch.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <regex>

namespace nn = torch::nn;
using shardpipe::ColumnParallelLinear;
using shardpipe::ColumnParallelLinearOptions;
using shardpipe::NamedTensors;
using shardpipe::RowParallelLinear;
using shardpipe::RowParallelLinearOptions;

struct Config {
  explicit Config(const std::string& file) {
    std::ifstream stream(file);
    text.assign(std::istreambuf_iterator<char>(stream), {});
  }
  int64_t number(const std::string& name) const {
    std::smatch found;
    if (!std::regex_search(text, found, std::regex("\"" + name + "\"\\s*:\\s*(\\d+)"))) {
      throw shardpipe::Error(shardpipe::ErrorCode::usage, "the configuration has no number \"" + name + "\"");
    }
    return std::stoll(found[1]);
  }
  int64_t width() const { return number("hidden_size"); }
  std::string text;
};

nn::LayerNorm layer_norm(const Config& config) {
  return nn::LayerNorm(nn::LayerNormOptions({config.width()}).eps(1e-12));
}

struct Embeddings : nn::Module {
  explicit Embeddings(const Config& config) {
    words = register_module("word_embeddings", nn::Embedding(config.number("vocab_size"), config.width()));
    positions =
        register_module("position_embeddings", nn::Embedding(config.number("max_position_embeddings"), config.width()));
    types = register_module("token_type_embeddings", nn::Embedding(config.number("type_vocab_size"), config.width()));
    norm = register_module("LayerNorm", layer_norm(config));
  }
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& kinds) {
    return norm(words(ids) + positions(torch::arange(ids.size(1))) + types(kinds));
  }
  nn::Embedding words{nullptr}, positions{nullptr}, types{nullptr};
  nn::LayerNorm norm{nullptr};
};

// Each part has some of the heads; nothing is gathered.
struct ParallelSelfAttention : nn::Module {
  explicit ParallelSelfAttention(const Config& config) : head(config.width() / config.number("num_attention_heads")) {
    const auto options = ColumnParallelLinearOptions(config.width(), config.width()).gather_output(false).unit(head);
    query = register_module("query", ColumnParallelLinear(options));
    key = register_module("key", ColumnParallelLinear(options));
    value = register_module("value", ColumnParallelLinear(options));
  }
  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask) {
    const auto heads = [&](const at::Tensor& y) {
      return y.view({y.size(0), y.size(1), query->local_extent() / head, head}).transpose(1, 2);
    };
    const at::Tensor mixed = torch::scaled_dot_product_attention(heads(query(x)), heads(key(x)), heads(value(x)), mask);
    return mixed.transpose(1, 2).flatten(2);
  }
  int64_t head;
  ColumnParallelLinear query{nullptr}, key{nullptr}, value{nullptr};
};

struct ParallelSelfOutput : nn::Module {
  explicit ParallelSelfOutput(const Config& config) {
    const int64_t head = config.width() / config.number("num_attention_heads");
    dense = register_module(
        "dense",
        RowParallelLinear(RowParallelLinearOptions(config.width(), config.width()).input_is_parallel(true).unit(head)));
    norm = register_module("LayerNorm", layer_norm(config));
  }
  at::Tensor forward(const at::Tensor& mixed, const at::Tensor& x) { return norm(dense(mixed) + x); }
  RowParallelLinear dense{nullptr};
  nn::LayerNorm norm{nullptr};
};

// The rest is not divided by hand.
struct Layer : nn::Module {
  explicit Layer(const Config& config) {
    const auto attention = register_module("attention", std::make_shared<nn::Module>());
    self = attention->register_module("self", std::make_shared<ParallelSelfAttention>(config));
    output = attention->register_module("output", std::make_shared<ParallelSelfOutput>(config));
    const auto intermediate = register_module("intermediate", std::make_shared<nn::Module>());
    up = intermediate->register_module("dense", nn::Linear(config.width(), config.number("intermediate_size")));
    const auto last = register_module("output", std::make_shared<nn::Module>());
    down = last->register_module("dense", nn::Linear(config.number("intermediate_size"), config.width()));
    norm = last->register_module("LayerNorm", layer_norm(config));
  }
  at::Tensor forward(const at::Tensor& x, const at::Tensor& mask) {
    const at::Tensor h = output->forward(self->forward(x, mask), x);
    return norm(down(torch::gelu(up(h))) + h);
  }
  std::shared_ptr<ParallelSelfAttention> self;
  std::shared_ptr<ParallelSelfOutput> output;
  nn::Linear up{nullptr}, down{nullptr};
  nn::LayerNorm norm{nullptr};
};

struct Bert : nn::Module {
  static constexpr int64_t kClasses = 2;
  explicit Bert(const Config& config) {
    const auto bert = register_module("bert", std::make_shared<nn::Module>());
    embeddings = bert->register_module("embeddings", std::make_shared<Embeddings>(config));
    const auto encoder = bert->register_module("encoder", std::make_shared<nn::Module>());
    layers = encoder->register_module("layer", nn::ModuleList());
    for (int64_t i = 0; i < config.number("num_hidden_layers"); ++i) {
      layers->push_back(std::make_shared<Layer>(config));
    }
    const auto pooler = bert->register_module("pooler", std::make_shared<nn::Module>());
    pool = pooler->register_module("dense", nn::Linear(config.width(), config.width()));
    classifier = register_module("classifier", nn::Linear(config.width(), kClasses));
  }
  at::Tensor forward(const at::Tensor& ids, const at::Tensor& attended, const at::Tensor& kinds) {
    const at::Tensor mask = attended.to(at::kBool).unsqueeze(1).unsqueeze(1);
    at::Tensor h = embeddings->forward(ids, kinds);
    for (const auto& layer : *layers) {
      h = layer->as<Layer>()->forward(h, mask);
    }
    return classifier(torch::tanh(pool(h.select(1, 0))));
  }
  std::shared_ptr<Embeddings> embeddings;
  nn::ModuleList layers{nullptr};
  nn::Linear pool{nullptr}, classifier{nullptr};
};

std::shared_ptr<Bert> make_model(const std::string& config, const std::string& checkpoint) {
  const auto model = std::make_shared<Bert>(Config(config));
  model->eval();
  shardpipe::load_unsharded(*model, checkpoint);
  return model;
}

at::Tensor find(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, tensor] : tensors) {
    if (key == name) {
      return tensor;
    }
  }
  throw shardpipe::Error(shardpipe::ErrorCode::usage, "there is no input \"" + name + "\"");
}

// Every rank has its pieces and makes the same calls.
void eager(const std::string& config, const std::string& checkpoint, const std::string& from, const std::string& to) {
  shardpipe::World world = shardpipe::World::from_environment();
  const shardpipe::TensorParallel ranks(world);
  const torch::NoGradGuard no_grad;
  const auto model = make_model(config, checkpoint);
  const NamedTensors in = shardpipe::read_tensors(from);
  const at::Tensor logits =
      model->forward(find(in, "input_ids"), find(in, "attention_mask"), find(in, "token_type_ids"));
  if (world.rank() == 0) {
    shardpipe::write_tensors(to, {{"logits", logits}});
  }
  world.finish();
}

// The layers are whole here, and say how they want to be divided.
void compile(const std::string& config, const std::string& checkpoint, const std::string& folder) {
  shardpipe::ModuleSignature signature;
  for (const char* name : {"input_ids", "attention_mask", "token_type_ids"}) {
    signature.inputs.push_back({name, at::kLong, {"batch", "length"}});
  }
  signature.forward = [](nn::Module& module, const std::vector<at::Tensor>& in) -> NamedTensors {
    return {{"logits", module.as<Bert>()->forward(in[0], in[1], in[2])}};
  };
  shardpipe::CompileOptions options;
  options.plan.layout.tp = 2;
  shardpipe::compile(shardpipe::Model::from_module(make_model(config, checkpoint), signature), options, folder);
}

void call(const std::string& folder, const std::string& from, const std::string& to) {
  shardpipe::WorkerPool pool(folder);
  shardpipe::write_tensors(to, pool.run(shardpipe::read_tensors(from)).outputs);
}

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  try {
    if (what == "eager" && argc == 6) {
      eager(argv[2], argv[3], argv[4], argv[5]);
    } else if (what == "compile" && argc == 5) {
      compile(argv[2], argv[3], argv[4]);
    } else if (what == "call" && argc == 5) {
      call(argv[2], argv[3], argv[4]);
    } else {
      std::cerr << "usage: neuronx_inference eager|compile|call ... (see main.cpp)\n";
      return 2;
    }
  } catch (const shardpipe::Error& error) {
    std::_Exit(shardpipe::fail(error));
  }
}
