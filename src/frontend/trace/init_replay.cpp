#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <mutex>
#include <queue>
#include <set>

#include "base/error.h"
#include "frontend/trace/init_log.h"

namespace shardpipe::trace {
namespace {

std::recursive_mutex& default_generator_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

bool is_generator(const c10::Argument& formal) {
  return formal.type()->isSubtypeOf(*c10::OptionalType::create(c10::GeneratorType::get()));
}

bool is_empty_factory(const c10::OperatorHandle& op) {
  static const std::set<std::string> names = {"aten::empty",     "aten::empty_like",        "aten::empty_strided",
                                              "aten::new_empty", "aten::new_empty_strided", "aten::empty_permuted"};
  return names.count(op.operator_name().name) > 0;
}

}  // namespace

uint64_t generator_seed(uint64_t seed, const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char letter : name) {
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3;
  }
  uint64_t mixed = (seed ^ hash) + 0x9e3779b97f4a7c15;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

DefaultGeneratorGuard::DefaultGeneratorGuard(uint64_t seed) {
  default_generator_mutex().lock();
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const std::lock_guard lock(generator.mutex());
  saved_ = generator.get_state();
  generator.set_current_seed(seed);
}

DefaultGeneratorGuard::~DefaultGeneratorGuard() {
  {
    at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
    const std::lock_guard lock(generator.mutex());
    generator.set_state(saved_);
  }
  default_generator_mutex().unlock();
}

// Backwards from the tensor: a call belongs to the slice when it makes a tensor that is needed or writes to memory
// whose content is needed at that point. What a call overwrites wholly is not needed before it.
std::map<size_t, bool> InitialisationLog::slice(TensorId id) const {
  std::map<size_t, bool> chosen;
  std::priority_queue<size_t> candidates;  // latest first; more than those that belong
  std::set<TensorId> tensors;
  std::set<Storage> content;
  const auto need_tensor = [&](TensorId tensor) {
    const size_t call = known_[static_cast<size_t>(tensor)].call;
    if (tensors.insert(tensor).second && call != kNoCall) {
      candidates.push(call);
    }
  };
  const auto add_writer_before = [&](Storage storage, size_t call) {
    if (const auto writers = writers_.find(storage); writers != writers_.end()) {
      const auto next = std::lower_bound(writers->second.begin(), writers->second.end(), call);
      if (next != writers->second.begin()) {
        candidates.push(*std::prev(next));
      }
    }
  };
  const auto need_content = [&](Storage storage, size_t before) {
    if (content.insert(storage).second) {
      add_writer_before(storage, before);
    }
  };
  need_tensor(id);
  need_content(known_[static_cast<size_t>(id)].storage.unsafeGetStorageImpl(), calls_.size());
  while (!candidates.empty()) {
    const size_t i = candidates.top();
    candidates.pop();
    const Call& call = calls_[i];
    const bool makes = std::any_of(
        call.results.begin(), call.results.end(), [&](TensorId result) { return tensors.count(result) > 0; });
    const bool writes = std::any_of(
        call.written.begin(), call.written.end(), [&](Storage storage) { return content.count(storage) > 0; });
    if (chosen.count(i) > 0 || (!makes && !writes)) {
      continue;
    }
    chosen[i] = writes;
    for (const TensorId operand : call.operands) {
      need_tensor(operand);
    }
    if (!writes) {
      continue;
    }
    content.erase(call.overwritten);
    for (const Storage storage : call.written) {
      if (content.count(storage) > 0) {
        add_writer_before(storage, i);
      }
    }
    for (const auto& [operand, storage] : call.read) {
      if (storage != call.overwritten) {
        need_content(storage, i);
      }
    }
  }
  return chosen;
}

void InitialisationLog::name_streams(const std::vector<std::pair<std::string, TensorId>>& names) {
  std::unordered_map<Storage, std::string> owners;
  for (const auto& [name, id] : names) {
    owners.try_emplace(known_[static_cast<size_t>(id)].storage.unsafeGetStorageImpl(), name);
  }
  std::map<std::string, int64_t> counts;
  for (const bool own : {true, false}) {
    for (const auto& [name, id] : names) {
      for (const auto& [index, writes] : slice(id)) {
        const Call& call = calls_[index];
        const bool fills = std::any_of(call.written.begin(), call.written.end(), [&](Storage storage) {
          const auto owner = owners.find(storage);
          return owner != owners.end() && owner->second == name;
        });
        if (call.random && (fills || !own) && streams_.count(index) == 0) {
          const int64_t count = counts[name]++;
          streams_[index] = count == 0 ? name : fmt::format("{}#{}", name, count);
        }
      }
    }
  }
}

at::Tensor& InitialisationLog::operand(TensorId id, Made& made) const {
  const auto [found, added] = made.try_emplace(id);
  if (added) {
    found->second = known_[static_cast<size_t>(id)].real.clone();  // from outside; a call may write to it
  }
  return found->second;
}

void InitialisationLog::run(size_t index, bool zeroed, uint64_t seed, Made& made) const {
  const Call& call = calls_[index];
  const std::vector<c10::Argument>& formals = call.op.schema().arguments();
  std::optional<at::Generator> generator;
  if (call.random) {
    generator = at::make_generator<at::CPUGeneratorImpl>(generator_seed(seed, streams_.at(index)));
  }
  bool takes_generator = false;
  torch::jit::Stack stack;
  size_t next = 0;
  for (size_t i = 0; i < formals.size(); ++i) {
    if (generator && is_generator(formals[i])) {
      takes_generator = true;
      stack.emplace_back(*generator);
    } else {
      stack.push_back(map_tensors(call.arguments[i], [&](const at::Tensor& tensor) {
        return tensor.defined() ? operand(call.operands[next++], made) : tensor;
      }));
    }
  }
  {
    std::optional<DefaultGeneratorGuard> guard;
    if (generator && !takes_generator) {
      guard.emplace(generator->current_seed());
    }
    call.op.callBoxed(&stack);
  }
  size_t result = 0;
  for (const c10::IValue& value : stack) {
    map_tensors(value, [&](const at::Tensor& tensor) {
      if (const TensorId id = call.results[result++]; id != kNone) {
        made[id] = zeroed && is_empty_factory(call.op) ? tensor.zero_() : tensor;
      }
      return tensor;
    });
  }
}

at::Tensor InitialisationLog::replay(TensorId id, uint64_t seed) const {
  const at::NoGradGuard no_grad;
  Made made;
  for (const auto& [index, zeroed] : slice(id)) {
    run(index, zeroed, seed, made);
  }
  const at::Tensor tensor = operand(id, made).detach();
  return tensor.nbytes() == tensor.storage().nbytes() ? tensor : tensor.clone();
}

}  // namespace shardpipe::trace
