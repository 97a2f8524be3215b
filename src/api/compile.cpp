#include <ATen/ATen.h>
#include <stdlib.h>

#include <algorithm>
#include <numeric>

#include "api/artefact.h"
#include "api/planning.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "checkpoint/safetensors_writer.h"
#include "frontend/pt2/signature.h"
#include "shardpipe/artefact.h"

namespace shardpipe {
namespace {

namespace fs = std::filesystem;

// What the commands read of a model's folder besides its weights.
constexpr const char* kCopied[] = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "additional_chat_templates"};

void check_output(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder, error) && (!fs::is_directory(folder, error) || !fs::is_empty(folder, error))) {
    throw Error(
        ErrorCode::usage,
        fmt::format(
            "{} {}", folder.string(), fs::is_directory(folder, error) ? "is a folder with files in it" : "is a file"),
        "name a new folder, or remove it first");
  }
}

// A folder that takes its name when it is complete and is gone otherwise.
class NewFolder {
 public:
  explicit NewFolder(fs::path path) : path_(std::move(path)), temporary_(path_.string() + ".tmp-XXXXXX") {
    std::error_code error;
    fs::create_directories(path_.parent_path(), error);
    if (::mkdtemp(temporary_.data()) == nullptr) {
      throw Error(
          ErrorCode::io, fmt::format("cannot make the folder {}: {}", path_.string(), std::strerror(errno)),
          "name a folder in one that you may write to");
    }
    fs::permissions(temporary_, fs::perms(0755), error);
  }
  ~NewFolder() {
    std::error_code error;
    fs::remove_all(temporary_, error);
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  fs::path path() const { return temporary_; }
  void commit() {
    std::error_code error;
    fs::rename(temporary_, path_, error);
    if (error) {
      throw Error(ErrorCode::io, fmt::format("cannot make the folder {}: {}", path_.string(), error.message()));
    }
  }

 private:
  fs::path path_;
  std::string temporary_;
};

/// A program of the model: its plan, and where its weights are now.
// NOLINTNEXTLINE(bugprone-exception-escape): a Json moves without
struct Compiled {
  Manifest::Program entry;
  std::shared_ptr<const plan::Plan> plan;  // shared by programs that are the same
};

std::vector<ModelProgram> programs_of(const Model::Impl& model) {
  if (!model.is_folder()) {
    return {ModelProgram::forward};
  }
  std::vector<ModelProgram> programs;
  for (const hf::Program program : hf::programs_of(model.folder)) {
    programs.push_back(
        program == hf::Program::generation ? ModelProgram::generation
        : program == hf::Program::forward  ? ModelProgram::forward
                                           : ModelProgram::forward_with_mask);
  }
  return programs;
}

Json signature_of(const Model::Impl& model, ModelProgram program) {
  return model.is_folder()   ? folder_signature(model.loaded(program))
         : model.is_exported ? pt2::signature_to_json(model.exported())
                             : Json::object();
}

void check_opaque(const graph::Graph& graph) {
  for (const graph::Node& node : graph.nodes) {
    if (node.op_name().starts_with("shardpipe::opaque")) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "the opaque code in module \"{}\" cannot be compiled: it is a function of this process", node.module),
          "run the module itself");
    }
  }
}

std::vector<Compiled> plan_programs(const Model& model, const CompileOptions& options) {
  const Model::Impl& impl = model.impl();
  const LayoutOptions& layout = options.plan.layout;
  PlanOptions planning = options.plan;
  planning.threads =
      threads_of_rank(options.plan.threads, std::max(1, layout.pp) * std::max(1, layout.dp) * std::max(1, layout.tp));
  std::vector<Compiled> all;
  std::vector<std::pair<std::string, size_t>> texts;  // of a plan, and the first program that has it
  for (const ModelProgram program : programs_of(impl)) {
    for (const bool gradients : {false, true}) {
      if (gradients && program == ModelProgram::generation) {
        continue;
      }
      planning.program = program;
      planning.gradients = gradients;
      const bool generates = program == ModelProgram::generation;
      plan::Plan plan = plan_for(model, planning, generates ? NamedTensors() : options.example);
      check_opaque(plan.graph);
      Compiled compiled;
      compiled.entry.program = program;
      compiled.entry.gradients = gradients;
      compiled.entry.signature = signature_of(impl, program);
      const std::string text = plan::serialize(plan);
      const auto same =
          std::find_if(texts.begin(), texts.end(), [&](const auto& known) { return known.first == text; });
      if (same != texts.end()) {
        compiled.entry.plan = all[same->second].entry.plan;
        compiled.plan = all[same->second].plan;
      } else {
        texts.emplace_back(text, all.size());
        compiled.entry.plan = fmt::format("plans/{}{}.txt", to_string(program), gradients ? "-gradients" : "");
        compiled.plan = std::make_shared<const plan::Plan>(std::move(plan));
      }
      all.push_back(std::move(compiled));
    }
  }
  return all;
}

/// What the ranks of one part of the axis tp hold.
struct PartWeights {
  PartWeights(const plan::Plan& whole, int part, runtime::TensorSource tensors)
      : plan(whole), weights(plan, std::move(tensors)) {
    plan.select_part(part);
  }
  plan::Plan plan;
  runtime::Weights weights;
};

/// A tensor of a rank, as its file holds it.
struct Held {
  const runtime::Weights* weights = nullptr;  // where it comes from
  const graph::Value* value = nullptr;
  checkpoint::LaterTensor written;
  std::vector<int64_t> permuted;  // order of dimensions in the file; empty: as they are
};

// Dimensions in the order in which the tensor lies in memory; empty when it is contiguous, or no order makes it so.
std::vector<int64_t> memory_order(const at::Tensor& tensor) {
  if (tensor.is_contiguous() || !tensor.is_non_overlapping_and_dense()) {
    return {};
  }
  std::vector<int64_t> order(static_cast<size_t>(tensor.dim()));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    // One element of a dimension may have any stride.
    return std::pair(tensor.stride(a), tensor.size(a)) > std::pair(tensor.stride(b), tensor.size(b));
  });
  return order;
}

Held describe(const runtime::Weights& weights, const graph::Value& value) {
  Held held{&weights, &value, {}, {}};
  held.written.name = value.name;
  if (weights.copies(value)) {
    // Converted tensors and pieces are contiguous, in memory of their own.
    held.written.dtype = *value.dtype;
    held.written.shape = graph::evaluate(value.shape.value(), {});
  } else {
    at::Tensor view = weights.load(value);
    held.permuted = memory_order(view);
    view = held.permuted.empty() ? view : view.permute(held.permuted);
    held.written.dtype = view.scalar_type();
    held.written.shape = view.sizes().vec();
    held.written.place =
        view.is_contiguous() ? reinterpret_cast<uintptr_t>(view.const_data_ptr()) % checkpoint::kPlaceUnit : 0;
  }
  return held;
}

/// The weights of a rank: what the programs use together, each tensor once.
class RankWeights {
 public:
  void add(const plan::Plan& plan, const runtime::Weights& weights, int rank) {
    for (const graph::ValueId id : runtime::held_tensors(plan, rank)) {
      const graph::Value& value = plan.graph.values[static_cast<size_t>(id)];
      if (!value.content.defined() && !held_.contains(value.name)) {
        held_.emplace(value.name, describe(weights, value));
      }
    }
  }

  const std::map<std::string, Held>& held() const { return held_; }

  void write(const fs::path& file, std::map<std::string, std::string> metadata) const {
    std::vector<checkpoint::LaterTensor> tensors;
    Json permuted = Json::object();
    auto last = std::make_shared<const Held*>(nullptr);
    for (const auto& [name, held] : held_) {
      tensors.push_back(held.written);
      tensors.back().make = [last, &held = held] {
        // The one before is written by now.
        if (*last != nullptr) {
          (*last)->weights->release(*(*last)->value);
        }
        *last = &held;
        const at::Tensor tensor = held.weights->load(*held.value);
        return held.permuted.empty() ? tensor : tensor.permute(held.permuted);
      };
      if (!held.permuted.empty()) {
        permuted[name] = held.permuted;
      }
    }
    if (!permuted.empty()) {
      metadata[kPermuted] = permuted.dump();
    }
    checkpoint::write_placed(file, tensors, metadata);
  }

 private:
  std::map<std::string, Held> held_;
};

// The plan as the artefact holds it: each rank finds its weights in its own file.
plan::Plan with_own_weights(plan::Plan plan, const std::vector<RankWeights>& ranks) {
  plan.checkpoints = {kOwnWeights};
  plan.own_pieces = true;
  plan.weights.clear();
  for (const RankWeights& rank : ranks) {
    for (const auto& [name, held] : rank.held()) {
      if (held.permuted.empty()) {
        plan.weights[name] = {0, name};
      }
    }
  }
  return plan;
}

void write_plans(
    const std::vector<Compiled>& programs,
    const std::vector<RankWeights>& ranks,
    const fs::path& folder,
    Manifest& manifest) {
  fs::create_directory(folder / "plans");
  ContentHash hash;
  for (const Compiled& program : programs) {
    const fs::path file = folder / program.entry.plan;
    if (!fs::exists(file)) {
      const std::string text =
          plan::serialize(manifest.references ? *program.plan : with_own_weights(*program.plan, ranks));
      write_file(file, text);
      manifest.files.push_back(describe_file(folder, program.entry.plan));
    }
    manifest.programs.push_back(program.entry);
  }
  for (const Manifest::File& file : manifest.files) {
    hash.add(std::as_bytes(std::span(&file.hash, 1)));
  }
  manifest.id = fmt::format("{:016x}", hash.value());
}

void copy_file(const fs::path& from, const fs::path& folder, const std::string& name, Manifest& manifest) {
  fs::create_directories((folder / name).parent_path());
  write_file(folder / name, read_file(from));
  manifest.files.push_back(describe_file(folder, name));
}

void copy_settings(const fs::path& model, const fs::path& folder, Manifest& manifest) {
  for (const std::string name : kCopied) {
    std::error_code error;
    if (fs::is_regular_file(model / name, error)) {
      copy_file(model / name, folder, name, manifest);
    } else if (fs::is_directory(model / name, error)) {
      for (const auto& entry : fs::directory_iterator(model / name)) {
        if (entry.is_regular_file(error)) {
          copy_file(entry.path(), folder, name + "/" + entry.path().filename().string(), manifest);
        }
      }
    }
  }
}

}  // namespace

void compile(const Model& model, const CompileOptions& options, const fs::path& folder) {
  const Model::Impl& impl = model.impl();
  if (impl.artefact) {
    throw Error(
        ErrorCode::usage, fmt::format("{} is compiled already", impl.folder.string()),
        "compile the model it was made of");
  }
  if (options.references && impl.is_module()) {
    throw_usage("--references: the weights of a module are in no file");
  }
  const fs::path output = fs::absolute(folder.has_filename() ? folder : folder.parent_path()).lexically_normal();
  check_output(output);
  const std::vector<Compiled> programs = plan_programs(model, options);
  const plan::Plan& first = *programs.front().plan;

  Manifest manifest;
  manifest.source = impl.is_folder()   ? Manifest::Source::folder
                    : impl.is_exported ? Manifest::Source::exported
                                       : Manifest::Source::module;
  manifest.family = first.family;
  manifest.dtype = first.dtype;
  manifest.layout = options.plan.layout;
  manifest.threads = options.plan.threads;
  manifest.device = options.plan.device;
  manifest.kernels = options.plan.kernels;
  manifest.references = options.references;

  // By program, and part of tp.
  std::map<const plan::Plan*, std::vector<std::unique_ptr<PartWeights>>> weights;
  std::vector<RankWeights> ranks(static_cast<size_t>(manifest.num_ranks()));
  for (const Compiled& program : programs) {
    std::vector<std::unique_ptr<PartWeights>>& parts = weights[program.plan.get()];
    if (!parts.empty()) {
      continue;
    }
    for (int part = 0; part < program.plan->layout.tp; ++part) {
      parts.push_back(std::make_unique<PartWeights>(*program.plan, part, impl.tensors()));
    }
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      const mesh::Coordinates at = program.plan->mesh().coordinates(static_cast<int>(rank));
      const PartWeights& part = *parts[static_cast<size_t>(at.tp)];
      ranks[rank].add(part.plan, part.weights, at.pp);
    }
    if (options.references) {
      for (const fs::path& file : parts.front()->weights.opened_files()) {
        const Manifest::Reference reference = describe_reference(file);
        const bool known = std::any_of(
            manifest.referenced.begin(), manifest.referenced.end(),
            [&](const Manifest::Reference& one) { return one.path == reference.path; });
        if (!known) {
          manifest.referenced.push_back(reference);
        }
      }
    }
  }

  NewFolder made(output);
  write_plans(programs, ranks, made.path(), manifest);
  if (impl.is_folder()) {
    copy_settings(impl.folder, made.path(), manifest);
  }
  if (!options.references) {
    fs::create_directory(made.path() / "weights");
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      const std::string name = weights_file(static_cast<int>(rank));
      ranks[rank].write(made.path() / name, {{"artefact", manifest.id}, {"rank", std::to_string(rank)}});
      manifest.files.push_back(describe_file(made.path(), name));
    }
  }
  write_manifest(manifest, made.path());
  made.commit();
}

}  // namespace shardpipe
