#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "frontend/trace/interceptor.h"

namespace shardpipe::trace {

/// Records the operators that build and initialise a module while a Scope is open; its tensors are created on `meta`.
/// Any one tensor can then be made for real by the calls that it depends on, and no others.
class InitialisationLog : public Interceptor {
 public:
  using TensorId = int64_t;
  static constexpr TensorId kNone = -1;

  /// The id of a tensor made under the scope, or of a real one from outside; kNone for a `meta` tensor from outside.
  TensorId find(const at::Tensor& tensor);
  /// After the last call: gives each random call the name of a stream. `names`: the module's tensors, in order.
  void name_streams(const std::vector<std::pair<std::string, TensorId>>& names);

  /// Runs the calls that tensor `id` depends on, on the CPU; what they do not fill is zero. A random call draws from a
  /// generator seeded with generator_seed(seed, stream): the name of the tensor that it fills, else of the first tensor
  /// that is computed from it; "name#k" for the k-th after the first. So the numbers depend neither on the order of
  /// calls nor on which tensors are made. Does not change the global generator. Thread-safe.
  at::Tensor replay(TensorId id, uint64_t seed) const;

 private:
  using Storage = const c10::StorageImpl*;
  using Made = std::unordered_map<TensorId, at::Tensor>;
  static constexpr size_t kNoCall = ~size_t{0};

  struct Call {
    c10::OperatorHandle op;
    std::vector<c10::IValue> arguments;  // their tensors stand for `operands`, in order
    std::vector<TensorId> operands;
    std::vector<TensorId> results;  // kNone for one that is no new tensor
    std::vector<Storage> written;   // new results' memory included
    std::vector<std::pair<TensorId, Storage>> read;
    Storage overwritten = nullptr;  // wholly
    bool random = false;
  };
  struct Known {
    at::Tensor tensor;     // on meta; keeps its address from being reused, and
    c10::Storage storage;  // that of its memory, which set_data() would free
    std::vector<int64_t> sizes;
    std::vector<int64_t> strides;
    int64_t offset;
    size_t call = kNoCall;  // that made it
    at::Tensor real = {};   // of a tensor from outside
  };

  void call(const c10::OperatorHandle& op, torch::jit::Stack* stack) override;
  std::string place() const override { return "of the module's factory"; }
  const char* occasion() const override { return "a module is built without memory"; }

  TensorId add(const at::Tensor& tensor, const at::Tensor& real = {});
  TensorId add_view(TensorId base, const at::Tensor& tensor);
  bool is_current(const Known& known, const at::Tensor& tensor) const;
  void refresh(const at::Tensor& tensor);
  void add_call(Call call, const std::vector<at::Tensor>& written);
  void push(Call call);

  /// Calls to make, in order; true for those that matter for what they write, not only for the memory they make.
  std::map<size_t, bool> slice(TensorId id) const;
  at::Tensor& operand(TensorId id, Made& made) const;
  void run(size_t index, bool zeroed, uint64_t seed, Made& made) const;

  std::vector<Call> calls_;
  std::vector<Known> known_;
  std::unordered_map<const c10::TensorImpl*, TensorId> ids_;
  std::unordered_map<const c10::TensorImpl*, TensorId> outside_;  // real tensors
  std::unordered_map<Storage, TensorId> first_on_;
  std::unordered_map<Storage, std::vector<size_t>> writers_;  // calls, in order
  std::unordered_map<size_t, std::string> streams_;           // of random calls
};

/// The seed of the generator for a name: splitmix64 of the seed and the FNV-1a hash of the name.
uint64_t generator_seed(uint64_t seed, const std::string& name);

/// Seeds LibTorch's default CPU generator while it lives, then restores it; one at a time in the process.
class DefaultGeneratorGuard {
 public:
  explicit DefaultGeneratorGuard(uint64_t seed);
  ~DefaultGeneratorGuard();
  DefaultGeneratorGuard(const DefaultGeneratorGuard&) = delete;
  DefaultGeneratorGuard& operator=(const DefaultGeneratorGuard&) = delete;

 private:
  at::Tensor saved_;
};

}  // namespace shardpipe::trace
