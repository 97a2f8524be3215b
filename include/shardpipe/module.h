#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "shardpipe/export.h"
#include "shardpipe/model.h"
#include "shardpipe/tensors.h"

namespace shardpipe {

/// An extent of an input: a number, or the name of a dimension whose size may differ from call to call.
struct Extent {
  Extent(int64_t number) : size(number) {}                       // NOLINT
  Extent(int number) : size(number) {}                           // NOLINT
  Extent(const char* dimension) : name(dimension) {}             // NOLINT
  Extent(std::string dimension) : name(std::move(dimension)) {}  // NOLINT
  std::string name;                                              ///< letters, digits and _; empty for a number
  int64_t size = 0;
};

/// An input of a module's forward: {"x", at::kFloat, {"batch", 16}}.
struct ModuleInput {
  std::string name;
  at::ScalarType dtype;
  std::vector<Extent> shape;
};

/// How a module of one's own is called. `forward` is given the tensors in the order of `inputs` and runs with several
/// sizes of each named dimension while the model is traced; nothing is computed then.
struct ModuleSignature {
  std::vector<ModuleInput> inputs;
  std::function<NamedTensors(torch::nn::Module& module, const std::vector<at::Tensor>& inputs)> forward;
};

/// Fills one tensor of a module, given uninitialised. LibTorch's default generator is seeded for that name.
using ModuleInitialiser = std::function<void(const std::string& name, at::Tensor& tensor)>;

/// Names the module that the code until the end of the scope belongs to. Paths follow from the parameters that are
/// used; a scope makes them exact, for code that cuts should find by name. Scopes nest.
class SHARDPIPE_API ModuleScope {
 public:
  ModuleScope(const std::string& name, const std::string& class_name);
  ~ModuleScope();
  ModuleScope(const ModuleScope&) = delete;
  ModuleScope& operator=(const ModuleScope&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Marks code of a module that cannot be traced, because it reads values or branches on them: it becomes one operator,
/// called as it is, with autograd through it. `f` may use no tensor but its inputs and may not write to them; how many
/// tensors it returns and their shapes follow from the inputs' shapes. Every rank has to make the same models in the
/// same order. Throws Error(usage) when `f` fails on zeros.
SHARDPIPE_API std::vector<at::Tensor> opaque(
    const std::string& name,
    std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)> f,
    const std::vector<at::Tensor>& inputs);

}  // namespace shardpipe
