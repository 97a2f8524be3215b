#pragma once

// What compile() writes and make_plan() reads.
#include <filesystem>

#include "api/impl.h"
#include "api/manifest.h"

namespace shardpipe {

/// In Plan::checkpoints of an artefact: each rank's own file of weights.
inline constexpr const char* kOwnWeights = "weights";
/// In the metadata of such a file: {name: dimensions}, the order in which a tensor that is not contiguous was written.
inline constexpr const char* kPermuted = "permuted";

/// Throws Error(usage) when it was not compiled.
const Manifest::Program& find_program(
    const Manifest& manifest, const std::filesystem::path& folder, ModelProgram program, bool gradients);

/// What a folder model's program is without its graph: all that reading prompts and inputs needs.
Json folder_signature(const hf::FolderModel& model);
/// The reverse, with the configuration files of the artefact. Throws Error(usage) when it was not compiled.
hf::FolderModel artefact_folder_model(
    const Manifest& manifest, const std::filesystem::path& folder, ModelProgram program);

/// The tensors of an artefact by name, in one process: of those that several ranks hold the first one's,
/// pieces joined. `plan`: one of
/// its programs, as a rank has loaded it.
runtime::TensorSource artefact_tensors(const Model& model, const plan::Plan& plan);

/// make_plan() of an artefact. Collective.
Plan::Impl load_plan(const Model& model, comm::World& ranks, const PlanOptions& options);

}  // namespace shardpipe
