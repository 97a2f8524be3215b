#include "frontend/trace/deferred.h"

#include <torch/nn/module.h>

#include "base/error.h"
#include "frontend/trace/init_log.h"

namespace shardpipe::trace {

DeferredModule::DeferredModule(const ModuleFactory& factory) {
  const auto log = std::make_shared<InitialisationLog>();
  try {
    const InitialisationLog::Scope scope(*log);
    module_ = factory();
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw_usage("the factory failed while a module was built without memory: {}", current_error().message());
  }
  if (module_ == nullptr) {
    throw_usage("the factory returned no module");
  }
  std::vector<std::pair<std::string, InitialisationLog::TensorId>> made;
  const auto add = [&](const auto& tensors) {
    for (const auto& item : tensors) {
      ids_[item.key()] = log->find(item.value());
      if (ids_[item.key()] != InitialisationLog::kNone) {
        made.emplace_back(item.key(), ids_[item.key()]);
      }
    }
  };
  add(module_->named_parameters());
  add(module_->named_buffers());
  log->name_streams(made);
  log_ = log;
}

at::Tensor DeferredModule::materialise(const std::string& name, uint64_t seed) const {
  const auto found = ids_.find(name);
  if (found == ids_.end()) {
    throw_usage("the module has no parameter or buffer \"{}\"", name);
  }
  if (found->second == InitialisationLog::kNone) {
    throw Error(
        ErrorCode::usage, fmt::format("\"{}\" is on meta and was not made in the module's factory", name),
        "make it in the factory, or give an initialiser");
  }
  return log_->replay(found->second, seed);
}

}  // namespace shardpipe::trace
