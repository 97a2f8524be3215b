#include "frontend/trace/module_scope.h"

namespace shardpipe::trace {
namespace {

thread_local std::string path;                                 // NOLINT
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

ModuleScope::Collector::Collector(std::map<std::string, std::string>& modules) {
  collected = &modules;
}

ModuleScope::Collector::~Collector() {
  collected = nullptr;
}

}  // namespace shardpipe::trace
