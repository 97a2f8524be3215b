#pragma once

// shardpipe.json of an artefact: see docs/guide/compile.md.
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "shardpipe/options.h"

namespace shardpipe {

struct Manifest {
  enum class Source { folder, exported, module };

  /// A program of the model, compiled.
  // NOLINTNEXTLINE(bugprone-exception-escape): a Json moves without
  struct Program {
    ModelProgram program = ModelProgram::forward;  ///< `forward` of models that have one only
    bool gradients = false;
    std::string plan;  ///< file with plan::serialize()'s bytes
    Json signature;    ///< what checks the inputs of a call
  };
  struct File {
    std::string name;  ///< in the artefact, with / between folders
    uint64_t size_bytes = 0;
    uint64_t hash = 0;  ///< ContentHash
  };
  /// A file of the original model, outside.
  struct Reference {
    std::string path;  ///< absolute
    uint64_t size_bytes = 0;
    int64_t modified_ns = 0;  ///< since 1970
  };

  std::string id;  ///< of all plans; the weights carry it too
  Source source = Source::folder;
  std::string family;
  at::ScalarType dtype = at::kFloat;
  LayoutOptions layout;
  int threads = 0;
  std::string device = "cpu";
  std::string kernels = "auto";
  bool references = false;
  std::vector<Program> programs;
  std::vector<File> files;
  std::vector<Reference> referenced;

  int num_ranks() const { return layout.pp * layout.dp * layout.tp; }
  /// nullptr when it was not compiled.
  const Program* find(ModelProgram program, bool gradients) const;
};

inline constexpr const char* kManifestFile = "shardpipe.json";

/// "weights/rank-0.safetensors"
std::string weights_file(int rank);
/// "generation", "forward" or "forward_with_mask"
std::string to_string(ModelProgram program);

/// Throws Error(io).
void write_manifest(const Manifest& manifest, const std::filesystem::path& folder);
/// Throws Error(input) naming the file when it is missing, damaged, of another version or made with another LibTorch,
/// whose operators may differ.
Manifest read_manifest(const std::filesystem::path& folder);

/// Size and ContentHash of a file. Throws Error(input) when it cannot be read.
Manifest::File describe_file(const std::filesystem::path& folder, const std::string& name);
/// Of a file outside. Throws Error(input) when there is none.
Manifest::Reference describe_reference(const std::filesystem::path& path);

/// Checks that a rank's weights belong to the artefact, where it holds them. Throws Error(input) naming the file.
void check_owner(const Manifest& manifest, const std::filesystem::path& folder, int rank);

/// Checks that every file is there and has its size, that the small ones have their content and that the weights belong
/// to this artefact; with `all`, that all have their content. Throws Error(input) naming the file.
void check_files(const Manifest& manifest, const std::filesystem::path& folder, bool all);

}  // namespace shardpipe
