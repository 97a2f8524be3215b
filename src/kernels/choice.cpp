#include "kernels/choice.h"

#include <ATen/Parallel.h>
#include <torch/headeronly/version.h>

#include <cstdlib>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "kernels/ops.h"
#include "kernels/simd_level.h"

namespace shardpipe::kernels {
namespace {

// Part of the key of a cached choice. Raise it when a kernel changes, so that old measurements no longer count.
constexpr int kKernelsRevision = 1;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The lines of /proc/cpuinfo that say which processor the first one is; empty where there is no such file.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  std::string family;
  while (std::getline(file, line) && !line.empty()) {
    for (const char* key : {"vendor_id", "cpu family", "model", "stepping", "CPU implementer", "CPU part"}) {
      if (line.starts_with(key)) {
        const size_t colon = line.find(':');
        family += colon == std::string::npos ? "" : line.substr(colon + 1);
      }
    }
  }
  return family;
}

Json make_key(int64_t threads) {
  return {
      {"processor", processor_name()},
      {"simd", to_string(simd_level())},
      {"threads", threads},
      {"torch", TORCH_VERSION},
      {"kernels", kKernelsRevision}};
}

int64_t rows_at(const Json& json, const char* key, const std::string& where) {
  if (!json.is_object() || !json.contains(key) || !json.at(key).is_number_integer() || json.at(key) < 0) {
    throw_input("{}: the kernel choice needs '{}', a number of rows of at least 0", where, key);
  }
  return json.at(key).get<int64_t>();
}

std::string many_at(const Json& json, const char* key, const std::string& where) {
  if (!json.is_object() || !json.contains(key) || (json.at(key) != "onednn" && json.at(key) != "aten")) {
    throw_input("{}: the kernel choice needs '{}', onednn or aten", where, key);
  }
  return json.at(key).get<std::string>();
}

}  // namespace

Json KernelChoice::to_json() const {
  return {
      {"few_rows_f32", few_rows_f32},
      {"few_rows_bf16", few_rows_bf16},
      {"many_f32", many_f32},
      {"many_bf16", many_bf16}};
}

KernelChoice KernelChoice::from_json(const Json& json, const std::string& where) {
  KernelChoice choice;
  choice.few_rows_f32 = rows_at(json, "few_rows_f32", where);
  choice.few_rows_bf16 = rows_at(json, "few_rows_bf16", where);
  choice.many_f32 = many_at(json, "many_f32", where);
  choice.many_bf16 = many_at(json, "many_bf16", where);
  return choice;
}

KernelChoice default_choice() {
  KernelChoice choice;
  choice.many_f32 = onednn_runs(at::kFloat) ? "onednn" : "aten";
  choice.many_bf16 = onednn_runs(at::kBFloat16) ? "onednn" : "aten";
  return choice;
}

std::filesystem::path default_cache_dir() {
  if (const std::string dir = environment("SHARDPIPE_CACHE_DIR"); !dir.empty()) {
    return dir;
  }
  if (const std::string dir = environment("XDG_CACHE_HOME"); !dir.empty()) {
    return std::filesystem::path(dir) / "shardpipe";
  }
  if (const std::string dir = environment("HOME"); !dir.empty()) {
    return std::filesystem::path(dir) / ".cache" / "shardpipe";
  }
  return {};
}

KernelChoice load_or_measure(int64_t threads, const std::filesystem::path& cache_dir) {
  if (environment("SHARDPIPE_MEASURE") == "0") {
    return default_choice();
  }
  threads = threads > 0 ? threads : at::get_num_threads();
  const Json key = make_key(threads);
  const std::filesystem::path file = cache_dir / fmt::format("kernels-{:016x}.json", fnv1a(key.dump()));
  std::error_code no_such_file;
  if (!cache_dir.empty() && std::filesystem::exists(file, no_such_file)) {
    try {
      const Json cached = read_json(file);
      if (cached.is_object() && cached.contains("key") && cached.at("key") == key && cached.contains("choice")) {
        return KernelChoice::from_json(cached.at("choice"), file.string());
      }
    } catch (const Error& error) {
      log_info("measuring the kernels again: {}", error.message());
    }
  }
  const KernelChoice choice = measure(threads);
  if (!cache_dir.empty()) {
    try {
      std::filesystem::create_directories(cache_dir);
      write_file(file, Json{{"key", key}, {"choice", choice.to_json()}}.dump(2) + "\n");
    } catch (const std::exception& error) {
      log_info("the choice of kernels is not kept: {}", error.what());
    }
  }
  return choice;
}

}  // namespace shardpipe::kernels
