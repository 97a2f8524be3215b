#include "frontend/trace/fit.h"

#include <array>

namespace shardpipe::trace {

std::vector<graph::Dimensions> probe_sizes(const std::vector<std::string>& dimensions) {
  // Primes, so that a coincidence of two dimensions or of a product with a constant of the model is unlikely.
  constexpr std::array<int64_t, 12> kPrimes = {7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47};
  const auto prime = [&](size_t i) {
    return kPrimes[i % kPrimes.size()] + 100 * static_cast<int64_t>(i / kPrimes.size());
  };
  graph::Dimensions base;
  graph::Dimensions changed;
  for (size_t i = 0; i < dimensions.size(); ++i) {
    base[dimensions[i]] = prime(i);
    changed[dimensions[i]] = prime(i) + 2 + static_cast<int64_t>(i);
  }
  std::vector<graph::Dimensions> runs = {base};
  for (const std::string& dimension : dimensions) {
    runs.push_back(base);
    runs.back()[dimension] = changed[dimension];
  }
  runs.push_back(changed);
  return runs;
}

std::optional<graph::Size> fit_size(
    const std::vector<std::string>& dimensions, std::span<const graph::Dimensions> runs, std::span<const int64_t> values) {
  std::vector<size_t> moving;
  std::vector<int64_t> slopes;
  for (size_t i = 0; i < dimensions.size(); ++i) {
    const int64_t rise = values[i + 1] - values[0];
    const int64_t step = runs[i + 1].at(dimensions[i]) - runs[0].at(dimensions[i]);
    if (rise % step != 0) {
      return std::nullopt;
    }
    if (rise != 0) {
      moving.push_back(i);
      slopes.push_back(rise / step);
    }
  }
  const auto fits = [&](const graph::Size& size) {
    for (size_t run = 0; run < runs.size(); ++run) {
      if (size.evaluate(runs[run]) != values[run]) {
        return false;
      }
    }
    return true;
  };
  graph::Size sum;
  graph::Size product(1);
  int64_t others = 1;  // of the first moving dimension's partners in the base run
  for (size_t m = 0; m < moving.size(); ++m) {
    const std::string& name = dimensions[moving[m]];
    sum = sum + graph::Size(slopes[m]) * graph::Size::symbol(name);
    product = product * graph::Size::symbol(name);
    others *= m == 0 ? 1 : runs[0].at(name);
  }
  sum = sum + graph::Size(values[0] - sum.evaluate(runs[0]));
  if (fits(sum)) {
    return sum;
  }
  if (moving.size() >= 2 && slopes[0] % others == 0) {
    product = product * graph::Size(slopes[0] / others);
    product = product + graph::Size(values[0] - product.evaluate(runs[0]));
    if (fits(product)) {
      return product;
    }
  }
  return std::nullopt;
}

}  // namespace shardpipe::trace
