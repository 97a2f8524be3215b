#include "frontend/trace/fit.h"

#include <algorithm>
#include <array>

namespace shardpipe::trace {

using graph::Size;

std::vector<graph::Dimensions> probe_sizes(const std::vector<std::string>& dimensions) {
  // Primes, so that a coincidence of two dimensions or of a product with a constant of the model is unlikely.
  constexpr std::array<int64_t, 12> kPrimes = {7, 13, 19, 29, 37, 43, 53, 61, 71, 79, 89, 97};
  constexpr std::array<int64_t, 4> kSteps = {0, 1, 3, 4};
  const auto size = [&](size_t dimension, size_t step) {
    return kPrimes[dimension % kPrimes.size()] + 100 * static_cast<int64_t>(dimension / kPrimes.size()) + kSteps[step];
  };
  graph::Dimensions base;
  graph::Dimensions last;
  for (size_t i = 0; i < dimensions.size(); ++i) {
    base[dimensions[i]] = size(i, 0);
    last[dimensions[i]] = size(i, 3);
  }
  std::vector<graph::Dimensions> runs = {base};
  for (size_t i = 0; i < dimensions.size(); ++i) {
    for (const size_t step : {1, 2}) {
      runs.push_back(base);
      runs.back()[dimensions[i]] = size(i, step);
    }
  }
  for (size_t i = 0; i < dimensions.size(); ++i) {
    for (size_t j = i + 1; j < dimensions.size(); ++j) {
      runs.push_back(base);
      runs.back()[dimensions[i]] = size(i, 1);
      runs.back()[dimensions[j]] = size(j, 1);
    }
  }
  if (!dimensions.empty()) {
    runs.push_back(last);
  }
  return runs;
}

namespace {

class Fit {
 public:
  Fit(const std::vector<std::string>& dimensions,
      std::span<const graph::Dimensions> runs,
      std::span<const int64_t> values)
      : dimensions_(dimensions), runs_(runs), values_(values) {}

  // Newton's divided differences; those of a polynomial with integer coefficients are integers.
  std::optional<Size> quadratic() const {
    Size size(values_[0]);
    size_t pair = 1 + 2 * dimensions_.size();
    for (size_t i = 0; i < dimensions_.size(); ++i) {
      const size_t second = 1 + 2 * i;
      const size_t third = 2 + 2 * i;
      const auto slope = divide(values_[second] - values_[0], at(second, i) - at(0, i));
      const auto next_slope = divide(values_[third] - values_[second], at(third, i) - at(second, i));
      if (!slope || !next_slope) {
        return std::nullopt;
      }
      const auto curvature = divide(*next_slope - *slope, at(third, i) - at(0, i));
      if (!curvature) {
        return std::nullopt;
      }
      size = size + Size(*slope) * minus(i, 0) + Size(*curvature) * minus(i, 0) * minus(i, second);
    }
    for (size_t i = 0; i < dimensions_.size(); ++i) {
      for (size_t j = i + 1; j < dimensions_.size(); ++j, ++pair) {
        const int64_t rise = values_[pair] - values_[1 + 2 * i] - values_[1 + 2 * j] + values_[0];
        const auto mixed = divide(rise, (at(pair, i) - at(0, i)) * (at(pair, j) - at(0, j)));
        if (!mixed) {
          return std::nullopt;
        }
        size = size + Size(*mixed) * minus(i, 0) * minus(j, 0);
      }
    }
    return checked(size);
  }

  // A dimension's power follows from the quotient of two runs that differ in it.
  std::optional<Size> monomial() const {
    Size product(1);
    int64_t factor = 1;
    for (size_t i = 0; i < dimensions_.size(); ++i) {
      int64_t changed = values_[1 + 2 * i];
      int64_t base = values_[0];
      for (int power = 0; changed != base; ++power) {
        if (power == 3) {
          return std::nullopt;
        }
        changed *= at(0, i);
        base *= at(1 + 2 * i, i);
        factor *= at(0, i);
        product = product * Size::symbol(dimensions_[i]);
      }
    }
    const auto coefficient = divide(values_[0], factor);
    return coefficient ? checked(product * Size(*coefficient)) : std::nullopt;
  }

 private:
  static std::optional<int64_t> divide(int64_t a, int64_t b) {
    return a % b == 0 ? std::optional<int64_t>(a / b) : std::nullopt;
  }
  int64_t at(size_t run, size_t dimension) const { return runs_[run].at(dimensions_[dimension]); }
  // The dimension minus its size in a run.
  Size minus(size_t dimension, size_t run) const {
    return Size::symbol(dimensions_[dimension]) + Size(-at(run, dimension));
  }
  std::optional<Size> checked(const Size& size) const {
    for (size_t run = 0; run < runs_.size(); ++run) {
      if (size.evaluate(runs_[run]) != values_[run]) {
        return std::nullopt;
      }
    }
    return size;
  }

  const std::vector<std::string>& dimensions_;
  std::span<const graph::Dimensions> runs_;
  std::span<const int64_t> values_;
};

}  // namespace

std::optional<Size> fit_size(
    const std::vector<std::string>& dimensions,
    std::span<const graph::Dimensions> runs,
    std::span<const int64_t> values) {
  if (std::all_of(values.begin(), values.end(), [&](int64_t value) { return value == values[0]; })) {
    return Size(values[0]);
  }
  // Larger ones are no sizes, and would overflow.
  constexpr int64_t kLimit = int64_t{1} << 36;
  if (std::any_of(values.begin(), values.end(), [](int64_t value) { return value > kLimit || value < -kLimit; })) {
    return std::nullopt;
  }
  const Fit fit(dimensions, runs, values);
  const auto size = fit.quadratic();
  return size ? size : fit.monomial();
}

}  // namespace shardpipe::trace
