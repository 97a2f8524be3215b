// cross_attention and sequence_attention: the two of encoder-decoders beside cached_attention.
#include <gmock/gmock.h>

#include "each_simd_level.h"
#include "expected_attention.h"
#include "kernels/ops.h"
#include "kernels/reference.h"

namespace shardpipe::kernels {
namespace {

using test::bitwise_equal;
using test::close;
using test::Expected;

at::Tensor numbers(const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong);
}

struct Cross {
  at::Tensor q, k, v, k_cache, v_cache, slots, source_slots, source_positions, lengths;
};

// Sources of the given lengths for the cache rows 0, 1, ...; `queries` of each, the last row's first.
Cross make_cross(
    const std::vector<int64_t>& lengths,
    const std::vector<int64_t>& queries,
    int64_t heads,
    int64_t kv_heads,
    int64_t head_dim,
    at::ScalarType dtype = at::kFloat) {
  std::vector<int64_t> slots;
  std::vector<int64_t> source_slots;
  std::vector<int64_t> source_positions;
  int64_t longest = 0;
  for (size_t row = lengths.size(); row-- > 0;) {
    slots.insert(slots.end(), static_cast<size_t>(queries[row]), static_cast<int64_t>(row));
  }
  for (size_t row = 0; row < lengths.size(); ++row) {
    longest = std::max(longest, lengths[row]);
    for (int64_t position = 0; position < lengths[row]; ++position) {
      source_slots.push_back(static_cast<int64_t>(row));
      source_positions.push_back(position);
    }
  }
  const auto rows = static_cast<int64_t>(lengths.size());
  const auto sources = static_cast<int64_t>(source_slots.size());
  Cross in;
  in.q = randn({static_cast<int64_t>(slots.size()), heads, head_dim}, dtype);
  in.k = randn({sources, kv_heads, head_dim}, dtype);
  in.v = randn({sources, kv_heads, head_dim}, dtype);
  in.k_cache = at::full({rows, kv_heads, longest + 2, head_dim}, std::nan(""), dtype);
  in.v_cache = in.k_cache.clone();
  in.slots = numbers(slots);
  in.source_slots = numbers(source_slots);
  in.source_positions = numbers(source_positions);
  in.lengths = numbers(lengths);
  return in;
}

at::Tensor run(const Cross& in, double scale = 1.0) {
  return cross_attention(
      in.q, in.k, in.v, in.k_cache, in.v_cache, in.slots, in.source_slots, in.source_positions, in.lengths, scale);
}

at::Tensor run_reference(const Cross& in, double scale = 1.0) {
  return cross_attention_reference(
      in.q, in.k, in.v, in.k_cache, in.v_cache, in.slots, in.source_slots, in.source_positions, in.lengths, scale);
}

// No more source: what comes in the steps after the first.
Cross later(const Cross& in) {
  Cross step = in;
  step.q = at::randn_like(in.q);
  step.k = in.k.narrow(0, 0, 0);
  step.v = step.k;
  step.source_slots = numbers({});
  step.source_positions = step.source_slots;
  return step;
}

Expected expected_cross(const Cross& in, const Cross& source, double scale) {
  std::vector<Expected> rows;
  for (int64_t t = 0; t < in.q.size(0); ++t) {
    const at::Tensor own = source.source_slots.eq(in.slots[t]).nonzero().squeeze(1);
    const auto of_source = [&](const at::Tensor& x) { return x.index_select(0, own).transpose(0, 1).to(at::kDouble); };
    rows.push_back(test::expected_query(
        in.q[t].to(at::kDouble), of_source(source.k), of_source(source.v), scale, {}, in.q.scalar_type()));
  }
  return test::stack(rows);
}

TEST(CrossAttention, AgreesWithFloat64InEveryStep) {
  at::manual_seed(3);
  at_each_simd_level([] {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      for (const auto& [heads, kv_heads, head_dim] : {std::tuple{5, 5, 10}, {6, 2, 64}, {3, 1, 33}}) {
        SCOPED_TRACE(fmt::format("{} heads {}", c10::toString(dtype), heads));
        const Cross in = make_cross({3, 1, 530, 256}, {1, 4, 1, 9}, heads, kv_heads, head_dim, dtype);
        Cross other = in;
        other.k_cache = in.k_cache.clone();
        other.v_cache = in.v_cache.clone();
        const Expected expected = expected_cross(in, in, 0.3);
        EXPECT_TRUE(close(run(in, 0.3), expected));
        EXPECT_TRUE(close(run_reference(other, 0.3), expected));
        const Cross step = later(in);
        other.q = step.q;
        other.k = other.v = step.k;
        other.source_slots = other.source_positions = step.source_slots;
        const Expected next = expected_cross(step, in, 0.3);
        EXPECT_TRUE(close(run(step, 0.3), next));
        EXPECT_TRUE(close(run_reference(other, 0.3), next));
      }
    }
  });
}

TEST(CrossAttention, DoesNotDependOnThreadsOrOtherTokens) {
  at_each_simd_level([] {
    const Cross in = make_cross({600, 20, 300}, {1, 1, 3}, 4, 4, 64);
    const at::Tensor one = with_threads(1, [&] { return run(in); });
    EXPECT_TRUE(bitwise_equal(with_threads(3, [&] { return run(in); }), one));
    Cross alone = later(in);
    for (int64_t t = 0; t < in.q.size(0); ++t) {
      alone.q = in.q.narrow(0, t, 1);
      alone.slots = in.slots.narrow(0, t, 1);
      EXPECT_TRUE(bitwise_equal(run(alone), one.narrow(0, t, 1)));
    }
  });
}

TEST(CrossAttention, OddCachesAndNoTokens) {
  Cross in = make_cross({9, 4}, {1, 2}, 4, 2, 8);
  in.k_cache = randn({2, 2, 8, 11}).transpose(2, 3);  // elements apart: the reference form
  EXPECT_TRUE(close(run(in), expected_cross(in, in, 1.0)));
  in.q = randn({0, 4, 8});
  in.slots = numbers({});
  EXPECT_EQ(run(in).sizes(), (at::IntArrayRef{0, 32}));
  EXPECT_EQ(run_reference(in).sizes(), (at::IntArrayRef{0, 32}));
}

TEST(CrossAttentionErrors, NameWhatIsWrong) {
  const auto with = [](auto change) {
    for (const auto& call : {run, run_reference}) {
      Cross in = make_cross({3, 2}, {1, 1}, 4, 2, 8);
      change(in);
      call(in, 1.0);
    }
  };
  const auto refused = [&](auto change, const std::vector<std::string>& parts) {
    expect_usage_error([&] { with(change); }, parts);
  };
  refused([](Cross& in) { in.v = randn({4, 2, 8}); }, {"cross_attention", "k, v [sources", "[4, 2, 8]"});
  refused([](Cross& in) { in.q = randn({2, 3, 8}); }, {"3 heads", "2 K/V heads"});
  refused([](Cross& in) { in.k_cache = randn({2, 2, 5, 9}); }, {"caches [slots", "[2, 2, 5, 9]"});
  refused([](Cross& in) { in.v_cache = in.v_cache.to(at::kHalf); }, {"the V cache", "float16"});
  refused([](Cross& in) { in.slots = numbers({0}); }, {"slots int64 [2]", "int64 [1]"});
  refused([](Cross& in) { in.source_slots = numbers({0}); }, {"source_slots and source_positions int64 [5]", "[1]"});
  refused([](Cross& in) { in.lengths = numbers({3}); }, {"lengths int64 [2]", "int64 [1]"});
  refused([](Cross& in) { in.lengths = numbers({0, 2}); }, {"slot 0 has 0 positions", "1 to 5"});
  refused([](Cross& in) { in.lengths = numbers({3, 6}); }, {"slot 1 has 6 positions", "1 to 5"});
  refused([](Cross& in) { in.slots = numbers({2, 0}); }, {"cross_attention", "slot 2 of token 0", "2 rows"});
  refused([](Cross& in) { in.source_positions = numbers({0, 1, 7, 0, 1}); }, {"position 7 of token 2", "5 positions"});
  refused([](Cross& in) { in.source_positions = numbers({0, 1, 1, 0, 1}); }, {"position 1 of token 2", "must ascend"});
}

struct Sequence {
  at::Tensor q, k, v, slots;
  std::optional<at::Tensor> bias = std::nullopt;
  std::optional<at::Tensor> bias_rows = std::nullopt;
};

at::Tensor run(const Sequence& in) {
  return sequence_attention(in.q, in.k, in.v, in.slots, 0.4, in.bias, in.bias_rows);
}

// Sequences of the given lengths; `reach` < 0: without a bias.
Sequence make_sequences(
    const std::vector<int64_t>& lengths,
    int64_t heads,
    int64_t kv_heads,
    int64_t reach,
    at::ScalarType dtype = at::kFloat) {
  std::vector<int64_t> slots;
  for (size_t i = 0; i < lengths.size(); ++i) {
    slots.insert(slots.end(), static_cast<size_t>(lengths[i]), static_cast<int64_t>(lengths.size() - i));
  }
  const auto tokens = static_cast<int64_t>(slots.size());
  Sequence in{
      randn({tokens, heads, 12}, dtype), randn({tokens, kv_heads, 12}, dtype), randn({tokens, kv_heads, 12}, dtype),
      numbers(slots)};
  if (reach >= 0) {
    in.bias = randn({7, heads}, dtype) * 2;
    in.bias_rows = at::randint(7, {2 * reach + 1}, at::kLong);
  }
  return in;
}

Expected expected_sequences(const Sequence& in) {
  std::vector<Expected> rows;
  for (int64_t t = 0; t < in.q.size(0); ++t) {
    const at::Tensor own = in.slots.eq(in.slots[t]).nonzero().squeeze(1);
    const auto of_slot = [&](const at::Tensor& x) { return x.index_select(0, own).transpose(0, 1).to(at::kDouble); };
    const int64_t position = t - own[0].item<int64_t>();
    const at::Tensor added =
        in.bias ? test::expected_bias(*in.bias, *in.bias_rows, position, 0, own.size(0)) : at::Tensor();
    rows.push_back(
        test::expected_query(in.q[t].to(at::kDouble), of_slot(in.k), of_slot(in.v), 0.4, added, in.q.scalar_type()));
  }
  return test::stack(rows);
}

TEST(SequenceAttention, AgreesWithFloat64) {
  at::manual_seed(5);
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    for (const int64_t reach : {-1, 0, 4, 40, 400}) {
      SCOPED_TRACE(fmt::format("{} reach {}", c10::toString(dtype), reach));
      // One token; blocks of masks: less than one, just one, more.
      const Sequence in = make_sequences({1, 5, 128, 150}, 4, 4, reach, dtype);
      EXPECT_TRUE(close(run(in), expected_sequences(in)));
      const Sequence grouped = make_sequences({7, 30}, 6, 2, reach, dtype);
      EXPECT_TRUE(close(run(grouped), expected_sequences(grouped)));
    }
  }
  EXPECT_EQ(run(make_sequences({}, 4, 4, 3)).sizes(), (at::IntArrayRef{0, 48}));
}

TEST(SequenceAttention, OtherSequencesDoNotMatter) {
  const Sequence in = make_sequences({40, 9, 17}, 4, 4, 6);
  const Sequence alone{
      in.q.narrow(0, 40, 9), in.k.narrow(0, 40, 9), in.v.narrow(0, 40, 9), in.slots.narrow(0, 40, 9), in.bias,
      in.bias_rows};
  EXPECT_TRUE(bitwise_equal(run(alone), run(in).narrow(0, 40, 9)));
}

TEST(SequenceAttentionErrors, NameWhatIsWrong) {
  const auto refused = [](auto change, const std::vector<std::string>& parts) {
    Sequence in = make_sequences({3, 2}, 4, 4, 2);
    change(in);
    expect_usage_error([&] { run(in); }, parts);
  };
  refused([](Sequence& in) { in.k = in.v = randn({4, 4, 12}); }, {"5 queries but 4 keys"});
  refused([](Sequence& in) { in.slots = numbers({0}); }, {"slots int64 [5]", "int64 [1]"});
  refused(
      [](Sequence& in) {
        in.slots = numbers({0, 1, 0, 2, 2});
      },
      {"sequence_attention", "token 2 returns to slot 0"});
  refused([](Sequence& in) { in.slots = numbers({0, 0, 0, -1, -1}); }, {"slot -1 of token 3"});
  refused([](Sequence& in) { in.bias.reset(); }, {"bias and bias_rows go together"});
  refused([](Sequence& in) { in.bias = randn({7, 3}); }, {"a bias [rows, 4]", "float32 [7, 3]"});
  refused([](Sequence& in) { in.bias = in.bias->to(at::kHalf); }, {"the input's dtype", "float16 [7, 4]"});
  refused([](Sequence& in) { in.bias_rows = numbers({1, 2}); }, {"an odd length", "int64 [2]"});
  refused([](Sequence& in) { in.bias_rows = numbers({0, 7, 0}); }, {"names row 7 for distance 0", "has 7"});
}

}  // namespace
}  // namespace shardpipe::kernels
