#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/folder.h"
#include "graph/graph.h"

namespace shardpipe::pt2 {

/// One input of the exported program, in the order of the call.
struct ExportedInput {
  /// Forward's parameter; inside of dictionaries, lists and tuples the keys and positions follow: "batch.ids", "xs.0".
  std::string name;
  graph::ValueId value = graph::kNoValue;  ///< in the graph; its kind is `input`
  graph::ValueType type = graph::ValueType::tensor;
  std::optional<at::ScalarType> dtype = {};  ///< of a tensor
  std::optional<graph::Shape> shape = {};    ///< of a tensor; nullopt where an extent is no polynomial of dimensions
};

/// An argument that was a plain number, string, boolean or None when the program was exported: part of the program.
struct ConstantInput {
  std::string name;
  c10::IValue value;
};

/// The limits of a named dimension, both included.
struct DimensionRange {
  int64_t min = 0;
  std::optional<int64_t> max = {};
};

/// A torch.export file (schema 8) as a graph. Names of parameters, buffers and lifted constants are those of the
/// archive's weights, which are the module's own; tensors of one storage are one value with tied names. What a node
/// writes is a shared state. Regions under no_grad and autocast are part of the flat node list. Named dimensions are
/// called by where they come from: "input_ids_dim0".
struct ExportedModel {
  std::filesystem::path path;
  graph::Graph graph;
  /// Each parameter, buffer and state of the graph (Value::name) -> its name in the archive, for
  /// Checkpoint::open(path).
  std::map<std::string, std::string> weights;
  /// Those of `weights` whose bytes the archive does not hold (exported from fake or meta tensors), sorted.
  std::vector<std::string> without_data;
  /// Those of `weights` that only the archive can hold, not a checkpoint of the model: non-persistent buffers and
  /// lifted constants, sorted.
  std::vector<std::string> not_persistent;
  /// Those of `weights` that are parameters without gradient, sorted.
  std::vector<std::string> frozen;
  std::vector<ExportedInput> inputs;
  std::vector<ConstantInput> constant_inputs;
  /// By named dimension, or by what is computed from one: "2*x_dim0" (Size::str()). Without an entry: from 0 on.
  std::map<std::string, DimensionRange> ranges;
  /// What relates the inputs, as torch writes it: "L['x'].size()[0] == L['y'].size()[0]".
  std::vector<std::string> guards;
};

/// Reads archive and graph; touches no weight. Throws Error(input) naming the file (and node and module path) when it
/// is no such archive, of another schema major, damaged, or uses operators that LibTorch does not have or features that
/// Shardpipe does not run; Error(input) also when it cannot be opened.
ExportedModel load_exported(const std::filesystem::path& path);

/// Whether `path` is a file that load_exported is meant for: a regular file named *.pt2.
bool is_exported(const std::filesystem::path& path);

/// Checks the inputs of a call and returns the values of the named dimensions. Throws Error(usage) naming the input,
/// the dimension, the limit and the actual value for an unknown or missing input, another dtype or number of
/// dimensions, and extents that the program was not exported for. Inputs that are integers in the program are tensors
/// of one element.
graph::Dimensions check_inputs(const ExportedModel& model, const std::map<std::string, at::Tensor>& inputs);

/// Where the bytes of a tensor are: in the archive, or in the folder or file that was given beside it.
struct WeightSource {
  bool beside = false;
  std::string name;
};

/// Finds every tensor of `model.weights`. `beside` (--weights, may be null) is a checkpoint of the same model: it must
/// hold all parameters, and its buffers are taken too. Throws Error(input) naming the tensors that nobody holds.
std::map<std::string, WeightSource> find_weights(const ExportedModel& model, const checkpoint::Checkpoint* beside);

}  // namespace shardpipe::pt2
