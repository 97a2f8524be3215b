#include "each_simd_level.h"
#include "expected_attention.h"
#include "kernels/ops.h"
#include "kernels/reference.h"
#include "kernels/segments.h"

namespace shardpipe::kernels {
namespace {

using test::bitwise_equal;
using test::close;

/// A run of tokens of one slot: `count` tokens from `position` on.
struct Run {
  int64_t slot;
  int64_t position;
  int64_t count;
};

struct Case {
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t capacity;
  std::vector<Run> runs;
  at::ScalarType dtype = at::kFloat;
  std::optional<int64_t> window = std::nullopt;
  bool slopes = false;
  int64_t bias_reach = -1;  // none
};

struct Inputs {
  at::Tensor q, k, v, k_cache, v_cache, slots, positions;
  std::optional<int64_t> window = std::nullopt;
  std::optional<at::Tensor> slopes = std::nullopt;
  std::optional<at::Tensor> bias = std::nullopt;
  std::optional<at::Tensor> bias_rows = std::nullopt;
};

Inputs make_inputs(const Case& c) {
  std::vector<int64_t> slots;
  std::vector<int64_t> positions;
  int64_t rows = 1;
  for (const Run& run : c.runs) {
    for (int64_t i = 0; i < run.count; ++i) {
      slots.push_back(run.slot);
      positions.push_back(run.position + i);
    }
    rows = std::max(rows, run.slot + 1);
  }
  const auto tokens = static_cast<int64_t>(slots.size());
  Inputs in;
  in.q = randn({tokens, c.heads, c.head_dim}, c.dtype);
  in.k = randn({tokens, c.kv_heads, c.head_dim}, c.dtype);
  in.v = randn({tokens, c.kv_heads, c.head_dim}, c.dtype);
  in.k_cache = randn({rows, c.kv_heads, c.capacity, c.head_dim}, c.dtype);
  in.v_cache = randn({rows, c.kv_heads, c.capacity, c.head_dim}, c.dtype);
  in.slots = at::tensor(slots, at::kLong);
  in.positions = at::tensor(positions, at::kLong);
  in.window = c.window;
  if (c.slopes) {
    in.slopes = at::pow(2.0, -at::arange(1, c.heads + 1, at::kFloat));
  }
  if (c.bias_reach >= 0) {
    in.bias = randn({9, c.heads}, c.dtype) * 2;
    in.bias_rows = at::randint(9, {2 * c.bias_reach + 1}, at::kLong);
  }
  return in;
}

at::Tensor run(const Inputs& in, double scale) {
  return cached_attention(
      in.q, in.k, in.v, in.k_cache, in.v_cache, in.slots, in.positions, scale, in.window, in.slopes, in.bias,
      in.bias_rows);
}

at::Tensor run_reference(const Inputs& in, double scale) {
  return cached_attention_reference(
      in.q, in.k, in.v, in.k_cache, in.v_cache, in.slots, in.positions, scale, in.window, in.slopes, in.bias,
      in.bias_rows);
}

test::Expected expected_attention(const Inputs& in, double scale) {
  const at::Tensor k_cache = in.k_cache.to(at::kDouble);
  const at::Tensor v_cache = in.v_cache.to(at::kDouble);
  const int64_t tokens = in.q.size(0);
  for (int64_t t = 0; t < tokens; ++t) {
    const auto slot = in.slots[t].item<int64_t>();
    const auto position = in.positions[t].item<int64_t>();
    k_cache.select(0, slot).select(1, position).copy_(in.k[t].to(at::kDouble));
    v_cache.select(0, slot).select(1, position).copy_(in.v[t].to(at::kDouble));
  }
  std::vector<test::Expected> rows;
  for (int64_t t = 0; t < tokens; ++t) {
    const auto position = in.positions[t].item<int64_t>();
    const int64_t end = position + 1;
    const int64_t length = std::min(end, in.window.value_or(end));
    const auto of_slot = [&](const at::Tensor& cache) {
      return cache[in.slots[t].item<int64_t>()].narrow(1, end - length, length);
    };
    at::Tensor added;
    if (in.slopes) {
      added = -in.slopes->to(at::kDouble).unsqueeze(1) * at::arange(length - 1, -1, -1, at::kDouble);
    }
    if (in.bias) {
      const at::Tensor bias = test::expected_bias(*in.bias, *in.bias_rows, position, end - length, end);
      added = added.defined() ? added + bias : bias;
    }
    rows.push_back(test::expected_query(
        in.q[t].to(at::kDouble), of_slot(k_cache), of_slot(v_cache), scale, added, in.q.scalar_type()));
  }
  return test::stack(rows);
}

const std::vector<Case> kCases = {
    {9, 3, 64, 40, {{0, 0, 1}}},                                      // first token
    {9, 3, 64, 40, {{2, 17, 1}, {0, 30, 1}, {1, 0, 1}}},              // decode, ragged lengths
    {9, 3, 64, 700, {{0, 255, 1}, {1, 256, 1}, {2, 699, 1}}},         // one chunk, two, three
    {4, 4, 16, 50, {{1, 0, 20}, {0, 0, 33}}},                         // prefill
    {6, 2, 24, 64, {{0, 5, 1}, {3, 0, 40}, {1, 63, 1}, {2, 10, 3}}},  // mixed
    {8, 1, 5, 90, {{0, 7, 30}, {1, 44, 2}}},                          // later prefill, head_dim below a vector
    {7, 7, 33, 20, {{0, 3, 9}, {1, 19, 1}}},                          // one query a head
    {12, 2, 128, 300, {{0, 280, 1}, {1, 100, 12}}},
    {5, 1, 80, 300, {{0, 299, 1}}},
    // A window: shorter than, as long as and longer than the row; over chunks of decode and blocks of prefill.
    {9, 3, 64, 700, {{0, 255, 1}, {1, 4, 1}, {2, 699, 1}, {3, 5, 1}}, at::kFloat, 6},
    {4, 2, 16, 700, {{0, 690, 1}, {1, 300, 3}, {2, 0, 1}}, at::kFloat, 300},
    {4, 2, 16, 300, {{0, 0, 140}, {2, 7, 5}, {1, 130, 20}}, at::kFloat, 33},
    {4, 4, 16, 40, {{0, 0, 33}, {1, 20, 9}}, at::kFloat, 1},
    {4, 4, 16, 40, {{0, 0, 33}, {1, 20, 9}}, at::kFloat, 33},
    // Slopes, and both.
    {9, 3, 64, 700, {{0, 255, 1}, {1, 256, 1}, {2, 699, 1}, {3, 0, 2}}, at::kFloat, std::nullopt, true},
    {7, 7, 33, 150, {{1, 0, 140}, {0, 20, 20}, {2, 9, 3}}, at::kFloat, std::nullopt, true},
    {12, 2, 24, 600, {{1, 250, 40}, {0, 590, 1}, {2, 280, 2}}, at::kFloat, 270, true},
    // A bias that reaches over the row, to its edge, less far, into an earlier chunk, nowhere; with the others.
    {5, 5, 10, 300, {{0, 290, 1}, {1, 19, 1}, {2, 21, 1}, {3, 0, 1}}, at::kFloat, std::nullopt, false, 20},
    {9, 3, 64, 700, {{0, 255, 1}, {1, 256, 1}, {2, 699, 1}, {3, 3, 2}}, at::kFloat, std::nullopt, false, 300},
    {4, 4, 16, 200, {{1, 0, 140}, {0, 20, 20}, {2, 9, 3}}, at::kFloat, std::nullopt, false, 30},
    {4, 2, 16, 600, {{0, 590, 1}, {1, 0, 9}}, at::kFloat, std::nullopt, false, 0},
    {6, 2, 24, 600, {{1, 250, 40}, {0, 590, 1}, {2, 280, 2}}, at::kFloat, 270, true, 40}};

TEST(CachedAttention, AgreesWithFloat64) {
  at::manual_seed(7);
  at_each_simd_level([] {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      for (size_t i = 0; i < kCases.size(); ++i) {
        SCOPED_TRACE(fmt::format("case {} {}", i, c10::toString(dtype)));
        Case c = kCases[i];
        c.dtype = dtype;
        const Inputs in = make_inputs(c);
        const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
        const auto expected = expected_attention(in, scale);
        Inputs other = in;
        other.k_cache = in.k_cache.clone();
        other.v_cache = in.v_cache.clone();
        EXPECT_TRUE(close(run(in, scale), expected));
        EXPECT_TRUE(close(run_reference(other, scale), expected));
        EXPECT_TRUE(bitwise_equal(in.k_cache, other.k_cache));  // both forms wrote the same cache, and nothing else
        EXPECT_TRUE(bitwise_equal(in.v_cache, other.v_cache));
      }
    }
  });
}

TEST(CachedAttention, LargeScoresDoNotOverflow) {
  at_each_simd_level([] {
    Inputs in = make_inputs({4, 2, 16, 300, {{0, 290, 1}, {1, 3, 1}}});
    in.q = in.q * 300;
    EXPECT_TRUE(close(run(in, 1.0), expected_attention(in, 1.0)));
  });
}

TEST(CachedAttention, StridedInputsAndCaches) {
  at_each_simd_level([] {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      Inputs in = make_inputs({6, 2, 16, 30, {{1, 8, 1}, {0, 2, 10}}, dtype});
      const int64_t tokens = in.q.size(0);
      const at::Tensor packed = randn({tokens, (6 + 2 + 2) * 16}, dtype);
      in.q = packed.narrow(1, 0, 96).view({tokens, 6, 16});
      in.k = packed.narrow(1, 96, 32).view({tokens, 2, 16});
      in.v = packed.narrow(1, 128, 32).view({tokens, 2, 16});
      in.k_cache = randn({2, 30, 2, 16}, dtype).transpose(1, 2);  // positions before heads
      in.v_cache = randn({2, 2, 30, 40}, dtype).narrow(3, 3, 16);
      EXPECT_TRUE(close(run(in, 0.25), expected_attention(in, 0.25)));
      in.q = randn({16, 6, tokens}, dtype).permute({2, 1, 0});
      in.k_cache = randn({2, 2, 16, 30}, dtype).transpose(2, 3);  // elements apart: the reference form
      EXPECT_TRUE(close(run(in, 0.25), expected_attention(in, 0.25)));
    }
  });
}

TEST(CachedAttention, PositionsMayLeaveGaps) {
  at_each_simd_level([] {
    Inputs in = make_inputs({4, 2, 16, 60, {{0, 0, 12}}});
    in.positions = at::arange(0, 24, 2, at::kLong);
    const auto expected = expected_attention(in, 0.25);
    EXPECT_TRUE(close(run(in, 0.25), expected));
    EXPECT_TRUE(close(run_reference(in, 0.25), expected));
  });
}

// A decode step of one row is the same alone, in a batch and with any number of threads.
TEST(CachedAttention, DecodeDoesNotDependOnThreadsOrOtherRows) {
  at_each_simd_level([] {
    for (const auto& [window, slopes, reach] :
         {std::tuple{0, false, -1}, {300, false, -1}, {0, true, -1}, {0, false, 40}}) {
      Inputs in =
          make_inputs({9, 3, 64, 900, {{0, 800, 1}, {1, 13, 1}, {2, 511, 1}}, at::kFloat, std::nullopt, slopes, reach});
      if (window > 0) {
        in.window = window;
      }
      const at::Tensor one = with_threads(1, [&] { return run(in, 0.125); });
      EXPECT_TRUE(bitwise_equal(with_threads(2, [&] { return run(in, 0.125); }), one));
      EXPECT_TRUE(bitwise_equal(with_threads(3, [&] { return run(in, 0.125); }), one));
      for (int64_t row = 0; row < 3; ++row) {
        const auto pick = [&](const at::Tensor& t) { return t.narrow(0, row, 1); };
        const Inputs alone{pick(in.q),         pick(in.k), pick(in.v), in.k_cache, in.v_cache,  pick(in.slots),
                           pick(in.positions), in.window,  in.slopes,  in.bias,    in.bias_rows};
        EXPECT_TRUE(bitwise_equal(run(alone, 0.125), pick(one)));
      }
    }
  });
}

TEST(CachedAttention, NoTokens) {
  const Inputs in = make_inputs({4, 2, 8, 10, {}});
  EXPECT_EQ(run(in, 1.0).sizes(), (at::IntArrayRef{0, 32}));
  EXPECT_EQ(run_reference(in, 1.0).sizes(), (at::IntArrayRef{0, 32}));
}

TEST(CachedAttention, OtherDtypesRunTheReference) {
  const Inputs in = make_inputs({4, 2, 8, 10, {{0, 4, 1}, {1, 0, 3}}, at::kDouble});
  const at::Tensor out = run(in, 0.5);
  EXPECT_TRUE(bitwise_equal(out, run_reference(in, 0.5)));
}

TEST(CachedAttention, WindowSlopesAndBiasInOtherDtypes) {
  for (const auto dtype : {at::kDouble, at::kHalf}) {
    const Inputs in = make_inputs({4, 2, 8, 60, {{0, 40, 1}, {1, 0, 50}}, dtype, 9, true, 6});
    EXPECT_TRUE(close(run(in, 0.5), expected_attention(in, 0.5)));
  }
}

// What lies outside the window is not read: there it may be anything.
TEST(CachedAttention, NothingBeforeTheWindowIsRead) {
  at_each_simd_level([] {
    for (const int64_t tokens : {1, 20}) {
      const Inputs in = make_inputs({4, 2, 16, 400, {{0, 300, tokens}}, at::kFloat, 7});
      in.k_cache.narrow(2, 0, 300 - 6).fill_(std::nan(""));
      in.v_cache.narrow(2, 0, 300 - 6).fill_(std::nan(""));
      EXPECT_FALSE(run(in, 0.25).isnan().any().item<bool>());
    }
  });
}

TEST(CachedAttention, WritingIsSeenByAutograd) {
  const Inputs in = make_inputs({4, 2, 8, 10, {{0, 4, 1}}});
  const auto before = in.k_cache._version();
  run(in, 1.0);
  EXPECT_GT(in.k_cache._version(), before);
  EXPECT_GT(in.v_cache._version(), 0);
}

TEST(Segments, CutAtSlots) {
  const auto segments =
      find_segments("op", at::tensor({2, 2, 2, 0, 1, 1}, at::kLong), at::tensor({4, 5, 6, 0, 1, 3}, at::kLong), 3, 7);
  ASSERT_EQ(segments.size(), 3U);
  EXPECT_EQ(segments[0].first, 0);
  EXPECT_EQ(segments[0].count, 3);
  EXPECT_EQ(segments[0].slot, 2);
  EXPECT_EQ(segments[0].position, 4);
  EXPECT_TRUE(segments[0].consecutive);
  EXPECT_EQ(segments[1].slot, 0);
  EXPECT_EQ(segments[2].first, 4);
  EXPECT_FALSE(segments[2].consecutive);
}

TEST(CachedAttentionErrors, NameTheTokenAndTheLimit) {
  const auto with = [](std::vector<int64_t> slots, std::vector<int64_t> positions) {
    Inputs in = make_inputs({4, 2, 8, 10, {{0, 0, 1}, {1, 0, 1}, {2, 0, 1}}});
    in.slots = at::tensor(slots, at::kLong);
    in.positions = at::tensor(positions, at::kLong);
    run(in, 1.0);
  };
  expect_usage_error([&] { with({0, 3, 1}, {0, 0, 0}); }, {"slot 3 of token 1", "3 rows"});
  expect_usage_error([&] { with({0, -1, 1}, {0, 0, 0}); }, {"slot -1 of token 1"});
  expect_usage_error([&] { with({0, 1, 2}, {0, 10, 0}); }, {"position 10 of token 1 in slot 1", "10 positions"});
  expect_usage_error([&] { with({0, 1, 2}, {-1, 0, 0}); }, {"position -1 of token 0"});
  expect_usage_error([&] { with({0, 0, 2}, {4, 4, 0}); }, {"position 4 of token 1", "must ascend"});
  expect_usage_error([&] { with({0, 1, 0}, {4, 4, 5}); }, {"token 2 returns to slot 0", "contiguous"});
}

TEST(CachedAttentionErrors, NameTheShapes) {
  const Inputs good = make_inputs({4, 2, 8, 10, {{0, 0, 2}}});
  const auto with = [&](auto change) {
    Inputs in = good;
    change(in);
    run(in, 1.0);
  };
  expect_usage_error([&] { with([](Inputs& in) { in.v = randn({2, 2, 4}); }); }, {"q [tokens, heads", "[2, 2, 4]"});
  expect_usage_error([&] { with([](Inputs& in) { in.q = randn({2, 3, 8}); }); }, {"3 heads", "2 K/V heads"});
  expect_usage_error(
      [&] { with([](Inputs& in) {
              in.v_cache = randn({1, 2, 9, 8});
            }); }, {"caches [slots", "[1, 2, 9, 8]"});
  expect_usage_error(
      [&] { with([](Inputs& in) { in.slots = at::zeros({3}, at::kLong); }); }, {"int64 [2]", "int64 [3]"});
  expect_usage_error([&] { with([](Inputs& in) { in.positions = at::zeros({2}); }); }, {"int64 [2]", "float32 [2]"});
  expect_usage_error(
      [&] { with([](Inputs& in) { in.k_cache = in.k_cache.to(at::kHalf); }); }, {"the K cache", "float16", "float32"});
  expect_usage_error([&] { with([](Inputs& in) { in.window = 0; }); }, {"the window is 0 positions", "at least 1"});
  expect_usage_error([&] { with([](Inputs& in) { in.slopes = randn({3}); }); }, {"float32 [4]", "float32 [3]"});
  expect_usage_error(
      [&] { with([](Inputs& in) { in.slopes = randn({4}, at::kDouble); }); }, {"float32 [4]", "float64 [4]"});
  expect_usage_error([&] { with([](Inputs& in) { in.bias = randn({3, 4}); }); }, {"bias and bias_rows go together"});
  expect_usage_error(
      [&] {
        with([](Inputs& in) {
          in.bias = randn({3, 4});
          in.bias_rows = at::full({3}, -1, at::kLong);
        });
      },
      {"cached_attention", "names row -1 for distance -1", "has 3"});
  expect_usage_error([&] { with([](Inputs& in) { in.k = in.v = randn({3, 2, 8}); }); }, {"2 queries but 3 keys"});
}

}  // namespace
}  // namespace shardpipe::kernels
