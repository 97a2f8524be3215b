#include "shardpipe/artefact.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "api/artefact.h"
#include "api/planning.h"
#include "base/error.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"

namespace shardpipe {
namespace {

std::vector<std::string> program_names(const Manifest& manifest) {
  std::vector<std::string> names;
  for (const Manifest::Program& program : manifest.programs) {
    if (!program.gradients) {
      names.push_back(to_string(program.program));
    }
  }
  return names;
}

// Options at their defaults ask for nothing.
void check_options(const Manifest& manifest, const std::filesystem::path& folder, const PlanOptions& options) {
  const LayoutOptions none;
  const LayoutOptions& asked = options.layout;
  const LayoutOptions& there = manifest.layout;
  const auto compare = [&](const char* option, const auto& wanted, const auto& standard, const auto& compiled) {
    if (wanted != standard && wanted != compiled) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "{0} {1} contradicts the artefact {2}, which was compiled with {0} {3}", option, wanted, folder.string(),
              compiled),
          "leave the option out, or compile the model again");
    }
  };
  compare("--pp", asked.pp, none.pp, there.pp);
  compare("--virtual", asked.virtual_stages, none.virtual_stages, there.virtual_stages);
  compare("--dp", asked.dp, none.dp, there.dp);
  compare("--tp", asked.tp, none.tp, there.tp);
  compare("--split", asked.split, none.split, there.split);
  compare("--schedule", asked.schedule, none.schedule, there.schedule);
  compare("--cuts", fmt::format("{}", fmt::join(asked.cuts, ",")), "", fmt::format("{}", fmt::join(there.cuts, ",")));
  compare("--profile", asked.profile, false, there.profile);
  compare("--device", options.device, PlanOptions().device, manifest.device);
  compare("--kernels", options.kernels, PlanOptions().kernels, manifest.kernels);
  if (!asked.tp_plan.empty() && asked.tp_plan != there.tp_plan) {
    throw Error(
        ErrorCode::usage,
        fmt::format("--tp-plan contradicts the artefact {}, which was compiled with other pins", folder.string()),
        "leave the option out, or compile the model again");
  }
  if (asked.chunks < 0) {
    throw_usage("--chunks is {}, must be at least 1", asked.chunks);
  }
}

void check_ranks(const Manifest& manifest, const std::filesystem::path& folder, int ranks) {
  if (manifest.num_ranks() != ranks) {
    throw Error(
        ErrorCode::usage,
        fmt::format(
            "the artefact {} was compiled for {} ranks, this job has {}", folder.string(), manifest.num_ranks(), ranks),
        fmt::format("start {} processes, or compile the model for {} ranks", manifest.num_ranks(), ranks));
  }
}

// The plan as rank 0 tells it to the others.
plan::Plan read_plan(
    const Manifest& manifest, const std::filesystem::path& folder, const PlanOptions& options, int local_ranks) {
  const std::filesystem::path file = folder / find_program(manifest, folder, options.program, options.gradients).plan;
  plan::Plan plan = plan::parse(read_file(file), file.string());
  plan.threads = threads_of_rank(options.threads > 0 ? options.threads : manifest.threads, local_ranks);
  if (options.layout.chunks > 0) {
    plan.layout.chunks = options.layout.chunks;
  }
  plan.check_memory(options.layout.memory_bytes);
  return plan;
}

// The weights of this rank that the plan does not find by itself: those that are not contiguous.
runtime::TensorSource permuted_tensors(const std::filesystem::path& file) {
  const auto weights = checkpoint::SafetensorsFile::open(file);
  const auto found = weights->metadata().find(kPermuted);
  if (found == weights->metadata().end()) {
    return {};
  }
  return
      [weights, permuted = parse_json(found->second, file.string()), where = file.string()](const std::string& name) {
        if (!permuted.contains(name)) {
          throw_input("no tensor \"{}\" in {}: it does not belong to the plan", name, where);
        }
        const auto written = permuted.at(name).get<std::vector<int64_t>>();
        std::vector<int64_t> back(written.size());
        for (size_t i = 0; i < written.size(); ++i) {
          back.at(static_cast<size_t>(written[i])) = static_cast<int64_t>(i);
        }
        return weights->tensor(name).permute(back);
      };
}

}  // namespace

const Manifest::Program& find_program(
    const Manifest& manifest, const std::filesystem::path& folder, ModelProgram program, bool gradients) {
  const Manifest::Program* found = manifest.find(program, gradients);
  if (found == nullptr) {
    throw_usage(
        "{} was compiled from a model of type \"{}\", which has no program {}{}; it has {}", folder.string(),
        manifest.family, to_string(program), gradients ? " with gradients" : "",
        fmt::join(program_names(manifest), ", "));
  }
  return *found;
}

Json folder_signature(const hf::FolderModel& model) {
  Json json = {
      {"vocab_size", model.vocab_size},
      {"max_positions", model.max_positions},
      {"learned_positions", model.learned_positions},
      {"encoder_decoder", model.encoder_decoder}};
  json["id_limits"] = Json::object();
  for (const auto& [name, limit] : model.id_limits) {
    json["id_limits"][name] = limit;
  }
  json["optional_inputs"] = Json::array();
  for (const hf::OptionalInput& input : model.optional_inputs) {
    json["optional_inputs"].push_back({input.name, input.like, input.value});
  }
  return json;
}

hf::FolderModel artefact_folder_model(
    const Manifest& manifest, const std::filesystem::path& folder, ModelProgram program) {
  const Json& json = find_program(manifest, folder, program, false).signature;
  hf::FolderModel model;
  model.folder = folder;
  model.family = manifest.family;
  model.dtype = manifest.dtype;
  model.generation = hf::read_folder_generation(folder);
  try {
    model.vocab_size = json.at("vocab_size");
    model.max_positions = json.at("max_positions");
    model.learned_positions = json.at("learned_positions");
    model.encoder_decoder = json.at("encoder_decoder");
    for (const auto& [name, limit] : json.at("id_limits").items()) {
      model.id_limits[name] = limit.get<int64_t>();
    }
    for (const Json& input : json.at("optional_inputs")) {
      model.optional_inputs.push_back({input.at(0), input.at(1), input.at(2)});
    }
  } catch (const nlohmann::json::exception& error) {
    throw_input("{} is damaged: {}", (folder / kManifestFile).string(), error.what());
  }
  return model;
}

Plan::Impl load_plan(const Model& model, comm::World& ranks, const PlanOptions& options) {
  const Model::Impl& impl = model.impl();
  const Manifest& manifest = *impl.artefact;
  Plan::Impl loaded;
  std::string bytes;
  if (ranks.rank() == 0) {
    check_options(manifest, impl.folder, options);
    check_ranks(manifest, impl.folder, ranks.size());
    check_files(manifest, impl.folder, options.verify_files);
    loaded.plan = read_plan(manifest, impl.folder, options, ranks.local_world_size());
    loaded.check = impl.input_check(options.program);
    loaded.optional_inputs = impl.optional_inputs(options.program);
    if (options.program == ModelProgram::generation && impl.is_folder()) {
      loaded.decoder_start = model.decoder_start_token_id();
    }
    bytes = plan::serialize(loaded.plan);
  }
  ranks.broadcast(bytes, 0);
  if (ranks.rank() != 0) {
    loaded.plan = plan::parse(bytes, "the plan of rank 0");
    check_owner(manifest, impl.folder, ranks.rank());  // on another host the folder is another
  }
  for (std::string& path : loaded.plan.checkpoints) {
    if (path == kOwnWeights) {
      path = (impl.folder / weights_file(ranks.rank())).string();
      loaded.tensors = permuted_tensors(path);
    }
  }
  connect(ranks, loaded.plan);
  return loaded;
}

runtime::TensorSource artefact_tensors(const Model& model, const plan::Plan& plan) {
  struct Rank {
    plan::Plan plan;
    std::optional<runtime::Weights> weights;
  };
  struct All {
    std::vector<std::unique_ptr<Rank>> ranks;                       // of the first replica, as on the mesh [pp, tp]
    std::map<std::string, std::pair<size_t, graph::ValueId>> held;  // by name: the first that holds it, and value
  };
  const std::filesystem::path& folder = model.impl().folder;
  const mesh::Mesh mesh = plan.mesh();
  const auto file_of = [&](int rank) { return (folder / weights_file(rank)).string(); };
  const auto all = std::make_shared<All>();
  for (int number = 0; number < mesh.world_size(); ++number) {
    const mesh::Coordinates at = mesh.coordinates(number);
    if (at.dp > 0) {
      continue;
    }
    Rank& rank = *all->ranks.emplace_back(std::make_unique<Rank>(Rank{plan, {}}));
    rank.plan.select_part(at.tp);
    runtime::TensorSource tensors;
    for (std::string& path : rank.plan.checkpoints) {
      for (int other = 0; other < mesh.world_size(); ++other) {
        if (path == file_of(other)) {
          path = file_of(number);
          tensors = permuted_tensors(path);
          break;
        }
      }
    }
    rank.weights.emplace(rank.plan, tensors);
    for (const int stage : plan.stages_of_rank(at.pp)) {
      const graph::Graph& part = plan.stages.graphs[static_cast<size_t>(stage)];
      for (const graph::ValueId id : part.used_tensors()) {
        all->held.try_emplace(part.values[static_cast<size_t>(id)].name, all->ranks.size() - 1, id);
      }
    }
  }
  return [all](const std::string& name) {
    const auto& [first, id] = all->held.at(name);
    const auto load = [&, value = id](size_t rank) {
      const Rank& holder = *all->ranks[rank];
      return holder.weights->load(holder.plan.graph.values[static_cast<size_t>(value)]);
    };
    const std::map<std::string, tensor::Shard>& shards = all->ranks[first]->plan.shards;
    const auto shard = shards.find(name);
    if (shard == shards.end()) {
      return load(first);
    }
    std::vector<at::Tensor> pieces;
    for (int part = 0; part < shard->second.parts(); ++part) {
      pieces.push_back(load(first + static_cast<size_t>(part)));
    }
    return tensor::join(pieces, shard->second);
  };
}

bool is_artefact(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path / kManifestFile, error)) {
    return false;
  }
  // Sharded checkpoints may have a file of that name too. A damaged file is reported by who reads it.
  const Json json = Json::parse(read_file(path / kManifestFile), nullptr, false);
  const bool said = json.is_object() && json.contains("kind") && json.at("kind") == "artefact";
  return said || std::filesystem::is_directory(path / "plans", error);
}

void check_artefact(const std::filesystem::path& folder, bool all) {
  check_files(read_manifest(folder), folder, all);
}

ArtefactInfo read_artefact(const std::filesystem::path& folder) {
  const Manifest manifest = read_manifest(folder);
  ArtefactInfo info{
      manifest.layout,        graph::dtype_name(manifest.dtype), manifest.device, manifest.kernels, manifest.threads, 0,
      program_names(manifest)};
  for (const Manifest::File& file : manifest.files) {
    info.file_bytes += static_cast<int64_t>(file.size_bytes);
  }
  return info;
}

}  // namespace shardpipe
