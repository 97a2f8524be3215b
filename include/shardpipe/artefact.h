#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "shardpipe/export.h"
#include "shardpipe/model.h"
#include "shardpipe/options.h"
#include "shardpipe/tensors.h"

namespace shardpipe {

/// What compile() is told besides the model.
struct CompileOptions {
  PlanOptions plan;  ///< layout, threads and kernels; `program` and `gradients` do not count: all are compiled
  bool references =
      false;             ///< do not copy weights: the artefact names the model's own files, which stay where they are
  NamedTensors example;  ///< inputs that balanced cuts of forward programs are made for: see make_plan()
};

/// Writes a model, cut for a layout, to a folder that runs in new processes and on other hosts without the model and
/// without planning; the folder is described in docs/guide/compile.md. Of a Hugging Face folder every program that its
/// family has is compiled, each for running and for gradients. Starts no rank. Holds one weight in memory at a time.
/// Throws Error(usage) when `folder` exists and is not empty and for models with opaque code, else as make_plan();
/// Error(io) when it cannot be written: nothing is left then.
SHARDPIPE_API void compile(const Model& model, const CompileOptions& options, const std::filesystem::path& folder);

/// What an artefact was compiled for.
struct ArtefactInfo {
  LayoutOptions layout;
  std::string dtype;                  ///< "float32", …
  std::string device;                 ///< PlanOptions::device
  std::string kernels;                ///< PlanOptions::kernels
  int threads = 0;                    ///< PlanOptions::threads
  int64_t file_bytes = 0;             ///< of all files of the artefact but shardpipe.json
  std::vector<std::string> programs;  ///< "generation", "forward", "forward_with_mask"; of other models "forward"
};

/// Whether `path` is a folder that compile() wrote: one with a shardpipe.json of that kind.
SHARDPIPE_API bool is_artefact(const std::filesystem::path& path);

/// Checks that all files of an artefact are there and have their sizes, that the small ones have their content and that
/// plans and weights belong together; with `all`, that the weights have their content. make_plan() does so without
/// `all`. Throws Error(input) naming the file.
SHARDPIPE_API void check_artefact(const std::filesystem::path& folder, bool all = false);

/// Reads shardpipe.json only. Throws Error(input) when it is damaged or of another version.
SHARDPIPE_API ArtefactInfo read_artefact(const std::filesystem::path& folder);

}  // namespace shardpipe
