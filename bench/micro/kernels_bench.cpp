// Times each kernel and says which part of the machine's limit it reaches.
//   kernels_bench [google-benchmark's options] [--threads=N] [--weights=FILE]
// --weights: a file that is mapped read-only and serves as the weights (as a checkpoint would be); made when it does
// not exist. Without it the weights are ordinary memory. Counters: GB/s of weights or cache, GFLOP/s, and `of_read` =
// GB/s over that of a plain read of the same memory by the same threads in this process.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <c10/core/InferenceMode.h>
#include <fmt/core.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "kernels/ops.h"
#include "kernels/parallel.h"
#include "kernels/simd_level.h"

namespace {

using namespace shardpipe;

// SmolLM2-135M: 30 layers and the head, more than any cache holds.
constexpr int64_t kHidden = 576;
constexpr int64_t kKv = 192;
constexpr int64_t kIntermediate = 1536;
constexpr int64_t kVocab = 49152;
constexpr int64_t kLayers = 30;
constexpr int64_t kHeads = 9;
constexpr int64_t kKvHeads = 3;
constexpr int64_t kHeadDim = 64;

struct Layer {
  at::Tensor q, k, v, o, gate, up, down;
};

/// All weights of the model in one block of memory, one after the other as in a checkpoint.
struct Weights {
  std::shared_ptr<const MappedFile> file;
  at::Tensor memory;  // the block when no file is mapped
  const char* bytes = nullptr;
  int64_t size_bytes = 0;
  std::vector<Layer> layers;
  at::Tensor head;

  Weights(at::ScalarType dtype, const std::string& path) {
    const auto element = static_cast<int64_t>(c10::elementSize(dtype));
    const int64_t of_layer = 2 * kHidden * kHidden + 2 * kKv * kHidden + 3 * kIntermediate * kHidden;
    size_bytes = (kLayers * of_layer + kVocab * kHidden) * element;
    if (path.empty()) {
      memory = at::full({size_bytes / element}, 0.01, dtype);
      bytes = static_cast<const char*>(memory.const_data_ptr());
    } else {
      if (!std::filesystem::exists(path) || std::filesystem::file_size(path) < static_cast<uintmax_t>(size_bytes)) {
        std::ofstream(path).write(std::string(static_cast<size_t>(size_bytes), '\x11').data(), size_bytes);
      }
      file = MappedFile::open(path);
      bytes = reinterpret_cast<const char*>(file->bytes().data());
    }
    int64_t offset = 0;
    const auto take = [&](int64_t out, int64_t in) {
      at::Tensor w = at::from_blob(const_cast<char*>(bytes) + offset, {out, in}, at::TensorOptions(dtype));
      offset += out * in * element;
      return w;
    };
    for (int64_t i = 0; i < kLayers; ++i) {
      Layer l;
      l.q = take(kHidden, kHidden);
      l.k = take(kKv, kHidden);
      l.v = take(kKv, kHidden);
      l.o = take(kHidden, kHidden);
      l.gate = take(kIntermediate, kHidden);
      l.up = take(kIntermediate, kHidden);
      l.down = take(kHidden, kIntermediate);
      layers.push_back(l);
    }
    head = take(kVocab, kHidden);
  }
};

std::string weights_path;

const Weights& weights(at::ScalarType dtype) {
  static const Weights f32(at::kFloat, weights_path);
  static const Weights bf16(at::kBFloat16, weights_path.empty() ? "" : weights_path + ".bf16");
  return dtype == at::kFloat ? f32 : bf16;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) int64_t read_512(const char* p, int64_t bytes) {
  using V = int64_t __attribute__((vector_size(64)));
  V sum[8] = {};
  for (int64_t i = 0; i + 512 <= bytes; i += 512) {
    for (int j = 0; j < 8; ++j) {
      V v;
      std::memcpy(&v, p + i + j * 64, sizeof v);
      sum[j] += v;
    }
  }
  V total = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
  return total[0] + total[3];
}
#endif

int64_t read_64(const char* p, int64_t bytes) {
  int64_t sum = 0;
  for (int64_t i = 0; i + 8 <= bytes; i += 8) {
    int64_t v;
    std::memcpy(&v, p + i, sizeof v);
    sum += v;
  }
  return sum;
}

/// Reads all weights once: the limit of whatever must read them.
void read_all(const Weights& w) {
  kernels::parallel_ranges(w.size_bytes / 4096, w.size_bytes, [&](int64_t begin, int64_t end) {
    const char* p = w.bytes + begin * 4096;
    const int64_t bytes = (end - begin) * 4096;
#if defined(__x86_64__)
    if (kernels::highest_simd_level() >= kernels::SimdLevel::avx512) {
      benchmark::DoNotOptimize(read_512(p, bytes));
      return;
    }
#endif
    benchmark::DoNotOptimize(read_64(p, bytes));
  });
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Runs `body` and the plain read in turn, so that both see the same neighbours on the machine, and reports the
/// medians.
template <typename Body>
void time_against_read(benchmark::State& state, at::ScalarType dtype, int64_t rows, const Body& body) {
  const c10::InferenceMode inference;
  const Weights& w = weights(dtype);
  std::vector<double> body_s;
  std::vector<double> read_s;
  body(w);
  for (auto _ : state) {
    auto start = std::chrono::steady_clock::now();
    body(w);
    body_s.push_back(seconds_since(start));
    start = std::chrono::steady_clock::now();
    read_all(w);
    read_s.push_back(seconds_since(start));
    state.SetIterationTime(body_s.back());
  }
  const auto median = [](std::vector<double>& v) {
    std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
    return v[v.size() / 2];
  };
  const double body_median = median(body_s);
  const double bytes = static_cast<double>(w.size_bytes);
  state.counters["ms"] = body_median * 1e3;
  state.counters["GB/s"] = bytes / body_median * 1e-9;
  state.counters["of_read"] = median(read_s) / body_median;
  state.counters["GFLOP/s"] =
      2.0 * static_cast<double>(rows) * bytes / static_cast<double>(c10::elementSize(dtype)) / body_median * 1e-9;
}

/// Every product of the model, one operator a weight.
template <typename Linear>
void all_products(const Weights& w, const at::Tensor& x, const at::Tensor& wide, const Linear& linear) {
  for (const Layer& l : w.layers) {
    for (const at::Tensor* weight : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up}) {
      linear(x, *weight);
    }
    linear(wide, l.down);
  }
  linear(x, w.head);
}

constexpr int64_t kAlways = 1 << 20;

void bench_linear(benchmark::State& state, at::ScalarType dtype, const std::string& how) {
  const int64_t rows = state.range(0);
  const at::Tensor x = at::full({rows, kHidden}, 0.5, dtype);
  const at::Tensor wide = at::full({rows, kIntermediate}, 0.5, dtype);
  time_against_read(state, dtype, rows, [&](const Weights& w) {
    all_products(w, x, wide, [&](const at::Tensor& in, const at::Tensor& weight) {
      benchmark::DoNotOptimize(
          kernels::linear(in, weight, {}, how == "own" ? kAlways : 0, how == "own" ? "aten" : how));
    });
  });
}

/// The products as a model calls them: q, k, v together, gate and up together.
void bench_fused(benchmark::State& state, at::ScalarType dtype) {
  const int64_t rows = state.range(0);
  const at::Tensor x = at::full({rows, kHidden}, 0.5, dtype);
  const c10::List<std::optional<at::Tensor>> no_biases;
  time_against_read(state, dtype, rows, [&](const Weights& w) {
    for (const Layer& l : w.layers) {
      benchmark::DoNotOptimize(kernels::linear_group(x, {l.q, l.k, l.v}, no_biases, kAlways, "aten"));
      benchmark::DoNotOptimize(kernels::linear(x, l.o, {}, kAlways, "aten"));
      const at::Tensor h = kernels::linear_gated(x, l.gate, l.up, {}, {}, "silu", kAlways, "aten");
      benchmark::DoNotOptimize(kernels::linear(h, l.down, {}, kAlways, "aten"));
    }
    benchmark::DoNotOptimize(kernels::linear(x, w.head, {}, kAlways, "aten"));
  });
}

/// One product that stays in the caches: what a call costs.
void bench_small(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor x = at::ones({1, kHidden});
  const at::Tensor w = at::ones({state.range(0), kHidden});
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels::linear(x, w, {}, kAlways, "aten"));
  }
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(w.nbytes()) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void bench_norm(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor x = at::ones({state.range(0), kHidden});
  const at::Tensor w = at::ones({kHidden});
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels::add_rms_norm(x, x, w, 1e-5));
  }
  state.counters["GB/s"] =
      benchmark::Counter(4.0 * static_cast<double>(x.nbytes()) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void bench_rotary(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor x = at::ones({state.range(0), kHeads, kHeadDim});
  const at::Tensor table = at::ones({state.range(0), kHeadDim / 2});
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels::rotary(x, table, table));
  }
  state.counters["GB/s"] =
      benchmark::Counter(2.0 * static_cast<double>(x.nbytes()) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

/// Decode: `rows` cache rows of `length` positions in each of several layers.
void bench_decode(benchmark::State& state, at::ScalarType dtype) {
  const c10::InferenceMode inference;
  const int64_t rows = state.range(0);
  const int64_t length = state.range(1);
  const int64_t layers = std::max<int64_t>(1, (int64_t{96} << 20) / (rows * length * kKvHeads * kHeadDim * 8));
  const auto options = at::TensorOptions(dtype);
  std::vector<at::Tensor> keys;
  std::vector<at::Tensor> values;
  for (int64_t i = 0; i < layers; ++i) {
    keys.push_back(at::full({rows, kKvHeads, length, kHeadDim}, 0.1, options));
    values.push_back(at::full({rows, kKvHeads, length, kHeadDim}, 0.1, options));
  }
  const at::Tensor q = at::full({rows, kHeads, kHeadDim}, 0.3, options);
  const at::Tensor k = at::full({rows, kKvHeads, kHeadDim}, 0.3, options);
  const at::Tensor slots = at::arange(rows, at::kLong);
  const at::Tensor positions = at::full({rows}, length - 1, at::kLong);
  for (auto _ : state) {
    for (int64_t i = 0; i < layers; ++i) {
      const auto l = static_cast<size_t>(i);
      benchmark::DoNotOptimize(kernels::cached_attention(q, k, k, keys[l], values[l], slots, positions, 0.125));
    }
  }
  state.counters["us_per_layer"] = benchmark::Counter(
      static_cast<double>(layers) * 1e-6, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["GB/s"] = benchmark::Counter(
      2.0 * static_cast<double>(layers) * static_cast<double>(keys[0].nbytes()) * 1e-9,
      benchmark::Counter::kIsIterationInvariantRate);
}

void bench_prefill(benchmark::State& state, at::ScalarType dtype) {
  const c10::InferenceMode inference;
  const int64_t tokens = state.range(0);
  const int64_t first = state.range(1);
  const auto options = at::TensorOptions(dtype);
  const at::Tensor cache = at::full({1, kKvHeads, first + tokens, kHeadDim}, 0.1, options);
  const at::Tensor values = cache.clone();
  const at::Tensor q = at::full({tokens, kHeads, kHeadDim}, 0.3, options);
  const at::Tensor k = at::full({tokens, kKvHeads, kHeadDim}, 0.3, options);
  const at::Tensor slots = at::zeros({tokens}, at::kLong);
  const at::Tensor positions = at::arange(first, first + tokens, at::kLong);
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels::cached_attention(q, k, k, cache, values, slots, positions, 0.125));
  }
  const double pairs =
      static_cast<double>(tokens) * (static_cast<double>(first) + (static_cast<double>(tokens) + 1) / 2);
  state.counters["GFLOP/s"] = benchmark::Counter(
      4.0 * pairs * static_cast<double>(kHeads * kHeadDim) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void register_all() {
  using benchmark::RegisterBenchmark;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const std::string type = dtype == at::kFloat ? "f32" : "bf16";
    for (const std::string how : {"own", "onednn", "aten"}) {
      auto* b = RegisterBenchmark(("linear/" + type + "/" + how).c_str(), bench_linear, dtype, how);
      for (const int64_t rows : {1, 2, 3, 4, 6, 8, 10, 12, 16}) {
        b->Arg(rows);
      }
      b->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(7);
    }
    RegisterBenchmark(("fused/" + type).c_str(), bench_fused, dtype)
        ->Arg(1)
        ->Arg(4)
        ->Arg(8)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond)
        ->Iterations(7);
    RegisterBenchmark(("decode/" + type).c_str(), bench_decode, dtype)
        ->Args({1, 64})
        ->Args({1, 512})
        ->Args({1, 4096})
        ->Args({8, 512});
    RegisterBenchmark(("prefill/" + type).c_str(), bench_prefill, dtype)
        ->Args({16, 0})
        ->Args({128, 0})
        ->Args({1024, 0})
        ->Args({128, 896});
  }
  RegisterBenchmark("small/f32", bench_small)->Arg(64)->Arg(192)->Arg(576);
  RegisterBenchmark("add_rms_norm/f32", bench_norm)->Arg(1)->Arg(8)->Arg(128);
  RegisterBenchmark("rotary/f32", bench_rotary)->Arg(1)->Arg(8)->Arg(128);
}

/// The value of --NAME=VALUE, which is taken out of the arguments.
std::string take_option(int& argc, char** argv, const std::string& name) {
  std::string value;
  int kept = 0;
  for (int i = 0; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with(name + "=")) {
      value = argument.substr(name.size() + 1);
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string threads = take_option(argc, argv, "--threads");
  weights_path = take_option(argc, argv, "--weights");
  if (!threads.empty()) {
    at::set_num_threads(std::stoi(threads));
  }
  fmt::print(
      stderr, "{} threads, {}, weights {}\n", at::get_num_threads(), to_string(kernels::simd_level()),
      weights_path.empty() ? "in memory" : "mapped from a file");
  register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
