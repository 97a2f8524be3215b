#include "api/manifest.h"

#include <torch/headeronly/version.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "checkpoint/resident.h"
#include "checkpoint/safetensors.h"
#include "graph/graph.h"
#include "plan/layout_json.h"
#include "shardpipe/version.h"

namespace shardpipe {
namespace {

constexpr const char* kKind = "artefact";
constexpr int kVersion = 2;
constexpr const char* kAgain = "copy the whole folder again, or compile it again";
constexpr std::pair<ModelProgram, const char*> kPrograms[] = {
    {ModelProgram::generation, "generation"},
    {ModelProgram::forward, "forward"},
    {ModelProgram::forward_with_mask, "forward_with_mask"}};
constexpr std::pair<Manifest::Source, const char*> kSources[] = {
    {Manifest::Source::folder, "folder"},
    {Manifest::Source::exported, "exported"},
    {Manifest::Source::module, "module"}};

template <typename T, size_t N>
std::string name_of(const std::pair<T, const char*> (&table)[N], T value) {
  return std::find_if(std::begin(table), std::end(table), [&](const auto& row) { return row.first == value; })->second;
}

template <typename T, size_t N>
T value_of(const std::pair<T, const char*> (&table)[N], const std::string& name, const std::string& where) {
  for (const auto& [value, known] : table) {
    if (name == known) {
      return value;
    }
  }
  throw_input("{}: \"{}\" is not known", where, name);
}

std::string hex(uint64_t value) {
  return fmt::format("{:016x}", value);
}

uint64_t parse_hex(const std::string& text) {
  return std::stoull(text, nullptr, 16);
}

// What the operators of a plan depend on: "2.13".
std::string torch_series() {
  return fmt::format("{}.{}", TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR);
}

Json to_json(const Manifest& manifest) {
  Json json = {{"kind", kKind}, {"version", kVersion}, {"shardpipe", SHARDPIPE_VERSION}, {"torch", torch_series()}};
  json["id"] = manifest.id;
  json["model"] = {
      {"source", name_of(kSources, manifest.source)},
      {"family", manifest.family},
      {"dtype", graph::dtype_name(manifest.dtype)}};
  json["ranks"] = manifest.num_ranks();
  json["layout"] = plan::layout_to_json(manifest.layout);
  json["threads"] = manifest.threads;
  json["device"] = manifest.device;
  json["kernels"] = manifest.kernels;
  json["programs"] = Json::array();
  for (const Manifest::Program& program : manifest.programs) {
    json["programs"].push_back(
        {{"program", to_string(program.program)},
         {"gradients", program.gradients},
         {"plan", program.plan},
         {"signature", program.signature}});
  }
  json["weights"] = manifest.references ? "referenced" : "copied";
  json["files"] = Json::array();
  for (const Manifest::File& file : manifest.files) {
    json["files"].push_back({{"name", file.name}, {"bytes", file.size_bytes}, {"hash", hex(file.hash)}});
  }
  json["referenced"] = Json::array();
  for (const Manifest::Reference& file : manifest.referenced) {
    json["referenced"].push_back({{"path", file.path}, {"bytes", file.size_bytes}, {"modified_ns", file.modified_ns}});
  }
  return json;
}

Manifest from_json(const Json& json, const std::string& where) {
  Manifest manifest;
  manifest.id = json.at("id");
  const Json& model = json.at("model");
  manifest.source = value_of(kSources, model.at("source"), where);
  manifest.family = model.at("family");
  const std::string dtype = model.at("dtype");
  manifest.dtype = graph::parse_dtype(dtype).value();
  manifest.layout = plan::layout_from_json(json.at("layout"));
  manifest.threads = json.at("threads");
  manifest.device = json.at("device");
  manifest.kernels = json.at("kernels");
  for (const Json& program : json.at("programs")) {
    manifest.programs.push_back(
        {value_of(kPrograms, program.at("program"), where), program.at("gradients"), program.at("plan"),
         program.at("signature")});
  }
  manifest.references = json.at("weights") == "referenced";
  for (const Json& file : json.at("files")) {
    manifest.files.push_back({file.at("name"), file.at("bytes"), parse_hex(file.at("hash"))});
  }
  for (const Json& file : json.at("referenced")) {
    manifest.referenced.push_back({file.at("path"), file.at("bytes"), file.at("modified_ns")});
  }
  return manifest;
}

uint64_t hash_file(const std::filesystem::path& path) {
  constexpr size_t kPiece = size_t{32} << 20;
  const auto file = MappedFile::open(path);
  ContentHash hash;
  for (size_t at = 0; at < file->size_bytes(); at += kPiece) {
    const auto piece = file->bytes().subspan(at, std::min(kPiece, file->size_bytes() - at));
    hash.add(piece);
    checkpoint::release_pages(*file, piece.data(), piece.size());
  }
  return hash.value();
}

bool is_weights(const std::string& name) {
  return name.starts_with("weights/");
}

void check_file(const Manifest::File& file, const std::filesystem::path& path, bool content) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    throw Error(ErrorCode::input, fmt::format("{} is missing: the artefact is not complete", path.string()), kAgain);
  }
  const uint64_t size = std::filesystem::file_size(path, error);
  if (size != file.size_bytes) {
    throw Error(
        ErrorCode::input,
        fmt::format("{} is damaged: it has {} bytes, was written with {}", path.string(), size, file.size_bytes),
        kAgain);
  }
  if (content && hash_file(path) != file.hash) {
    throw Error(
        ErrorCode::input, fmt::format("{} is damaged: its content is not what was written", path.string()), kAgain);
  }
}

}  // namespace

void check_owner(const Manifest& manifest, const std::filesystem::path& folder, int rank) {
  if (manifest.references) {
    return;
  }
  const std::filesystem::path path = folder / weights_file(rank);
  const std::map<std::string, std::string> metadata = checkpoint::SafetensorsFile::open(path)->metadata();
  const auto value = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  if (value("artefact") != manifest.id || value("rank") != std::to_string(rank)) {
    throw Error(
        ErrorCode::input,
        value("artefact") == manifest.id
            ? fmt::format("{} holds the weights of rank {}", path.string(), value("rank"))
            : fmt::format("{} does not belong to the plans of this artefact", path.string()),
        kAgain);
  }
}

namespace {

void check_reference(const Manifest::Reference& file) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file.path, error)) {
    throw Error(
        ErrorCode::input, fmt::format("the weights are in {}, which is not there", file.path),
        "compile without --references for a folder that does without the model's files");
  }
  const Manifest::Reference now = describe_reference(file.path);
  if (now.size_bytes != file.size_bytes || now.modified_ns != file.modified_ns) {
    throw Error(
        ErrorCode::input,
        now.size_bytes == file.size_bytes
            ? fmt::format("{} was written since the artefact was compiled", file.path)
            : fmt::format(
                  "{} has {} bytes, had {} when the artefact was compiled", file.path, now.size_bytes, file.size_bytes),
        "compile it again");
  }
}

}  // namespace

std::string weights_file(int rank) {
  return fmt::format("weights/rank-{}.safetensors", rank);
}

std::string to_string(ModelProgram program) {
  return name_of(kPrograms, program);
}

const Manifest::Program* Manifest::find(ModelProgram program, bool gradients) const {
  const bool only = source != Source::folder;
  const auto found = std::find_if(programs.begin(), programs.end(), [&](const Program& one) {
    return (only || one.program == program) && one.gradients == gradients;
  });
  return found == programs.end() ? nullptr : &*found;
}

void write_manifest(const Manifest& manifest, const std::filesystem::path& folder) {
  Json json = to_json(manifest);
  json["hash"] = hex(fnv1a(json.dump()));
  write_file(folder / kManifestFile, json.dump(1));
}

Manifest read_manifest(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kManifestFile;
  const std::string where = path.string();
  Json json = read_json(path);
  try {
    if (json.at("kind") != kKind) {
      throw_input("{} is of kind {}, not of an artefact", where, json.at("kind").dump());
    }
    if (json.at("version") != kVersion) {
      throw Error(
          ErrorCode::input,
          fmt::format("{} is of version {}, this program reads version {}", where, json.at("version").dump(), kVersion),
          "compile it again");
    }
    if (json.at("torch") != torch_series()) {
      throw Error(
          ErrorCode::input,
          fmt::format(
              "{} was compiled with LibTorch {}, whose operators may differ; this program has {}", where,
              json.at("torch").dump(), torch_series()),
          "compile it again");
    }
    const std::string hash = json.at("hash");
    json.erase("hash");
    if (hash != hex(fnv1a(json.dump()))) {
      throw Error(ErrorCode::input, fmt::format("{} is damaged: its hash does not fit its content", where), kAgain);
    }
    return from_json(json, where);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {  // of a key, a number or a name
    throw_input("{} is damaged: {}", where, error.what());
  }
}

Manifest::File describe_file(const std::filesystem::path& folder, const std::string& name) {
  return {name, std::filesystem::file_size(folder / name), hash_file(folder / name)};
}

Manifest::Reference describe_reference(const std::filesystem::path& path) {
  std::error_code error;
  const uint64_t size = std::filesystem::file_size(path, error);
  if (error) {
    throw_input("cannot read {}: {}", path.string(), error.message());
  }
  const auto modified = std::chrono::file_clock::to_sys(std::filesystem::last_write_time(path, error));
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(modified.time_since_epoch());
  return {std::filesystem::absolute(path).lexically_normal().string(), size, since.count()};
}

void check_files(const Manifest& manifest, const std::filesystem::path& folder, bool all) {
  for (const Manifest::File& file : manifest.files) {
    check_file(file, folder / file.name, all || !is_weights(file.name));
  }
  for (const Manifest::Reference& file : manifest.referenced) {
    check_reference(file);
  }
  for (int rank = 0; rank < manifest.num_ranks(); ++rank) {
    check_owner(manifest, folder, rank);
  }
}

}  // namespace shardpipe
