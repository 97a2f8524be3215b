#include "shardpipe/parallel_layers.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <torch/nn/init.h>

#include <cmath>

#include "api/parallel_layers.h"
#include "base/error.h"
#include "tensor/cross_entropy.h"

namespace shardpipe {
namespace {

// The last dimension of a layer's input.
void check_columns(const char* layer, const at::Tensor& x, int64_t expected, const char* hint = "") {
  if (x.dim() == 0 || x.size(-1) != expected) {
    throw Error(
        ErrorCode::usage,
        fmt::format("{}: the input has shape {}, its last dimension must be {}", layer, c10::str(x.sizes()), expected),
        hint);
  }
}

// As torch::nn::Linear initialises itself.
at::Tensor initial_weight(int64_t out, int64_t in) {
  return torch::nn::init::kaiming_uniform_(torch::empty({out, in}), std::sqrt(5));
}

at::Tensor initial_bias(int64_t out, int64_t in) {
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  return torch::nn::init::uniform_(torch::empty({out}), -bound, bound);
}

int64_t checked_width(const char* layer, const char* what, int64_t width) {
  if (width < 1) {
    throw_usage("{}: {} is {}, must be at least 1", layer, what, width);
  }
  return width;
}

}  // namespace

ColumnParallelLinearImpl::ColumnParallelLinearImpl(const ColumnParallelLinearOptions& given)
    : ParallelLayer("output features", given.out_features(), given.unit()), options(given) {
  checked_width("ColumnParallelLinear", "in_features", options.in_features());
  reset();
}

void ColumnParallelLinearImpl::reset() {
  const int64_t in = options.in_features();
  weight = register_parameter("weight", keep_piece(initial_weight(options.out_features(), in), 0));
  bias = options.bias() ? keep_piece(initial_bias(options.out_features(), in), 0) : at::Tensor();
  bias = register_parameter("bias", bias, options.bias());
}

void ColumnParallelLinearImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format(
      "shardpipe::ColumnParallelLinear(in_features={}, out_features={}, bias={}, gather_output={}, part={} of {})",
      options.in_features(), options.out_features(), options.bias(), options.gather_output(), part(), parts());
}

at::Tensor ColumnParallelLinearImpl::forward(const at::Tensor& x) {
  check_columns("ColumnParallelLinear", x, options.in_features());
  const at::Tensor y = at::linear(options.entered() ? x : enter(x), weight, bias);
  return options.gather_output() ? gather(y, -1) : y;
}

std::vector<std::pair<std::string, int64_t>> ColumnParallelLinearImpl::divided() const {
  return options.bias() ? std::vector<std::pair<std::string, int64_t>>{{"weight", 0}, {"bias", 0}}
                        : std::vector<std::pair<std::string, int64_t>>{{"weight", 0}};
}

TensorPin ColumnParallelLinearImpl::pin() const {
  return {TensorPin::Style::colwise, options.gather_output()};
}

RowParallelLinearImpl::RowParallelLinearImpl(const RowParallelLinearOptions& given)
    : ParallelLayer("input features", given.in_features(), given.unit()), options(given) {
  checked_width("RowParallelLinear", "out_features", options.out_features());
  reset();
}

void RowParallelLinearImpl::reset() {
  const int64_t in = options.in_features();
  weight = register_parameter("weight", keep_piece(initial_weight(options.out_features(), in), 1));
  bias = options.bias() ? initial_bias(options.out_features(), in) : at::Tensor();
  bias = register_parameter("bias", bias, options.bias());
}

void RowParallelLinearImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format(
      "shardpipe::RowParallelLinear(in_features={}, out_features={}, bias={}, input_is_parallel={}, part={} of {})",
      options.in_features(), options.out_features(), options.bias(), options.input_is_parallel(), part(), parts());
}

at::Tensor RowParallelLinearImpl::forward(const at::Tensor& x) {
  if (options.input_is_parallel()) {
    check_columns(
        "RowParallelLinear", x, local_extent(),
        "this is the part's piece; make the layer with input_is_parallel(false) for inputs that are whole");
  } else {
    check_columns("RowParallelLinear", x, options.in_features());
  }
  if (parts() == 1) {
    return at::linear(x, weight, bias);
  }
  const at::Tensor y = reduce(at::linear(options.input_is_parallel() ? x : take(x, -1), weight));
  return bias.defined() ? y + bias : y;
}

std::vector<std::pair<std::string, int64_t>> RowParallelLinearImpl::divided() const {
  return {{"weight", 1}};
}

TensorPin RowParallelLinearImpl::pin() const {
  return {TensorPin::Style::rowwise, false, options.input_is_parallel()};
}

VocabParallelEmbeddingImpl::VocabParallelEmbeddingImpl(const VocabParallelEmbeddingOptions& given)
    : ParallelLayer("rows", given.num_embeddings(), 1), options(given) {
  checked_width("VocabParallelEmbedding", "embedding_dim", options.embedding_dim());
  if (std::optional<int64_t>& padding = options.padding_idx()) {
    if (*padding < -options.num_embeddings() || *padding >= options.num_embeddings()) {
      throw_usage("VocabParallelEmbedding: padding_idx is {}, there are {} rows", *padding, options.num_embeddings());
    }
    *padding += *padding < 0 ? options.num_embeddings() : 0;
  }
  reset();
}

void VocabParallelEmbeddingImpl::reset() {
  at::Tensor table = torch::nn::init::normal_(torch::empty({options.num_embeddings(), options.embedding_dim()}));
  if (options.padding_idx()) {
    table[*options.padding_idx()].fill_(0);
  }
  weight = register_parameter("weight", keep_piece(table, 0));
}

void VocabParallelEmbeddingImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format(
      "shardpipe::VocabParallelEmbedding(num_embeddings={}, embedding_dim={}, part={} of {})", options.num_embeddings(),
      options.embedding_dim(), part(), parts());
}

at::Tensor VocabParallelEmbeddingImpl::forward(const at::Tensor& ids) {
  const int64_t padding = options.padding_idx().value_or(-1);
  if (parts() == 1) {
    return at::embedding(weight, ids, padding);
  }
  static const auto op = find_operator<const at::Tensor&, int64_t, at::IntArrayRef, int64_t, std::string_view>(
      "shardpipe::embedding_part");
  return reduce(
      op.call(weight, ids, options.num_embeddings(), LayerAccess::units(*this), padding, LayerAccess::axis(*this)));
}

at::Tensor VocabParallelEmbeddingImpl::logits(const at::Tensor& x) {
  check_columns("VocabParallelEmbedding", x, options.embedding_dim());
  return at::linear(enter(x), weight);
}

std::vector<std::pair<std::string, int64_t>> VocabParallelEmbeddingImpl::divided() const {
  return {{"weight", 0}};
}

TensorPin VocabParallelEmbeddingImpl::pin() const {
  return {TensorPin::Style::vocab};
}

at::Tensor parallel_cross_entropy(
    const at::Tensor& logits_part,
    const at::Tensor& target,
    const ParallelLayer& head,
    LossReduction reduction,
    int64_t ignore_index) {
  const bool whole = head.parts() == 1 || head.pin().gather_output;
  const int64_t classes = whole ? head.whole_extent() : head.local_extent();
  const int64_t dim = logits_part.dim() == 1 ? 0 : 1;
  if (logits_part.dim() == 0 || logits_part.size(dim) != classes) {
    throw_usage(
        "parallel_cross_entropy: the logits have shape {}, dimension {} must be the {} classes of the head's {}",
        c10::str(logits_part.sizes()), dim, classes, whole ? "output" : "part");
  }
  const int64_t how = reduction == LossReduction::none   ? at::Reduction::None
                      : reduction == LossReduction::mean ? at::Reduction::Mean
                                                         : at::Reduction::Sum;
  return whole ? at::cross_entropy_loss(logits_part, target, /*weight=*/{}, how, ignore_index)
               : tensor::cross_entropy_part(
                     logits_part, target, head.whole_extent(), LayerAccess::units(head), how, ignore_index,
                     LayerAccess::axis(head));
}

}  // namespace shardpipe
