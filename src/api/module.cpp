#include "shardpipe/module.h"

#include "api/impl.h"
#include "api/parallel_layers.h"
#include "base/error.h"
#include "frontend/trace/deferred.h"
#include "frontend/trace/module.h"
#include "frontend/trace/module_scope.h"
#include "frontend/trace/opaque.h"
#include "kernels/register.h"

namespace shardpipe {
namespace {

trace::ModuleSignature convert(const ModuleSignature& signature) {
  trace::ModuleSignature converted;
  for (const ModuleInput& input : signature.inputs) {
    graph::Shape shape;
    for (const Extent& extent : input.shape) {
      shape.push_back(extent.name.empty() ? graph::Size(extent.size) : graph::Size::symbol(extent.name));
    }
    converted.inputs.push_back({input.name, input.dtype, std::move(shape)});
  }
  converted.forward = signature.forward;
  return converted;
}

// What is no module is refused by the trace.
std::vector<tensor::PinRule> pins_of(const std::shared_ptr<torch::nn::Module>& module) {
  return module == nullptr ? std::vector<tensor::PinRule>() : find_layer_pins(*module);
}

}  // namespace

Model Model::from_module(const std::shared_ptr<torch::nn::Module>& module, const ModuleSignature& signature) {
  auto impl = std::make_shared<Impl>();
  impl->trace_module = [module, signature = convert(signature)] {
    std::vector<tensor::PinRule> pins = pins_of(module);
    return ModuleModel{trace::trace_module(module, signature), std::move(pins)};
  };
  Model model;
  model.impl_ = std::move(impl);
  return model;
}

Model Model::from_module(
    const std::function<std::shared_ptr<torch::nn::Module>()>& factory,
    const ModuleSignature& signature,
    uint64_t seed) {
  auto impl = std::make_shared<Impl>();
  impl->trace_module = [factory, signature = convert(signature), seed] {
    const trace::DeferredModule module(factory);
    std::vector<tensor::PinRule> pins = pins_of(module.module());
    return ModuleModel{trace::trace_module(module, signature, seed), std::move(pins)};
  };
  Model model;
  model.impl_ = std::move(impl);
  return model;
}

Model Model::from_module(
    const std::shared_ptr<torch::nn::Module>& module,
    const ModuleSignature& signature,
    const std::function<void(const std::string& name, at::Tensor& tensor)>& initialise,
    uint64_t seed) {
  auto impl = std::make_shared<Impl>();
  impl->trace_module = [module, signature = convert(signature), initialise, seed] {
    std::vector<tensor::PinRule> pins = pins_of(module);
    return ModuleModel{trace::trace_module(module, signature, initialise, seed), std::move(pins)};
  };
  Model model;
  model.impl_ = std::move(impl);
  return model;
}

struct ModuleScope::Impl {
  trace::ModuleScope scope;
};

ModuleScope::ModuleScope(const std::string& name, const std::string& class_name)
    : impl_(new Impl{{name, class_name}}) {}
ModuleScope::~ModuleScope() = default;

std::vector<at::Tensor> opaque(
    const std::string& name,
    std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)> f,
    const std::vector<at::Tensor>& inputs) {
  return trace::opaque(name, std::move(f), inputs);
}

}  // namespace shardpipe
