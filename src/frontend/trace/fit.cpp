#include "frontend/trace/fit.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

namespace shardpipe::trace {

using graph::Size;

namespace {

enum Step : int8_t { kBase, kFirst, kSecond, kCheck, kLast };

// Primes, so that a coincidence of two dimensions or of a product with a constant of the model is unlikely. The last
// steps differ, so that terms of degree 2 do not cancel there.
int64_t probe_size(size_t dimension, Step step) {
  constexpr std::array<int64_t, 12> kPrimes = {7, 13, 19, 29, 37, 43, 53, 61, 71, 79, 89, 97};
  const size_t index = dimension % kPrimes.size();
  const auto i = static_cast<int64_t>(index);
  const std::array<int64_t, 5> steps = {0, 1, 3, 6 + 3 * i, 4 + 2 * i};
  return kPrimes[index] + 100 * static_cast<int64_t>(dimension / kPrimes.size()) + steps[step];
}

graph::Dimensions sizes_at(const std::vector<std::string>& dimensions, Step step) {
  graph::Dimensions sizes;
  for (size_t i = 0; i < dimensions.size(); ++i) {
    sizes[dimensions[i]] = probe_size(i, step);
  }
  return sizes;
}

// The base with the given dimensions at a step.
graph::Dimensions with(
    const std::vector<std::string>& dimensions, const graph::Dimensions& base, Step step, std::set<size_t> changed) {
  graph::Dimensions sizes = base;
  for (const size_t i : changed) {
    sizes[dimensions[i]] = probe_size(i, step);
  }
  return sizes;
}

}  // namespace

std::vector<graph::Dimensions> first_probe_sizes(const std::vector<std::string>& dimensions) {
  const graph::Dimensions base = sizes_at(dimensions, kBase);
  std::vector<graph::Dimensions> runs = {base};
  for (size_t i = 0; i < dimensions.size(); ++i) {
    runs.push_back(with(dimensions, base, kFirst, {i}));
  }
  if (!dimensions.empty()) {
    runs.push_back(sizes_at(dimensions, kCheck));
    runs.push_back(sizes_at(dimensions, kLast));
  }
  return runs;
}

std::vector<graph::Dimensions> further_probe_sizes(
    const std::vector<std::string>& dimensions,
    std::span<const graph::Dimensions> runs,
    std::span<const int64_t> values) {
  std::vector<size_t> varying;
  for (size_t i = 0; i < dimensions.size(); ++i) {
    if (values[1 + i] != values[0]) {
      varying.push_back(i);
    }
  }
  std::vector<graph::Dimensions> further;
  const auto add = [&](const graph::Dimensions& sizes) {
    if (std::find(runs.begin(), runs.end(), sizes) == runs.end()) {
      further.push_back(sizes);
    }
  };
  const auto add_all = [&](const std::vector<size_t>& changed) {
    for (size_t a = 0; a < changed.size(); ++a) {
      add(with(dimensions, runs[0], kSecond, {changed[a]}));
      for (size_t b = a + 1; b < changed.size(); ++b) {
        add(with(dimensions, runs[0], kFirst, {changed[a], changed[b]}));
      }
    }
  };
  add_all(varying);
  if (further.empty()) {
    // A dimension may have left the value as it was by chance.
    std::vector<size_t> all(dimensions.size());
    std::iota(all.begin(), all.end(), size_t{0});
    add_all(all);
  }
  return further;
}

namespace {

class Fit {
 public:
  Fit(const std::vector<std::string>& dimensions,
      std::span<const graph::Dimensions> runs,
      std::span<const int64_t> values)
      : dimensions_(dimensions), runs_(runs), values_(values) {}

  // Newton's divided differences; those of a polynomial with integer coefficients are integers. A term whose run was
  // not made is taken as absent.
  std::optional<Size> quadratic() const {
    Size size(values_[0]);
    for (size_t i = 0; i < dimensions_.size(); ++i) {
      const size_t first = 1 + i;
      const auto slope = divide(values_[first] - values_[0], at(first, i) - at(0, i));
      if (!slope) {
        return std::nullopt;
      }
      size = size + Size(*slope) * minus(i, 0);
      if (const size_t second = find(kSecond, {i}); second < runs_.size()) {
        const auto next_slope = divide(values_[second] - values_[first], at(second, i) - at(first, i));
        const auto curvature =
            next_slope ? divide(*next_slope - *slope, at(second, i) - at(0, i)) : std::optional<int64_t>();
        if (!curvature) {
          return std::nullopt;
        }
        size = size + Size(*curvature) * minus(i, 0) * minus(i, first);
      }
    }
    for (size_t i = 0; i < dimensions_.size(); ++i) {
      for (size_t j = i + 1; j < dimensions_.size(); ++j) {
        const size_t pair = find(kFirst, {i, j});
        if (pair == runs_.size()) {
          continue;
        }
        const int64_t rise = values_[pair] - values_[1 + i] - values_[1 + j] + values_[0];
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
      int64_t changed = values_[1 + i];
      int64_t base = values_[0];
      for (int power = 0; changed != base; ++power) {
        if (power == 3) {
          return std::nullopt;
        }
        changed *= at(0, i);
        base *= at(1 + i, i);
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
  // The run that differs from the base in these dimensions only; runs_.size() when there is none.
  size_t find(Step step, const std::set<size_t>& changed) const {
    const auto found = std::find(runs_.begin(), runs_.end(), with(dimensions_, runs_[0], step, changed));
    return static_cast<size_t>(found - runs_.begin());
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
