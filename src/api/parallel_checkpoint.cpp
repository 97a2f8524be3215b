// Checkpoints of modules that are made of parallel layers: whole ones, of which each part reads its pieces, and those
// of which each part has a file of its own.
#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>

#include <set>

#include "api/parallel_layers.h"
#include "base/error.h"
#include "base/json.h"
#include "checkpoint/folder.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/text.h"

namespace shardpipe {
namespace {

namespace fs = std::filesystem;
using checkpoint::in_quotes;
using checkpoint::list_text;
using checkpoint::shape_text;

constexpr const char* kDescription = "shardpipe.part";

/// A tensor of a module.
struct Held {
  std::vector<std::string> names;  // several of a tied one
  at::Tensor tensor;
  LayerPiece piece;  // without a layer: whole

  std::vector<int64_t> whole_shape() const {
    std::vector<int64_t> shape = tensor.sizes().vec();
    if (piece.layer != nullptr) {
      shape[static_cast<size_t>(piece.dim)] = piece.layer->whole_extent();
    }
    return shape;
  }
  /// How it is divided, for a part's file; null of a whole one.
  Json division() const {
    if (piece.layer == nullptr || piece.layer->parts() == 1) {
      return {};
    }
    std::vector<int64_t> extents;
    for (int part = 0; part < piece.layer->parts(); ++part) {
      extents.push_back(piece.layer->local_extent(part));
    }
    return {{"dim", piece.dim}, {"extents", extents}};
  }
};

std::vector<Held> tensors_of(const torch::nn::Module& module) {
  const std::map<std::string, LayerPiece> pieces = find_pieces(module);
  std::vector<Held> all;
  std::map<const c10::TensorImpl*, size_t> known;
  const auto add = [&](const auto& tensors) {
    for (const auto& item : tensors) {
      const auto [at, first] = known.emplace(item.value().unsafeGetTensorImpl(), all.size());
      if (first) {
        all.push_back({{}, item.value().detach(), {}});
      }
      Held& held = all[at->second];
      held.names.push_back(item.key());
      if (const auto piece = pieces.find(item.key()); piece != pieces.end()) {
        held.piece = piece->second;
      }
    }
  };
  add(module.named_parameters());
  add(module.named_buffers());
  for (const Held& held : all) {
    if (held.tensor.is_meta()) {
      throw Error(
          ErrorCode::usage,
          fmt::format("{} of the module is on meta, which holds no values", in_quotes(held.names.front())),
          "make the module on the CPU");
    }
  }
  return all;
}

/// The name under which a checkpoint holds each tensor.
std::vector<std::string> find_names(
    const checkpoint::Checkpoint& file, const std::vector<Held>& tensors, const LoadOptions& options) {
  std::vector<std::string> found;
  std::set<std::string> known;
  for (const Held& held : tensors) {
    std::string source;
    for (const std::string& name : held.names) {
      const std::string spelling = options.prefix + name;
      known.insert(spelling);
      if (source.empty() && file.contains(spelling)) {
        source = spelling;
      }
    }
    if (source.empty()) {
      const std::string wanted = options.prefix + held.names.front();
      const std::vector<std::string>& names = file.names();
      throw Error(
          ErrorCode::input,
          fmt::format(
              "{} of the module is missing in {}; its {} tensors include {}", in_quotes(wanted), file.path().string(),
              names.size(), names.empty() ? "none" : list_text(checkpoint::nearest_names(wanted, names), 3)),
          "LoadOptions::prefix is what the checkpoint's names begin with");
    }
    found.push_back(source);
  }
  std::vector<std::string> unexpected;
  for (const std::string& name : file.names()) {
    if (name.starts_with(options.prefix) && !known.contains(name)) {
      unexpected.push_back(name);
    }
  }
  if (!unexpected.empty() && !options.allow_unexpected) {
    throw Error(
        ErrorCode::input,
        fmt::format("{} has tensors that the module does not have: {}", file.path().string(), list_text(unexpected, 3)),
        "LoadOptions::allow_unexpected passes over them");
  }
  return found;
}

void check_shape(
    const checkpoint::Checkpoint& file,
    const std::string& source,
    at::IntArrayRef expected,
    const std::string& name,
    const char* what) {
  const std::vector<int64_t>& shape = file.info(source).shape;
  if (at::IntArrayRef(shape) != expected) {
    throw_input(
        "{} has shape {} in {}, {} {} has shape {}", in_quotes(source), shape_text(shape), file.path().string(), what,
        in_quotes(name), shape_text(expected));
  }
}

fs::path part_file(const fs::path& folder, int part, int parts) {
  return folder / fmt::format("part-{}-of-{}.safetensors", part, parts);
}

/// Files of a folder that a part of whatever number of parts wrote, and that number.
std::vector<std::pair<fs::path, int>> part_files(const fs::path& folder) {
  std::vector<std::pair<fs::path, int>> found;
  std::error_code error;  // what cannot be seen is not there
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    int part = 0;
    int parts = 0;
    if (std::sscanf(name.c_str(), "part-%d-of-%d.safetensors", &part, &parts) == 2 &&
        entry.path() == part_file(folder, part, parts)) {
      found.emplace_back(entry.path(), parts);
    }
  }
  return found;
}

/// This part of how many, of all layers of a module.
std::pair<int, int> part_of(const std::vector<Held>& tensors) {
  std::pair<int, int> place = {0, 1};
  for (const Held& held : tensors) {
    if (held.piece.layer == nullptr || held.piece.layer->parts() == 1) {
      continue;
    }
    const std::pair<int, int> other = {held.piece.layer->part(), held.piece.layer->parts()};
    if (place.second > 1 && place != other) {
      throw_usage(
          "the module's layers are divided differently: {} is part {} of {}, others are part {} of {}",
          in_quotes(held.names.front()), other.first, other.second, place.first, place.second);
    }
    place = other;
  }
  return place;
}

std::string division_text(const Json& division, const std::string& name, const fs::path& path) {
  if (division.is_null()) {
    return "whole";
  }
  try {
    return fmt::format(
        "divided along dimension {} into {}", division.at("dim").get<int>(),
        fmt::join(division.at("extents").get<std::vector<int64_t>>(), " + "));
  } catch (const Json::exception&) {
    throw_input("{} is damaged: how {} is divided is {}", path.string(), in_quotes(name), division.dump());
  }
}

/// What a part's file says of itself.
struct Description {
  int part = 0;
  int parts = 1;
  Json divided;  // by name: see Held::division
};

Description read_description(const checkpoint::SafetensorsFile& file) {
  const auto text = file.metadata().find(kDescription);
  if (text == file.metadata().end()) {
    throw_input("{} is no part that save_sharded() wrote: it does not say which", file.path().string());
  }
  const Json json = parse_json(text->second, file.path().string());
  try {
    Description description{json.at("part"), json.at("parts"), json.at("divided")};
    if (description.divided.is_object()) {
      return description;
    }
  } catch (const Json::exception&) {
  }
  throw_input("{} is damaged: it describes itself as {}", file.path().string(), text->second);
}

}  // namespace

void load_unsharded(torch::nn::Module& module, const fs::path& path, const LoadOptions& options) {
  const c10::NoGradGuard no_grad;
  const auto file = checkpoint::Checkpoint::open(path);
  const std::vector<Held> tensors = tensors_of(module);
  const std::vector<std::string> sources = find_names(*file, tensors, options);
  for (size_t i = 0; i < tensors.size(); ++i) {
    check_shape(*file, sources[i], tensors[i].whole_shape(), tensors[i].names.front(), "the module's");
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [names, tensor, piece] = tensors[i];
    if (piece.layer == nullptr) {
      tensor.copy_(file->tensor(sources[i]));
    } else {
      tensor.copy_(file->slice(sources[i], piece.dim, piece.layer->local_begin(), piece.layer->local_extent()));
    }
    file->release(sources[i]);
  }
}

void save_sharded(const torch::nn::Module& module, const fs::path& folder) {
  const std::vector<Held> tensors = tensors_of(module);
  const auto [part, parts] = part_of(tensors);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw Error(
        ErrorCode::io, fmt::format("cannot make the folder {}: {}", folder.string(), error.message()),
        "name a folder in one that you may write to");
  }
  std::vector<std::pair<std::string, at::Tensor>> written;
  Json divided = Json::object();
  for (const Held& held : tensors) {
    written.emplace_back(held.names.front(), held.tensor);
    divided[held.names.front()] = held.division();
  }
  const Json description = {{"part", part}, {"parts", parts}, {"divided", divided}};
  checkpoint::write_safetensors(part_file(folder, part, parts), written, {{kDescription, description.dump()}});
  if (part == 0) {
    for (const auto& [path, others] : part_files(folder)) {
      if (others != parts) {
        fs::remove(path, error);
      }
    }
  }
}

void load_sharded(torch::nn::Module& module, const fs::path& folder) {
  const c10::NoGradGuard no_grad;
  const std::vector<Held> tensors = tensors_of(module);
  const auto [part, parts] = part_of(tensors);
  const fs::path path = part_file(folder, part, parts);
  if (!fs::exists(path)) {
    const std::vector<std::pair<fs::path, int>> there = part_files(folder);
    for (const auto& [other, others] : there) {
      if (others != parts) {
        throw Error(
            ErrorCode::input,
            fmt::format("{} was saved in {} parts, the module has {}", folder.string(), others, parts),
            fmt::format("divide the module among {} ranks", others));
      }
    }
    throw Error(
        ErrorCode::input, fmt::format("there is no {}", path.string()),
        there.empty() ? "save_sharded() writes such files; load_unsharded() reads whole checkpoints" : "");
  }
  const auto file = checkpoint::SafetensorsFile::open(path);
  const Description description = read_description(*file);
  if (description.part != part || description.parts != parts) {
    throw_input("{} says that it is part {} of {}", path.string(), description.part, description.parts);
  }
  const auto whole = checkpoint::Checkpoint::open(path);
  const std::vector<std::string> sources = find_names(*whole, tensors, {});
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Json saved = description.divided.value(sources[i], Json());
    if (saved != tensors[i].division()) {
      throw_input(
          "{} is {} in {}, the module's is {}", in_quotes(sources[i]), division_text(saved, sources[i], path),
          path.string(), division_text(tensors[i].division(), sources[i], path));
    }
    check_shape(*whole, sources[i], tensors[i].tensor.sizes(), tensors[i].names.front(), "the module's piece of");
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    tensors[i].tensor.copy_(whole->tensor(sources[i]));
    whole->release(sources[i]);
  }
}

}  // namespace shardpipe
