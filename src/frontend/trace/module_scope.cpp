#include "frontend/trace/module_scope.h"

#include <utility>

namespace shardpipe::trace {
namespace {

thread_local std::string path;                                         // NOLINT
thread_local std::map<std::string, std::string>* collected = nullptr;  // NOLINT

}  // namespace

ModuleScope::ModuleScope(const std::string& name, const std::string& class_name) : previous_length_(path.size()) {
  path += path.empty() ? name : "." + name;
  if (collected != nullptr) {
    (*collected)[path] = class_name;
  }
}

ModuleScope::~ModuleScope() {
  path.resize(previous_length_);
}

const std::string& ModuleScope::current() {
  return path;
}

ModuleScope::Collector::Collector(std::map<std::string, std::string>& modules)
    : previous_(std::exchange(collected, &modules)) {}

ModuleScope::Collector::~Collector() {
  collected = previous_;
}

}  // namespace shardpipe::trace
