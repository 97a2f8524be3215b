// cached_attention and cross_attention: write to the cache, then attend. Short segments (decode) stream the cache row
// of each K/V head once for all queries that share it, cut into chunks of fixed length; long ones (prefill) go through
// LibTorch's flash attention.
#include <ATen/ATen.h>

#include "kernels/checks.h"
#include "kernels/ops.h"
#include "kernels/parallel.h"
#include "kernels/reference.h"
#include "kernels/segments.h"

namespace shardpipe::kernels {
namespace {

// Segments of up to this many tokens attend token by token.
constexpr int64_t kShortSegment = 8;

at::Tensor with_dense_rows(const at::Tensor& x) {
  return x.stride(2) == 1 || x.size(2) == 1 ? x : x.contiguous();
}

template <typename T>
void append(
    const at::Tensor& source, const at::Tensor& cache, const std::vector<Segment>& segments, const int64_t* positions) {
  const T* from = source.const_data_ptr<T>();
  T* to = cache.mutable_data_ptr<T>();
  const int64_t heads = source.size(1);
  const int64_t head_dim = source.size(2);
  const int64_t source_token = source.stride(0);
  const int64_t source_head = source.stride(1);
  const int64_t cache_slot = cache.stride(0);
  const int64_t cache_head = cache.stride(1);
  const int64_t cache_position = cache.stride(2);
  for (const Segment& segment : segments) {
    for (int64_t head = 0; head < heads; ++head) {
      T* rows = to + segment.slot * cache_slot + head * cache_head;
      for (int64_t t = segment.first; t < segment.first + segment.count; ++t) {
        const T* row = from + t * source_token + head * source_head;
        std::copy(row, row + head_dim, rows + positions[t] * cache_position);
      }
    }
  }
}

/// One token of a short segment.
struct Query {
  int64_t token;
  int64_t slot;
  int64_t begin;  // it attends to positions [begin, end); the last is its own where scores depend on distances
  int64_t end;
  int64_t chunks;
  int64_t first_chunk;  // index of its first chunk among those of all queries
};

template <typename T>
class Decoder {
 public:
  Decoder(
      const at::Tensor& q,
      const at::Tensor& k_cache,
      const at::Tensor& v_cache,
      double scale,
      const ScoreRule& rule,
      const at::Tensor& out)
      : q_(q),
        k_(k_cache),
        v_(v_cache),
        scale_(static_cast<float>(scale)),
        slopes_(rule.slopes.defined() ? rule.slopes.const_data_ptr<float>() : nullptr),
        bias_(rule.bias.defined() ? rule.bias.const_data_ptr<float>() : nullptr),
        bias_stride_(rule.bias.defined() ? rule.bias.size(1) : 0),
        out_(out.mutable_data_ptr<T>()),
        heads_(q.size(1)),
        head_dim_(q.size(2)),
        kv_heads_(k_cache.size(1)),
        groups_(heads_ / kv_heads_) {}

  void add(int64_t token, int64_t slot, int64_t begin, int64_t end) {
    const int64_t chunks = (end - begin + kDecodeChunk - 1) / kDecodeChunk;
    queries_.push_back({token, slot, begin, end, chunks, chunks_});
    chunks_ += chunks;
    positions_ += end - begin;
  }

  void run() {
    if (queries_.empty()) {
      return;
    }
    // The queries in float32, scaled, padded with zeros to whole vectors: [queries, heads, padded].
    constexpr int64_t kPad = 16;
    padded_ = (head_dim_ + kPad - 1) / kPad * kPad;
    scaled_.assign(queries_.size() * static_cast<size_t>(heads_ * padded_), 0.0f);
    partial_.resize(static_cast<size_t>(chunks_ * heads_ * (head_dim_ + 2)));
    scale_queries();
    // A unit of work is (chunk, K/V head): neighbours in the cache are neighbours in the list.
    std::vector<int64_t> query_of(static_cast<size_t>(chunks_));
    for (size_t i = 0; i < queries_.size(); ++i) {
      std::fill_n(query_of.begin() + queries_[i].first_chunk, queries_[i].chunks, static_cast<int64_t>(i));
    }
    const int64_t bytes = 2 * positions_ * kv_heads_ * head_dim_ * static_cast<int64_t>(sizeof(T));
    const auto& table = kernel_table<T>();
    parallel_ranges(chunks_ * kv_heads_, bytes * std::max<int64_t>(1, groups_ / 2), [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t chunk = unit / kv_heads_;
        table.decode(unit_of(query_of[static_cast<size_t>(chunk)], chunk, unit % kv_heads_));
      }
    });
    const int64_t stride = heads_ * (head_dim_ + 2);
    const int64_t count = static_cast<int64_t>(queries_.size()) * heads_;
    parallel_ranges(count, chunks_ * stride * 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Query& query = queries_[static_cast<size_t>(i / heads_)];
        const int64_t head = i % heads_;
        table.merge(
            partial_.data() + query.first_chunk * stride + head * (head_dim_ + 2), stride, query.chunks, head_dim_,
            out_ + (query.token * heads_ + head) * head_dim_);
      }
    });
  }

 private:
  void scale_queries() {
    const T* from = q_.const_data_ptr<T>();
    for (size_t i = 0; i < queries_.size(); ++i) {
      for (int64_t head = 0; head < heads_; ++head) {
        const T* row = from + queries_[i].token * q_.stride(0) + head * q_.stride(1);
        float* to = scaled_.data() + (static_cast<int64_t>(i) * heads_ + head) * padded_;
        for (int64_t d = 0; d < head_dim_; ++d) {
          to[d] = scale_ * static_cast<float>(row[d]);
        }
      }
    }
  }

  DecodeChunk<T> unit_of(int64_t index, int64_t chunk, int64_t kv_head) {
    const Query& query = queries_[static_cast<size_t>(index)];
    const int64_t first = query.begin + (chunk - query.first_chunk) * kDecodeChunk;
    DecodeChunk<T> c;
    c.queries = scaled_.data() + (index * heads_ + kv_head * groups_) * padded_;
    c.query_stride = padded_;
    c.groups = groups_;
    c.head_dim = head_dim_;
    c.keys = k_.const_data_ptr<T>() + query.slot * k_.stride(0) + kv_head * k_.stride(1) + first * k_.stride(2);
    c.key_stride = k_.stride(2);
    c.values = v_.const_data_ptr<T>() + query.slot * v_.stride(0) + kv_head * v_.stride(1) + first * v_.stride(2);
    c.value_stride = v_.stride(2);
    c.length = std::min(kDecodeChunk, query.end - first);
    c.slopes = slopes_ == nullptr ? nullptr : slopes_ + kv_head * groups_;
    c.bias = bias_ == nullptr ? nullptr : bias_ + kv_head * groups_ * bias_stride_;
    c.bias_stride = bias_stride_;
    c.back = query.end - 1 - first;
    c.partial = partial_.data() + (chunk * heads_ + kv_head * groups_) * (head_dim_ + 2);
    return c;
  }

  const at::Tensor& q_;
  const at::Tensor& k_;
  const at::Tensor& v_;
  float scale_;
  const float* slopes_;  // [heads] or null
  const float* bias_;    // [heads, bias_stride_] or null
  int64_t bias_stride_;
  T* out_;
  int64_t heads_;
  int64_t head_dim_;
  int64_t kv_heads_;
  int64_t groups_;
  int64_t padded_ = 0;
  int64_t chunks_ = 0;
  int64_t positions_ = 0;
  std::vector<Query> queries_;
  std::vector<float> scaled_;
  std::vector<float> partial_;
};

// Whether the elements of a position lie together, as our kernels want them.
bool has_dense_rows(const at::Tensor& k_cache, const at::Tensor& v_cache) {
  return k_cache.stride(3) == 1 && v_cache.stride(3) == 1;
}

// What an in-place operator owes autograd: whoever saved the cache must notice.
void mark_written(const at::Tensor& tensor) {
  if (!tensor.is_inference()) {
    tensor.unsafeGetTensorImpl()->bump_version();
  }
}

}  // namespace

at::Tensor cached_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& positions,
    double scale,
    std::optional<int64_t> window,
    const std::optional<at::Tensor>& slopes,
    const std::optional<at::Tensor>& bias,
    const std::optional<at::Tensor>& bias_rows) {
  constexpr std::string_view kName = "cached_attention";
  check_cached_attention(kName, q, k, v, k_cache, v_cache, slots, positions, window, slopes);
  check_bias(kName, q, bias, bias_rows);
  if (!has_own_kernel(q) || !has_dense_rows(k_cache, v_cache)) {
    return cached_attention_reference(
        q, k, v, k_cache, v_cache, slots, positions, scale, window, slopes, bias, bias_rows);
  }
  const at::Tensor dense_slots = slots.contiguous();
  const at::Tensor dense_positions = positions.contiguous();
  const auto segments = find_segments(kName, dense_slots, dense_positions, k_cache.size(0), k_cache.size(2));
  const int64_t* position = dense_positions.const_data_ptr<int64_t>();
  const at::Tensor queries = with_dense_rows(q);
  const ScoreRule rule{
      window.value_or(0), slopes ? slopes->contiguous() : at::Tensor(), relative_bias(kName, bias, bias_rows)};
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  with_type(q, [&](auto type) {
    using T = decltype(type);
    append<T>(with_dense_rows(k), k_cache, segments, position);
    append<T>(with_dense_rows(v), v_cache, segments, position);
    Decoder<T> decoder(queries, k_cache, v_cache, scale, rule, out);
    for (const Segment& segment : segments) {
      if (segment.count <= kShortSegment || !segment.consecutive) {
        for (int64_t t = segment.first; t < segment.first + segment.count; ++t) {
          const int64_t begin = rule.window > 0 ? std::max<int64_t>(0, position[t] + 1 - rule.window) : 0;
          decoder.add(t, segment.slot, begin, position[t] + 1);
        }
      } else {
        out.view(q.sizes())
            .narrow(0, segment.first, segment.count)
            .copy_(attend_segment(queries, k_cache, v_cache, segment, dense_positions, scale, rule));
      }
    }
    decoder.run();
  });
  mark_written(k_cache);
  mark_written(v_cache);
  return out;
}

at::Tensor cross_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const at::Tensor& k_cache,
    const at::Tensor& v_cache,
    const at::Tensor& slots,
    const at::Tensor& source_slots,
    const at::Tensor& source_positions,
    const at::Tensor& lengths,
    double scale) {
  constexpr std::string_view kName = "cross_attention";
  check_cross_attention(kName, q, k, v, k_cache, v_cache, slots, source_slots, source_positions, lengths);
  if (!has_own_kernel(q) || !has_dense_rows(k_cache, v_cache)) {
    return cross_attention_reference(q, k, v, k_cache, v_cache, slots, source_slots, source_positions, lengths, scale);
  }
  const at::Tensor positions = source_positions.contiguous();
  const auto sources = find_segments(kName, source_slots.contiguous(), positions, k_cache.size(0), k_cache.size(2));
  const auto segments = find_segments(kName, slots.contiguous(), k_cache.size(0));
  const at::Tensor dense_lengths = lengths.contiguous();
  const at::Tensor queries = with_dense_rows(q);
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  with_type(q, [&](auto type) {
    using T = decltype(type);
    const int64_t* position = positions.const_data_ptr<int64_t>();
    append<T>(with_dense_rows(k), k_cache, sources, position);
    append<T>(with_dense_rows(v), v_cache, sources, position);
    Decoder<T> decoder(queries, k_cache, v_cache, scale, {}, out);
    for (const Segment& segment : segments) {
      const int64_t length = source_length(kName, dense_lengths, segment.slot, k_cache.size(2));
      for (int64_t t = segment.first; t < segment.first + segment.count; ++t) {
        decoder.add(t, segment.slot, 0, length);
      }
    }
    decoder.run();
  });
  mark_written(k_cache);
  mark_written(v_cache);
  return out;
}

}  // namespace shardpipe::kernels
