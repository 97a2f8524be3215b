#pragma once

// What every transport's collectives must do, checked by each rank: the same body for ranks that are threads and for
// ranks that are processes.
#include <ATen/ATen.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <thread>

#include "base/error.h"
#include "comm/group.h"
#include "comm/monitor.h"
#include "comm/transport.h"

namespace shardpipe::comm::test {

/// Rank r's input of a call: random with NaN, infinities and values whose sums depend on the order.
inline at::Tensor input_of(int rank, int64_t numel, at::ScalarType type, int64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed * 1000 + rank));
  if (type == at::kBool) {
    return at::randint(0, 2, {numel}, generator, at::dtype(at::kLong)).to(type);
  }
  if (at::isIntegralType(type, false)) {
    return at::randint(-1'000'000'000'000, 1'000'000'000'000, {numel}, generator, at::dtype(at::kLong)).to(type);
  }
  at::Tensor values = at::randn({numel}, generator, at::dtype(at::kDouble)) *
                      at::pow(10.0, at::randint(-3, 4, {numel}, generator, at::dtype(at::kDouble)));
  if (numel > 8 && at::isFloatingType(type)) {
    values[rank % 8] = std::numeric_limits<double>::infinity();
    values[7] = rank == 1 ? std::numeric_limits<double>::quiet_NaN() : 1.0;
  }
  return values.to(type);
}

/// The inputs combined in the order of the ranks by ATen.
inline at::Tensor expected_reduction(const std::vector<at::Tensor>& inputs, ReduceOp op) {
  const at::ScalarType type = inputs[0].scalar_type();
  const bool narrow = at::isFloatingType(type) && c10::elementSize(type) < 4;
  at::Tensor sum = narrow ? inputs[0].to(at::kFloat) : inputs[0].clone();
  for (size_t i = 1; i < inputs.size(); ++i) {
    const at::Tensor next = narrow ? inputs[i].to(at::kFloat) : inputs[i];
    sum = op == ReduceOp::sum       ? (type == at::kBool ? at::logical_or(sum, next) : at::add(sum, next))
          : op == ReduceOp::product ? at::mul(sum, next)
          : op == ReduceOp::min     ? at::minimum(sum, next)
                                    : at::maximum(sum, next);
  }
  return sum.to(type);
}

/// Bit by bit, but for the many forms of NaN.
inline void expect_same(const std::string& what, const at::Tensor& got, const at::Tensor& expected) {
  at::Tensor a = got.contiguous().view({-1});
  at::Tensor b = expected.contiguous().view({-1});
  if (at::isFloatingType(a.scalar_type()) && a.numel() > 0) {
    const at::Tensor nan_a = a.to(at::kFloat).isnan();
    const at::Tensor nan_b = b.to(at::kFloat).isnan();
    if (!at::equal(nan_a, nan_b)) {
      throw_internal("{}: NaN in other places", what);
    }
    a = a.to(at::kDouble).masked_fill(nan_a, 0).to(a.scalar_type());
    b = b.to(at::kDouble).masked_fill(nan_b, 0).to(b.scalar_type());
  }
  if (a.nbytes() != b.nbytes() ||
      (a.nbytes() > 0 && std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) != 0)) {
    int64_t at = 0;
    const auto* bytes_a = static_cast<const char*>(a.const_data_ptr());
    const auto* bytes_b = static_cast<const char*>(b.const_data_ptr());
    while (a.nbytes() == b.nbytes() && bytes_a[at] == bytes_b[at]) {
      ++at;
    }
    throw_internal(
        "{}: {} of {} elements differs from the reference first at {}", what, c10::toString(a.scalar_type()), a.numel(),
        at / static_cast<int64_t>(a.element_size()));
  }
}

inline void check_reductions(const Group& group, int64_t numel, at::ScalarType type, ReduceOp op, int64_t seed) {
  std::vector<at::Tensor> inputs;
  for (int rank = 0; rank < group.size(); ++rank) {
    inputs.push_back(input_of(rank, numel, type, seed));
  }
  const at::Tensor expected = expected_reduction(inputs, op);
  const std::string what = fmt::format("{} of {} elements on rank {}", to_string(op), numel, group.rank());
  at::Tensor own = inputs[group.rank()].clone();
  group.all_reduce(own, op);
  expect_same("all_reduce " + what, own, expected);

  // Uneven parts, the first one empty; the last one of every rank is the rest.
  std::vector<int64_t> extents;
  for (int rank = 0; rank < group.size(); ++rank) {
    extents.push_back(rank + 1 == group.size() ? numel : std::min<int64_t>(numel, rank * 7));
    numel -= extents.back();
  }
  const std::vector<at::Tensor> parts = inputs[group.rank()].split_with_sizes(extents);
  const at::Tensor part = at::empty({extents[group.rank()]}, own.options());
  group.reduce_scatter(part, parts, op);
  expect_same("reduce_scatter " + what, part, expected.split_with_sizes(extents)[group.rank()]);
}

inline void check_moves(const Group& group, int64_t numel, at::ScalarType type, int64_t seed) {
  const std::string what = fmt::format("{} elements on rank {}", numel, group.rank());
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> outs;
  for (int rank = 0; rank < group.size(); ++rank) {
    const int64_t extent = numel == 0 ? 0 : numel + rank * 3;
    inputs.push_back(input_of(rank, extent, type, seed));
    outs.push_back(at::zeros({extent}, inputs[0].options()));
  }
  group.all_gather(outs, inputs[group.rank()]);
  for (int rank = 0; rank < group.size(); ++rank) {
    expect_same("all_gather of " + what, outs[rank], inputs[rank]);
  }
  for (int root = 0; root < group.size(); ++root) {
    const at::Tensor tensor = group.rank() == root ? inputs[root].clone() : at::zeros_like(inputs[root]);
    group.broadcast(tensor, root);
    expect_same("broadcast of " + what, tensor, inputs[root]);
  }
  // Part (from, to) has from + 2 * to more elements.
  std::vector<at::Tensor> sent;
  std::vector<at::Tensor> arrived;
  for (int peer = 0; peer < group.size(); ++peer) {
    sent.push_back(input_of(group.rank(), numel + group.rank() + 2 * peer, type, seed + peer + 1));
    arrived.push_back(at::zeros({numel + peer + 2 * group.rank()}, sent[0].options()));
  }
  group.all_to_all(arrived, sent);
  for (int peer = 0; peer < group.size(); ++peer) {
    expect_same(
        "all_to_all of " + what, arrived[peer],
        input_of(peer, numel + peer + 2 * group.rank(), type, seed + group.rank() + 1));
  }
}

/// Strided tensors, and one that is input and output.
inline void check_strides(const Group& group) {
  const int size = group.size();
  const int rank = group.rank();
  std::vector<at::Tensor> inputs;
  for (int member = 0; member < size; ++member) {
    inputs.push_back(input_of(member, 60 * 70, at::kFloat, 5).view({60, 70}));
  }
  const at::Tensor transposed = inputs[rank].t().contiguous().t();
  group.all_reduce(transposed);
  expect_same("all_reduce of a transposed tensor", transposed, expected_reduction(inputs, ReduceOp::sum));

  // Columns of one tensor, as a column-parallel layer gathers them.
  const at::Tensor whole = at::zeros({60, 70 * size});
  std::vector<at::Tensor> columns = whole.split(70, 1);
  group.all_gather(columns, inputs[rank]);
  expect_same("all_gather of columns", whole, at::cat(inputs, 1));
  group.reduce_scatter(columns[rank], std::vector<at::Tensor>(size, inputs[rank].t().contiguous().t()));
  expect_same("reduce_scatter into columns", columns[rank], expected_reduction(inputs, ReduceOp::sum));

  const at::Tensor every_other = at::zeros({60, 140}).slice(1, 0, 140, 2);
  every_other.copy_(inputs[rank]);
  group.broadcast(every_other, size - 1);
  expect_same("broadcast of a strided tensor", every_other, inputs[size - 1]);

  const at::Tensor rows = at::zeros({size, 60, 70});
  rows[rank].copy_(inputs[rank]);
  std::vector<at::Tensor> places = rows.unbind(0);
  group.all_gather(places, places[rank]);
  expect_same("all_gather in place", rows, at::stack(inputs));
}

inline void check_group(const Group& group) {
  const GroupStatistics before = group.statistics();
  int64_t seed = 1;
  const std::vector<int64_t> sizes = {0, 1, 3, 63, 576, 1001, 8192 + 1, 50'000, 300'001};
  for (const at::ScalarType type :
       {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble, at::kLong, at::kInt, at::kShort, at::kChar, at::kByte,
        at::kBool, at::kFloat8_e4m3fn, at::kComplexFloat}) {
    for (const int64_t numel : sizes) {
      if (numel > 1001 && type != at::kFloat && type != at::kBFloat16 && type != at::kChar) {
        continue;
      }
      check_reductions(group, numel, type, ReduceOp::sum, seed++);
    }
    check_moves(group, 1001, type, seed++);
  }
  for (const ReduceOp op : {ReduceOp::product, ReduceOp::min, ReduceOp::max}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kLong, at::kByte, at::kDouble}) {
      check_reductions(group, 1001, type, op, seed++);
    }
  }
  for (const int64_t numel : sizes) {
    check_moves(group, numel, at::kFloat, seed++);
  }
  check_reductions(group, 2'000'003, at::kFloat, ReduceOp::sum, seed++);
  check_strides(group);
  group.barrier();
  const GroupStatistics after = group.statistics();
  if (after.barrier.calls != before.barrier.calls + 1 ||
      after.broadcast.calls - before.broadcast.calls < group.size() || after.all_reduce.ns <= before.all_reduce.ns ||
      after.all_to_all.bytes <= before.all_to_all.bytes) {
    throw_internal("statistics do not count the calls");
  }
}

/// Any mix of calls in one order: what one leaves behind must not disturb the next.
inline void check_mixture(const Group& group, int rounds, int64_t seed) {
  std::mt19937 random(static_cast<unsigned>(seed));  // the same on all ranks
  const std::vector<int64_t> sizes = {0, 1, 17, 576, 4096, 20'000, 70'000, 300'000};
  for (int round = 0; round < rounds; ++round) {
    const int64_t numel = sizes[random() % sizes.size()];
    const auto kind = random() % 4;
    if (kind == 0) {
      check_reductions(group, numel, at::kFloat, ReduceOp::sum, seed + round);
    } else if (kind == 1) {
      check_moves(group, numel, at::kBFloat16, seed + round);
    } else if (kind == 2) {
      group.barrier();
    } else {
      check_reductions(group, numel, at::kBFloat16, ReduceOp::max, seed + round);
    }
  }
}

/// The work of a job that something happens to: sums, gathers and messages around the ring, small and large, each
/// checked. `before` is called before each of the four calls of a round.
inline void talk(
    const Group& group,
    const Transport& all,
    Monitor& monitor,
    int rounds,
    const std::function<void(int call)>& before) {
  const int size = group.size();
  const int rank = group.rank();
  const int next = (rank + 1) % size;
  const int previous = (rank + size - 1) % size;
  const std::vector<int64_t> sizes = {576, 20'000, 3, 700'000};  // eager and large, of one piece and of several
  int call = 0;
  for (int round = 0; round < rounds; ++round) {
    const int64_t numel = sizes[static_cast<size_t>(round) % sizes.size()];
    const auto expect = [&](const char* what, const at::Tensor& got, int64_t value) {
      expect_same(fmt::format("{} of round {}", what, round), got, at::full({numel}, value, at::kInt));
    };
    before(call++);
    const at::Tensor sum = at::full({numel}, rank + round, at::kInt);
    group.all_reduce(sum);
    expect("all_reduce", sum, size * (size - 1) / 2 + size * round);
    before(call++);
    std::vector<at::Tensor> gathered;
    for (int peer = 0; peer < size; ++peer) {
      gathered.push_back(at::zeros({numel}, at::kInt));
    }
    group.all_gather(gathered, at::full({numel}, 7 * rank + round, at::kInt));
    for (int peer = 0; peer < size; ++peer) {
      expect("all_gather", gathered[static_cast<size_t>(peer)], 7 * peer + round);
    }
    before(call++);
    const at::Tensor got = at::zeros({numel}, at::kInt);
    {
      const ActionScope action(monitor, "MESSAGE", {.from = previous, .to = next});
      MessageHandle receive = all.irecv(got, previous, round);
      MessageHandle send = all.isend(at::full({numel}, 11 * rank + round, at::kInt), next, round);
      receive.wait();
      send.wait();
    }
    expect("message", got, 11 * previous + round);
    before(call++);
    group.barrier();
  }
}

/// For talk(): any rank is late at any moment, one more often and by more than a while of spinning.
inline std::function<void(int)> delays(int rank) {
  return [rank, random = std::mt19937(static_cast<unsigned>(rank) + 3)](int) mutable {
    if (random() % 3 == 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(random() % (rank == 1 ? 20'000 : 2'000)));
    }
  };
}

}  // namespace shardpipe::comm::test
