#include <sys/mman.h>
#include <unistd.h>

#include <fstream>

#include "base/file.h"
#include "each_simd_level.h"
#include "kernels/ops.h"
#include "kernels/reference.h"

namespace shardpipe::kernels {
namespace {

using test::bitwise_equal;
using test::close;
using test::expected_linear;

constexpr int64_t kFew = 20;
constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16};
// Sizes around the widths of all SIMD levels, and those of SmolLM2.
const std::vector<std::pair<int64_t, int64_t>> kShapes = {  // in, out
    {1, 1}, {3, 5}, {15, 4}, {16, 7}, {17, 3}, {31, 9}, {33, 6}, {64, 130}, {100, 33}, {576, 192}, {1536, 576}};

c10::List<std::optional<at::Tensor>> biases(std::initializer_list<std::optional<at::Tensor>> list) {
  return c10::List<std::optional<at::Tensor>>(list);
}

TEST(Linear, FewRowsAgreeWithFloat64) {
  at::manual_seed(1);
  at_each_simd_level([] {
    for (const auto dtype : kDtypes) {
      for (const auto& [in, out] : kShapes) {
        for (int64_t rows = 1; rows <= kFew; rows += in > 100 ? 5 : 1) {
          SCOPED_TRACE(fmt::format("{} x {} x {} {}", rows, in, out, c10::toString(dtype)));
          const at::Tensor x = randn({rows, in}, dtype);
          const at::Tensor w = randn({out, in}, dtype);
          const at::Tensor b = randn({out}, dtype);
          EXPECT_TRUE(close(linear(x, w, std::nullopt, kFew, "aten"), expected_linear(x, w)));
          EXPECT_TRUE(close(linear(x, w, b, kFew, "aten"), expected_linear(x, w, b)));
        }
      }
    }
  });
}

TEST(Linear, ManyRowsRunTheChosenOperator) {
  const at::Tensor x = randn({40, 64});
  const at::Tensor w = randn({48, 64});
  const at::Tensor b = randn({48});
  EXPECT_TRUE(bitwise_equal(linear(x, w, b, 16, "aten"), at::linear(x, w, b)));
  EXPECT_TRUE(close(linear(x, w, b, 16, "onednn"), expected_linear(x, w, b)));
  EXPECT_TRUE(close(linear(x, w, b, 0, "onednn"), expected_linear(x, w, b)));
  const at::Tensor half = x.to(at::kBFloat16);
  const at::Tensor half_weight = w.to(at::kBFloat16);
  EXPECT_TRUE(close(linear(half, half_weight, {}, 16, "onednn"), expected_linear(half, half_weight)));
}

TEST(Linear, RowsDoNotDependOnEachOtherNorOnThreads) {
  at_each_simd_level([] {
    for (const auto dtype : kDtypes) {
      const at::Tensor x = randn({16, 577}, dtype);
      const at::Tensor w = randn({1037, 577}, dtype);
      const at::Tensor whole = with_threads(1, [&] { return linear(x, w, {}, 16, "aten"); });
      EXPECT_TRUE(bitwise_equal(with_threads(2, [&] { return linear(x, w, {}, 16, "aten"); }), whole));
      EXPECT_TRUE(bitwise_equal(with_threads(3, [&] { return linear(x, w, {}, 16, "aten"); }), whole));
      for (int64_t rows = 1; rows < 16; ++rows) {
        const auto part = [&](const at::Tensor& t) { return t.narrow(0, 16 - rows, rows); };
        EXPECT_TRUE(bitwise_equal(linear(part(x), w, {}, 16, "aten"), part(whole))) << rows << " rows";
      }
    }
  });
}

TEST(Linear, AcceptsAnyStridesAndLeadingSizes) {
  at_each_simd_level([] {
    const at::Tensor w = randn({30, 40});
    const auto check = [&](const at::Tensor& x, const at::Tensor& weight) {
      const at::Tensor y = linear(x, weight, {}, kFew, "aten");
      EXPECT_TRUE(close(y, expected_linear(x, weight)));
      EXPECT_TRUE(y.is_contiguous());
    };
    check(randn({40}), w);
    check(randn({2, 3, 40}), w);
    check(randn({40, 5}).t(), w);                             // columns
    check(randn({5, 64}).narrow(1, 3, 40), w);                // rows apart
    check(randn({3, 1, 40}).expand({3, 4, 40}), w);           // repeated rows
    check(randn({4, 40}), randn({30, 77}).narrow(1, 5, 40));  // slice of columns
    check(randn({4, 40}), randn({40, 30}).t());               // a weight without contiguous rows
    check(randn({4, 1}), randn({30, 1}));
  });
}

TEST(Linear, EmptySizes) {
  EXPECT_EQ(linear(randn({0, 8}), randn({4, 8}), {}, 8, "onednn").sizes(), (at::IntArrayRef{0, 4}));
  EXPECT_EQ(linear(randn({2, 8}), randn({0, 8}), {}, 8, "onednn").sizes(), (at::IntArrayRef{2, 0}));
  EXPECT_TRUE(at::equal(linear(at::zeros({2, 0}), at::zeros({3, 0}), {}, 8, "onednn"), at::zeros({2, 3})));
}

TEST(Linear, OtherDtypesRunLibTorch) {
  for (const auto dtype : {at::kHalf, at::kDouble}) {
    const at::Tensor x = randn({3, 20}, dtype);
    const at::Tensor w = randn({5, 20}, dtype);
    EXPECT_TRUE(bitwise_equal(linear(x, w, {}, 8, "onednn"), at::linear(x, w)));
  }
}

TEST(Linear, NotANumberStaysInItsRow) {
  at_each_simd_level([] {
    at::Tensor x = randn({3, 33});
    x[1][7] = std::numeric_limits<float>::quiet_NaN();
    const at::Tensor y = linear(x, randn({9, 33}), {}, 8, "aten");
    EXPECT_TRUE(y[1].isnan().all().item<bool>());
    EXPECT_FALSE(y[0].isnan().any().item<bool>() || y[2].isnan().any().item<bool>());
  });
}

// Weights of a checkpoint are mapped read-only at any byte offset and end where the mapping ends: reading one byte
// beyond would be a crash.
TEST(Linear, UnalignedWeightsAtTheEndOfReadableMemory) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  at_each_simd_level([&] {
    for (const auto dtype : kDtypes) {
      for (const int64_t in : {5, 16, 35, 77}) {
        const at::Tensor x = randn({3, in}, dtype);
        const at::Tensor w = randn({7, in}, dtype);
        const size_t bytes = w.nbytes();
        auto* memory =
            static_cast<char*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        ASSERT_NE(memory, MAP_FAILED);
        ASSERT_EQ(mprotect(memory + page, page, PROT_NONE), 0);
        char* at_end = memory + page - bytes;
        std::memcpy(at_end, w.const_data_ptr(), bytes);
        ASSERT_EQ(mprotect(memory, page, PROT_READ), 0);
        const at::Tensor mapped = at::from_blob(at_end, w.sizes(), w.options());
        EXPECT_TRUE(bitwise_equal(linear(x, mapped, {}, 8, "aten"), linear(x, w, {}, 8, "aten")));
        EXPECT_TRUE(bitwise_equal(
            linear_gated(x, mapped, mapped, {}, {}, "silu", 8, "aten"),
            linear_gated(x, w, w, {}, {}, "silu", 8, "aten")));
        munmap(memory, 2 * page);
      }
    }
  });
}

TEST(LinearGroup, EqualsSeparateProducts) {
  at_each_simd_level([] {
    for (const auto dtype : kDtypes) {
      for (const int64_t rows : {1, 3, 8, 30}) {
        const at::Tensor x = randn({rows, 576}, dtype);
        const std::vector<at::Tensor> weights = {
            randn({576, 576}, dtype), randn({193, 576}, dtype), randn({190, 576}, dtype)};
        const auto b = biases({randn({576}, dtype), std::nullopt, randn({190}, dtype)});
        for (const int threads : {1, 2, 3}) {
          const auto group = with_threads(threads, [&] { return linear_group(x, weights, b, 16, "aten"); });
          const auto bare = with_threads(threads, [&] { return linear_group(x, weights, biases({}), 16, "aten"); });
          ASSERT_EQ(group.size(), 3U);
          for (size_t i = 0; i < 3; ++i) {
            EXPECT_TRUE(bitwise_equal(group[i], linear(x, weights[i], b.get(i), 16, "aten")));
            EXPECT_TRUE(bitwise_equal(bare[i], linear(x, weights[i], {}, 16, "aten")));
          }
        }
      }
    }
  });
  EXPECT_TRUE(linear_group(randn({2, 4}), {}, biases({}), 8, "aten").empty());
}

// |act'| <= 1.13 for all four, so an error of the gate passes on at most 1.13 times; act itself is within 4 roundings.
test::Expected expected_gated(
    const at::Tensor& x,
    const at::Tensor& gate,
    const at::Tensor& up,
    const at::Tensor& gate_bias,
    const at::Tensor& up_bias,
    Activation activation) {
  const auto dtype = x.scalar_type();
  const auto g = expected_linear(x, gate, gate_bias);
  const auto u = expected_linear(x, up, up_bias);
  const at::Tensor act = apply_activation(g.value, activation);
  const at::Tensor act_bound = 1.13 * g.bound + test::rounding_bound(act, 4, at::kFloat) +
                               test::rounding_bound(g.value, 8, at::kFloat) + test::rounding_bound(act, 1, dtype);
  const at::Tensor value = act * u.value;
  const at::Tensor bound = act_bound * (u.value.abs() + u.bound) + act.abs() * u.bound;
  return {value, bound + test::rounding_bound(value.abs() + bound, 1, dtype)};
}

const std::vector<std::pair<std::string, Activation>> kActivations = {
    {"silu", Activation::silu},
    {"gelu", Activation::gelu},
    {"gelu_tanh", Activation::gelu_tanh},
    {"relu", Activation::relu}};

TEST(LinearGated, AgreesWithFloat64) {
  at_each_simd_level([] {
    for (const auto dtype : kDtypes) {
      for (const auto& [name, activation] : kActivations) {
        for (const int64_t rows : {1, 2, 7, 16, 24}) {
          SCOPED_TRACE(fmt::format("{} rows {} {}", rows, name, c10::toString(dtype)));
          const at::Tensor x = randn({rows, 65}, dtype);
          const at::Tensor gate = randn({301, 65}, dtype) * 0.5;
          const at::Tensor up = randn({301, 65}, dtype);
          const at::Tensor gate_bias = randn({301}, dtype);
          const at::Tensor up_bias = randn({301}, dtype);
          EXPECT_TRUE(close(
              linear_gated(x, gate, up, gate_bias, up_bias, name, 16, "onednn"),
              expected_gated(x, gate, up, gate_bias, up_bias, activation)));
          EXPECT_TRUE(close(
              linear_gated(x, gate, up, {}, {}, name, 16, "onednn"), expected_gated(x, gate, up, {}, {}, activation)));
        }
      }
    }
  });
}

// In float32 the activation sees every magnitude: saturated, tiny, zero, infinite and NaN.
TEST(LinearGated, ActivationOverTheWholeRange) {
  const at::Tensor magnitudes = at::pow(2.0, at::linspace(-40, 12, 400));
  const at::Tensor values =
      at::cat({magnitudes, -magnitudes, at::linspace(-12, 12, 2001), at::zeros({1})}).unsqueeze(1);
  const at::Tensor one = at::ones({1, 1});
  at_each_simd_level([&] {
    for (const auto& [name, activation] : kActivations) {
      SCOPED_TRACE(name);
      const at::Tensor y = linear_gated(values, one, one, {}, {}, name, 1 << 20, "aten");
      EXPECT_TRUE(close(y, expected_gated(values, one, one, {}, {}, activation)));
      const float nan = std::numeric_limits<float>::quiet_NaN();
      EXPECT_TRUE(linear_gated(at::full({1, 1}, nan), one, one, {}, {}, name, 8, "aten").isnan().item<bool>());
    }
  });
}

TEST(LinearGated, DoesNotDependOnRowsOrThreads) {
  at_each_simd_level([] {
    for (const auto dtype : kDtypes) {
      const at::Tensor x = randn({8, 576}, dtype);
      const at::Tensor gate = randn({1537, 576}, dtype);
      const at::Tensor up = randn({1537, 576}, dtype);
      const auto run = [&](const at::Tensor& rows) { return linear_gated(rows, gate, up, {}, {}, "silu", 8, "aten"); };
      const at::Tensor whole = with_threads(1, [&] { return run(x); });
      EXPECT_TRUE(bitwise_equal(with_threads(2, [&] { return run(x); }), whole));
      EXPECT_TRUE(bitwise_equal(run(x.narrow(0, 2, 1)), whole.narrow(0, 2, 1)));
    }
  });
}

TEST(LinearErrors, NameWhatIsWrong) {
  const at::Tensor x = randn({2, 8});
  const at::Tensor w = randn({4, 8});
  expect_usage_error([&] { linear(x, randn({4, 9}), {}, 8, "aten"); }, {"linear:", "[2, 8]", "[4, 9]"});
  expect_usage_error([&] { linear(x, randn({8}), {}, 8, "aten"); }, {"linear:", "weight [out, in]"});
  expect_usage_error(
      [&] {
        linear(x, randn({4, 8}, at::kDouble), {}, 8, "aten");
      },
      {"the weight", "float64", "float32"});
  expect_usage_error([&] { linear(x, w, randn({5}), 8, "aten"); }, {"a bias of 4 values", "[5]"});
  expect_usage_error([&] { linear(x, w, randn({4}, at::kHalf), 8, "aten"); }, {"the bias", "float16"});
  expect_usage_error([&] { linear(x, w, {}, 8, "mkl"); }, {"'mkl'", "onednn or aten"});
  expect_usage_error([&] { linear_group(x, {w, w}, biases({std::nullopt}), 8, "aten"); }, {"2 weights but 1 biases"});
  expect_usage_error([&] { linear_gated(x, w, w, {}, {}, "tanh", 8, "aten"); }, {"'tanh'", "gelu_tanh"});
  expect_usage_error(
      [&] {
        linear_gated(x, w, randn({5, 8}), {}, {}, "silu", 8, "aten");
      },
      {"gate and up", "[4, 8]", "[5, 8]"});
}

}  // namespace
}  // namespace shardpipe::kernels
