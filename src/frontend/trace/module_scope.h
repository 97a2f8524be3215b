#pragma once

#include <map>
#include <string>

namespace shardpipe::trace {

/// Names the module that the current code belongs to while a model is traced: nodes recorded inside carry its path.
/// C++ has no hook on forward(), so a module that wants exact paths opens one:
///
///   ModuleScope scope("layers.3", "LlamaDecoderLayer");   // inside scope "model": path "model.layers.3"
///
/// Outside of a trace it costs one string append. Thread-local; scopes nest.
class ModuleScope {
 public:
  ModuleScope(const std::string& name, const std::string& class_name);
  ~ModuleScope();
  ModuleScope(const ModuleScope&) = delete;
  ModuleScope& operator=(const ModuleScope&) = delete;

  /// The path of the innermost open scope; empty outside.
  static const std::string& current();

  /// Collects path -> class of the scopes opened on this thread while it lives; the innermost collector does.
  class Collector {
   public:
    explicit Collector(std::map<std::string, std::string>& modules);
    ~Collector();
    Collector(const Collector&) = delete;
    Collector& operator=(const Collector&) = delete;

   private:
    std::map<std::string, std::string>* previous_;
  };

 private:
  size_t previous_length_;
};

}  // namespace shardpipe::trace
