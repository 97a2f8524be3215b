#include "plan/pin_rule.h"

#include <utility>

namespace shardpipe::plan {

tensor::PinRule pin_rule(std::string pattern, const TensorPin& pin) {
  tensor::PinRule rule{std::move(pattern), tensor::Pin::replicate, pin.gather_output, pin.input_is_parallel};
  switch (pin.style) {
    case TensorPin::Style::colwise:
      rule.pin = tensor::Pin::colwise;
      break;
    case TensorPin::Style::rowwise:
      rule.pin = tensor::Pin::rowwise;
      break;
    case TensorPin::Style::replicate:
      break;
    case TensorPin::Style::vocab:
      rule.pin = tensor::Pin::vocab;
      break;
  }
  return rule;
}

}  // namespace shardpipe::plan
