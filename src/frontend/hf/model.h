#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "base/json.h"
#include "checkpoint/names.h"
#include "frontend/hf/encoder.h"
#include "frontend/hf/generation_config.h"
#include "graph/graph.h"

namespace shardpipe::hf {

/// What a model is traced to: decoder.h for those that generate, encoder.h for the others.
enum class Program {
  generation,         ///< packed tokens through caches; of an encoder-decoder its source and what it generates
  forward,            ///< one plain forward pass, with gradients: a decoder's input_ids [batch, seq] -> logits
  forward_with_mask,  ///< the same with attention_mask [batch, seq]; of an encoder, which always has one, the same
};

/// A model folder as its config.json describes it, traced.
struct FolderModel {
  std::string family;  ///< "llama", "gpt2", ...
  /// The program that was asked for; its inputs, states and outputs are in decoder.h, encoder.h and encoder_decoder.h.
  graph::Graph graph;
  std::vector<OptionalInput> optional_inputs;  ///< of the forward program
  std::map<std::string, int64_t> id_limits;    ///< by input of ids: how many there are
  std::filesystem::path folder;
  Json config;                                   ///< config.json as it is
  at::ScalarType dtype = at::ScalarType::Float;  ///< of the weights in the graph, of the states and of the logits
  int64_t vocab_size = 0;
  int64_t max_positions = 0;
  /// Whether no position from max_positions on can be computed: the learned table ends there, or the rotary embedding
  /// would change with the length of the row ("dynamic", "longrope").
  bool learned_positions = false;
  GenerationDefaults generation;
  bool encoder_decoder = false;
  checkpoint::NameRules names;  ///< how to find the graph's tensors in the checkpoint
};

/// The programs that the family of a folder has, from its config.json alone. Throws as load_folder_model.
std::vector<Program> programs_of(const std::filesystem::path& folder);

/// What the configuration files of a folder say about generation, without a model.
GenerationDefaults read_folder_generation(const std::filesystem::path& folder);

/// Reads the configuration files of a folder, builds the model on `meta` and traces it: touches no weight.
/// `dtype`: float32, bfloat16, float16 or float64; by default that of config.json, else float32.
/// `weights`: the folder's checkpoint, where it is at hand. A head that config.json ties to the embedding is then left
/// untied if the checkpoint holds both with different values, as transformers 5 does.
/// Throws Error(usage) when the family has no such program, when there is no such folder or it has no config.json, for
/// an unknown architecture, a feature that is not supported or another dtype; Error(input) for a config.json that is
/// damaged or holds impossible values.
FolderModel load_folder_model(
    const std::filesystem::path& folder,
    std::optional<at::ScalarType> dtype = std::nullopt,
    const checkpoint::Checkpoint* weights = nullptr,
    Program program = Program::generation);

/// Whether the folder's family has a generation program. Throws as load_folder_model() for what is no such folder.
bool generates(const std::filesystem::path& folder);

}  // namespace shardpipe::hf
