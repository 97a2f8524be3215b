#include "runtime/scalar_join.h"

#include <numeric>

namespace shardpipe::runtime {
namespace {

std::vector<double> numbers(const at::Tensor& tensor) {
  const double* data = tensor.const_data_ptr<double>();
  return {data, data + tensor.numel()};
}

double weighted_sum(const std::vector<double>& weights, const std::vector<double>& values) {
  double total = 0;
  for (size_t m = 0; m < values.size(); ++m) {
    // The mean of no elements is no number, and does not count.
    total += weights[m] == 0 ? 0 : weights[m] * values[m];
  }
  return total;
}

}  // namespace

std::vector<double> term_weights(const plan::ScalarTerm& term, const ScalarValues& values, size_t microbatches) {
  const double equal = 1.0 / static_cast<double>(microbatches);
  switch (term.kind) {
    case plan::ScalarTerm::Kind::sum:
      return std::vector<double>(microbatches, 1.0);
    case plan::ScalarTerm::Kind::same:
      return std::vector<double>(microbatches, equal);
    case plan::ScalarTerm::Kind::mean:
      break;
  }
  std::vector<double> weights = numbers(values.at(term.count));
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) {
    weight = total == 0 ? equal : weight / total;
  }
  return weights;
}

std::vector<double> row_weights(const std::vector<int64_t>& rows) {
  const int64_t total = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  std::vector<double> weights;
  for (const int64_t count : rows) {
    weights.push_back(
        total == 0 ? 1.0 / static_cast<double>(rows.size()) : static_cast<double>(count) / static_cast<double>(total));
  }
  return weights;
}

double join_scalar(const plan::ScalarOutput& scalar, const ScalarValues& values, const std::vector<int64_t>& rows) {
  if (scalar.terms.empty()) {
    return weighted_sum(row_weights(rows), numbers(values.at(scalar.name)));
  }
  double total = 0;
  for (const plan::ScalarTerm& term : scalar.terms) {
    total += term.coefficient * weighted_sum(term_weights(term, values, rows.size()), numbers(values.at(term.output)));
  }
  return total;
}

}  // namespace shardpipe::runtime
