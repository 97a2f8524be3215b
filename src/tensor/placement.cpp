#include "tensor/placement.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/narrow.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace shardpipe::tensor {
namespace {

int64_t sum(const std::vector<int64_t>& numbers, size_t count) {
  return std::accumulate(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(count), int64_t{0});
}

int64_t sum(const std::vector<int64_t>& numbers) {
  return sum(numbers, numbers.size());
}

}  // namespace

int64_t Shard::all_units() const {
  return sum(units);
}

int64_t Shard::period() const {
  return sum(blocks);
}

int64_t Shard::local(int64_t extent, int part) const {
  return extent / all_units() * units[static_cast<size_t>(part)];
}

int64_t Shard::whole(int64_t local_extent, int part) const {
  const int64_t mine = units[static_cast<size_t>(part)];
  return mine == 0 ? period() : local_extent / mine * all_units();
}

int64_t Shard::begin(int64_t block, int part) const {
  return block / all_units() * sum(units, static_cast<size_t>(part));
}

int64_t Shard::length(int64_t block, int part) const {
  return local(block, part);
}

at::Tensor take(const at::Tensor& whole, const Shard& shard, int part) {
  const int64_t extent = whole.size(shard.dim);
  const int64_t period = shard.period();
  if (period == 0 || extent % period != 0) {
    throw_internal("a dimension of {} elements has no whole number of periods of {}", extent, period);
  }
  if (extent == 0) {
    return whole;
  }
  std::vector<at::Tensor> pieces;
  for (int64_t at = 0; at < extent;) {
    for (const int64_t block : shard.blocks) {
      pieces.push_back(whole.narrow(shard.dim, at + shard.begin(block, part), shard.length(block, part)));
      at += block;
    }
  }
  return pieces.size() == 1 ? pieces[0] : at::cat(pieces, shard.dim);
}

at::Tensor join(const std::vector<at::Tensor>& pieces, const Shard& shard) {
  if (static_cast<int>(pieces.size()) != shard.parts()) {
    throw_internal("{} pieces of a tensor that has {} parts", pieces.size(), shard.parts());
  }
  int64_t extent = 0;
  for (const at::Tensor& piece : pieces) {
    extent += piece.size(shard.dim);
  }
  if (extent == 0) {
    return pieces[0];
  }
  std::vector<at::Tensor> blocks;
  std::vector<int64_t> taken(pieces.size(), 0);
  for (int64_t at = 0; at < extent;) {
    for (const int64_t block : shard.blocks) {
      for (size_t part = 0; part < pieces.size(); ++part) {
        const int64_t length = shard.length(block, static_cast<int>(part));
        blocks.push_back(pieces[part].narrow(shard.dim, taken[part], length));
        taken[part] += length;
      }
      at += block;
    }
  }
  return at::cat(blocks, shard.dim);
}

std::vector<int64_t> spread(int64_t units, int parts) {
  std::vector<int64_t> each;
  for (int part = 0; part < parts; ++part) {
    each.push_back(units / parts + (part < units % parts ? 1 : 0));
  }
  return each;
}

std::vector<int64_t> spread_groups(int64_t heads, int64_t groups, int parts) {
  if (groups < 1 || heads % groups != 0 || groups >= parts || heads < parts) {
    return {};
  }
  std::vector<int64_t> each;
  for (const int64_t of_group : spread(parts, static_cast<int>(groups))) {
    for (const int64_t count : spread(heads / groups, static_cast<int>(of_group))) {
      each.push_back(count);
    }
  }
  return std::count(each.begin(), each.end(), 0) > 0 ? std::vector<int64_t>() : each;
}

int64_t group_of_part(const std::vector<int64_t>& heads, int64_t groups, int part) {
  return sum(heads, static_cast<size_t>(part)) / (sum(heads) / groups);
}

}  // namespace shardpipe::tensor
