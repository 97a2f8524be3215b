// Slots are used again after kShmSlots pieces. The order in which each rank goes on makes that safe without any more
// words between them:
//
//     bring 0;  for each k: { bring k+1; wait until all have brought k; take k (for shares: reduce share k and say so;
//     wait until all have reduced k-1; copy results k-1) }
//
// A rank that has brought piece k-1 has taken pieces up to k-3. One that brings k+1, over k-3, has seen everyone bring
// k-1: nobody reads that slot any more. One that writes result j, over j-4, has seen everyone bring piece k, which they
// do after they have copied the results of k-3. Between two calls the same holds, since a call ends with everything
// taken.
#include "comm/shm_collectives.h"

#include <cstring>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

using Tensors = std::vector<at::Tensor>;

enum Kind : uint64_t { kAllReduce, kAllGather, kReduceScatter, kAllToAll, kBroadcast, kBarrier, kLargest };
constexpr const char* kNames[] = {"all_reduce", "all_gather", "reduce_scatter", "all_to_all",
                                  "broadcast",  "barrier",    "all_to_all"};

constexpr int64_t kPiece = kShmPieceBytes;
// Up to here (times the number of ranks) everyone adds up everything, which saves one wait.
constexpr int64_t kWholeBytes = 64 * 1024;

int64_t num_pieces(int64_t bytes, int64_t piece) {
  return (bytes + piece - 1) / piece;
}

const char* data(const at::Tensor& tensor) {
  return static_cast<const char*>(tensor.const_data_ptr());
}

char* mutable_data(const at::Tensor& tensor) {
  return static_cast<char*>(tensor.mutable_data_ptr());
}

/// A part of a list of bytes.
struct Range {
  int64_t begin = 0;
  int64_t bytes = 0;
};

Range range(int64_t total, int64_t piece, int64_t number) {
  const int64_t begin = std::min(total, piece * number);
  return {begin, std::min(piece, total - begin)};
}

void copy(char* to, const char* from, int64_t bytes) {
  if (bytes > 0 && to != from) {
    std::memmove(to, from, static_cast<size_t>(bytes));
  }
}

}  // namespace

/// What a call is, the same on all ranks.
struct ShmCollectives::Call {
  Kind kind;
  uint64_t bytes;
  const char* name() const { return kNames[kind]; }
};

char* ShmCollectives::piece(int r, uint64_t number) const {
  return group_->bytes_at(group_->layout().piece(r, static_cast<int>(number % kShmSlots)));
}

char* ShmCollectives::result(int r, uint64_t number) const {
  return group_->bytes_at(group_->layout().result(r, static_cast<int>(number % kShmSlots)));
}

/// Says that this rank's next piece is in its slot.
void ShmCollectives::bring(const Call& call) {
  const int slot = static_cast<int>(brought_ % kShmSlots);
  auto& own = group_->at<ShmCall>(group_->layout().call(group_->rank(), slot));
  own.kind = call.kind;
  own.bytes = call.bytes;
  ++brought_;
  group_->member(group_->rank()).brought.store(brought_, std::memory_order_relaxed);
  group_->at<ShmArrivals>(group_->layout().brought(slot)).count.raise();
}

void ShmCollectives::await_pieces(const Call& call, uint64_t number) {
  auto& arrivals = group_->at<ShmArrivals>(group_->layout().brought(static_cast<int>(number % kShmSlots))).count;
  const auto target = static_cast<uint32_t>((number / kShmSlots + 1) * static_cast<uint64_t>(group_->size()));
  group_->wait(
      arrivals, call.name(), [&] { return static_cast<int32_t>(arrivals.value() - target) >= 0; },
      [&](int r) { return group_->member(r).brought.load(std::memory_order_relaxed) <= number; });
}

void ShmCollectives::await_results(const Call& call, uint64_t number) {
  auto& arrivals = group_->at<ShmArrivals>(group_->layout().reduced(static_cast<int>(number % kShmSlots))).count;
  const auto target = static_cast<uint32_t>((number / kShmSlots + 1) * static_cast<uint64_t>(group_->size()));
  group_->wait(
      arrivals, call.name(), [&] { return static_cast<int32_t>(arrivals.value() - target) >= 0; },
      [&](int) { return true; });
}

/// Ranks that call different things would read what is not meant for them.
void ShmCollectives::compare(const Call& call, uint64_t number) {
  for (int r = 0; r < group_->size(); ++r) {
    const auto& other = group_->at<ShmCall>(group_->layout().call(r, static_cast<int>(number % kShmSlots)));
    if (other.kind != call.kind || other.bytes != call.bytes) {
      const uint64_t known = std::min<uint64_t>(other.kind, std::size(kNames) - 1);
      throw_internal(
          "rank {} calls {} of {} bytes, rank {} {} of {} bytes", group_->world_rank(group_->rank()), call.name(),
          call.bytes, group_->world_rank(r), kNames[known], other.bytes);
    }
  }
}

/// `bring(k, slot)` copies this rank's piece k into its slot; `take(k, number)` uses those of all, in the slots of
/// piece `number`.
template <typename Bring, typename Take>
void ShmCollectives::pieces(const Call& call, int64_t count, const Bring& bring_piece, const Take& take) {
  const uint64_t first = brought_;
  const auto next = [&](int64_t k) {
    bring_piece(k, piece(group_->rank(), first + static_cast<uint64_t>(k)));
    bring(call);
  };
  next(0);
  for (int64_t k = 0; k < count; ++k) {
    if (k + 1 < count) {
      next(k + 1);
    }
    const uint64_t number = first + static_cast<uint64_t>(k);
    await_pieces(call, number);
    if (k == 0) {
      compare(call, number);
    }
    take(k, number);
  }
}

void ShmCollectives::all_reduce(const at::Tensor& tensor, ReduceOp op) {
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  const Call call{kAllReduce, static_cast<uint64_t>(bytes)};
  if (bytes * group_->size() <= kWholeBytes) {
    reduce_whole(call, tensor, op);
  } else {
    reduce_shares(call, tensor, op);
  }
}

void ShmCollectives::reduce_whole(const Call& call, const at::Tensor& tensor, ReduceOp op) {
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  const int rank = group_->rank();
  pieces(
      call, 1, [&](int64_t, char* slot) { copy(slot, data(tensor), bytes); },
      [&](int64_t, uint64_t number) {
        std::vector<const void*> ins(static_cast<size_t>(group_->size()));
        for (int r = 0; r < group_->size(); ++r) {
          ins[static_cast<size_t>(r)] = r == rank ? data(tensor) : piece(r, number);
        }
        reduce(tensor.scalar_type(), op, mutable_data(tensor), ins, tensor.numel());
      });
}

void ShmCollectives::reduce_shares(const Call& call, const at::Tensor& tensor, ReduceOp op) {
  const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
  const int64_t element = tensor.element_size();
  const int64_t size = group_->size();
  const int rank = group_->rank();
  char* own = mutable_data(tensor);
  const int64_t step = kPiece / element * element;
  // Rank r's share of a piece; whole lines, but for the ends.
  const auto share = [&](const Range& whole, int64_t r) {
    const int64_t elements = whole.bytes / element;
    const int64_t begin = elements * r / size * element;
    return Range{whole.begin + begin, elements * (r + 1) / size * element - begin};
  };
  const uint64_t first_result = reduced_;
  const auto copy_results = [&](int64_t k) {
    const uint64_t number = first_result + static_cast<uint64_t>(k);
    await_results(call, number);
    const Range whole = range(bytes, step, k);
    for (int64_t i = 1; i < size; ++i) {
      const int64_t r = (rank + i) % size;
      const Range part = share(whole, r);
      copy(own + part.begin, result(static_cast<int>(r), number), part.bytes);
    }
  };
  std::vector<const void*> ins(static_cast<size_t>(size));
  const int64_t count = num_pieces(bytes, step);
  pieces(
      call, count,
      [&](int64_t k, char* slot) {
        const Range whole = range(bytes, step, k);
        const Range mine = share(whole, rank);
        copy(slot, own + whole.begin, mine.begin - whole.begin);
        const int64_t behind = mine.begin + mine.bytes;
        copy(slot + (behind - whole.begin), own + behind, whole.begin + whole.bytes - behind);
      },
      [&](int64_t k, uint64_t number) {
        const Range whole = range(bytes, step, k);
        const Range mine = share(whole, rank);
        for (int64_t r = 0; r < size; ++r) {
          ins[static_cast<size_t>(r)] =
              r == rank ? own + mine.begin : piece(static_cast<int>(r), number) + (mine.begin - whole.begin);
        }
        reduce(tensor.scalar_type(), op, own + mine.begin, ins, mine.bytes / element);
        copy(result(rank, reduced_), own + mine.begin, mine.bytes);
        group_->at<ShmArrivals>(group_->layout().reduced(static_cast<int>(reduced_ % kShmSlots))).count.raise();
        ++reduced_;
        if (k > 0) {
          copy_results(k - 1);
        }
      });
  copy_results(count - 1);
}

void ShmCollectives::all_gather(const Tensors& outs, const at::Tensor& in) {
  const int rank = group_->rank();
  size_t most = 0;
  uint64_t total = 0;
  for (const at::Tensor& out : outs) {
    most = std::max(most, out.nbytes());
    total += out.nbytes();
  }
  if (total == 0) {
    return;
  }
  const auto bytes = static_cast<int64_t>(in.nbytes());
  // Before anything arrives in `outs`, which may hold `in`.
  copy(mutable_data(outs[static_cast<size_t>(rank)]), data(in), bytes);
  pieces(
      {kAllGather, total}, num_pieces(static_cast<int64_t>(most), kPiece),
      [&](int64_t k, char* slot) {
        const Range part = range(bytes, kPiece, k);
        copy(slot, data(in) + part.begin, part.bytes);
      },
      [&](int64_t k, uint64_t number) {
        for (int i = 1; i < group_->size(); ++i) {
          const int r = (rank + i) % group_->size();
          const at::Tensor& out = outs[static_cast<size_t>(r)];
          const Range part = range(static_cast<int64_t>(out.nbytes()), kPiece, k);
          copy(mutable_data(out) + part.begin, piece(r, number), part.bytes);
        }
      });
}

void ShmCollectives::reduce_scatter(const at::Tensor& out, const Tensors& ins, ReduceOp op) {
  const int rank = group_->rank();
  const int size = group_->size();
  const int64_t element = out.element_size();
  const int64_t step = kPiece / size / element * element;  // of each part
  size_t most = 0;
  uint64_t total = 0;
  for (const at::Tensor& in : ins) {
    most = std::max(most, in.nbytes());
    total += in.nbytes();
  }
  if (total == 0) {
    return;
  }
  std::vector<const void*> parts(static_cast<size_t>(size));
  pieces(
      {kReduceScatter, total}, num_pieces(static_cast<int64_t>(most), step),
      [&](int64_t k, char* slot) {
        for (int r = 0; r < size; ++r) {
          const at::Tensor& in = ins[static_cast<size_t>(r)];
          const Range part = range(static_cast<int64_t>(in.nbytes()), step, k);
          if (r != rank) {
            copy(slot + step * r, data(in) + part.begin, part.bytes);
          }
        }
      },
      [&](int64_t k, uint64_t number) {
        const Range part = range(static_cast<int64_t>(out.nbytes()), step, k);
        for (int r = 0; r < size; ++r) {
          parts[static_cast<size_t>(r)] =
              r == rank ? data(ins[static_cast<size_t>(rank)]) + part.begin : piece(r, number) + step * rank;
        }
        reduce(out.scalar_type(), op, mutable_data(out) + part.begin, parts, part.bytes / element);
      });
}

/// The largest of the numbers that the ranks bring.
int64_t ShmCollectives::largest(int64_t number) {
  int64_t most = number;
  pieces(
      {kLargest, 0}, 1, [&](int64_t, char* slot) { std::memcpy(slot, &number, sizeof(number)); },
      [&](int64_t, uint64_t at) {
        for (int r = 0; r < group_->size(); ++r) {
          int64_t other = 0;
          std::memcpy(&other, piece(r, at), sizeof(other));
          most = std::max(most, other);
        }
      });
  return most;
}

void ShmCollectives::all_to_all(const Tensors& outs, const Tensors& ins) {
  const int rank = group_->rank();
  const int size = group_->size();
  size_t most = 0;
  for (const at::Tensor& in : ins) {
    most = std::max(most, in.nbytes());
  }
  // What other pairs exchange is not known here.
  const int64_t step = kPiece / size / static_cast<int64_t>(kShmLine) * static_cast<int64_t>(kShmLine);
  const int64_t count = num_pieces(largest(static_cast<int64_t>(most)), step);
  if (count == 0) {
    return;
  }
  pieces(
      {kAllToAll, 0}, count,
      [&](int64_t k, char* slot) {
        for (int r = 0; r < size; ++r) {
          const at::Tensor& in = ins[static_cast<size_t>(r)];
          const Range part = range(static_cast<int64_t>(in.nbytes()), step, k);
          copy(slot + step * r, data(in) + part.begin, part.bytes);
        }
      },
      [&](int64_t k, uint64_t number) {
        for (int i = 0; i < size; ++i) {
          const int r = (rank + i) % size;
          const at::Tensor& out = outs[static_cast<size_t>(r)];
          const Range part = range(static_cast<int64_t>(out.nbytes()), step, k);
          copy(mutable_data(out) + part.begin, piece(r, number) + step * rank, part.bytes);
        }
      });
}

void ShmCollectives::broadcast(const at::Tensor& tensor, int root) {
  const auto bytes = static_cast<int64_t>(tensor.nbytes());
  pieces(
      {kBroadcast, static_cast<uint64_t>(bytes)}, num_pieces(bytes, kPiece),
      [&](int64_t k, char* slot) {
        if (root == group_->rank()) {
          const Range part = range(bytes, kPiece, k);
          copy(slot, data(tensor) + part.begin, part.bytes);
        }
      },
      [&](int64_t k, uint64_t number) {
        if (root != group_->rank()) {
          const Range part = range(bytes, kPiece, k);
          copy(mutable_data(tensor) + part.begin, piece(root, number), part.bytes);
        }
      });
}

void ShmCollectives::barrier() {
  pieces(
      {kBarrier, 0}, 1, [](int64_t, char*) {}, [](int64_t, uint64_t) {});
}

}  // namespace shardpipe::comm
