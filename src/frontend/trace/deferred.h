#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace torch::nn {
class Module;
}

namespace shardpipe::trace {

class InitialisationLog;

using ModuleFactory = std::function<std::shared_ptr<torch::nn::Module>()>;

/// A module whose tensors are on `meta`: building it takes no memory, whatever its size. What its constructors do to
/// the tensors (empty, uniform_, copies, views, init::orthogonal_, …) is recorded, and replayed for one tensor at a
/// time.
class DeferredModule {
 public:
  /// Runs the factory. It may compute with tensors as it likes, but not read their values. Real tensors that it takes
  /// from outside are used as they are at the time of materialise().
  /// Throws Error(usage) naming the operator when it reads values, uses a `meta` tensor from outside, or fails; and
  /// when it returns no module.
  explicit DeferredModule(const ModuleFactory& factory);

  const std::shared_ptr<torch::nn::Module>& module() const { return module_; }

  /// The initial content of one parameter or buffer, by its name or any tied one, on the CPU. Random numbers come from
  /// a generator seeded with generator_seed(seed, first name): they depend neither on what else is made, in which order
  /// or process, nor on any layout; the calls are those of the module's own initialisation (init_log.h). Memory: the
  /// tensor's, and that of temporaries it is computed from. Thread-safe.
  /// Throws Error(usage) for a name that the module does not have or a tensor that was not made in the factory.
  at::Tensor materialise(const std::string& name, uint64_t seed) const;

 private:
  std::shared_ptr<torch::nn::Module> module_;
  std::shared_ptr<const InitialisationLog> log_;
  std::map<std::string, int64_t> ids_;
};

}  // namespace shardpipe::trace
