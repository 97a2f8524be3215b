#pragma once

#include <ATen/core/Tensor.h>
#include <torch/arg.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "shardpipe/export.h"
#include "shardpipe/options.h"
#include "shardpipe/world.h"

/// Layers for models that are written for tensor parallelism by hand. A model made of them is used in one of two ways:
///
/// - Eagerly: each rank makes the model while a TensorParallel lives, holds its pieces, and calls it like any module;
///   the layers talk. Every rank makes the same calls in the same order.
/// - Whole, with no TensorParallel: ordinary layers. Model::from_module() takes such a model, and with tp above 1 each
///   layer's weights are divided as it says, unless LayoutOptions::tp_plan says otherwise.
///
/// Initial values are those of torch::nn::Linear and torch::nn::Embedding, whatever the number of parts: each tensor is
/// initialised whole from LibTorch's generator, which all ranks seed alike, and the piece is kept.
namespace shardpipe {

/// The ranks that divide layers among them. Layers that this thread makes while it lives are divided (the innermost
/// counts); they run, backwards too, on this thread and no longer than it lives. The world outlives it.
class SHARDPIPE_API TensorParallel {
 public:
  /// Each `parts` ranks that follow each other divide layers among them; 0 = all ranks. Collective, and so is every
  /// call of a divided layer. Throws Error(usage) when `parts` does not divide the world's size.
  explicit TensorParallel(World& world, int parts = 0);
  ~TensorParallel();
  TensorParallel(const TensorParallel&) = delete;
  TensorParallel& operator=(const TensorParallel&) = delete;

  int parts() const;
  int part() const;

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

/// Of so many things, such as attention heads or units of a layer, those of this part, where layers made now are
/// divided: as even as can be, the first parts have one more. All of them without a TensorParallel.
SHARDPIPE_API int64_t local_count(int64_t count);

/// What the layers have in common: one extent that is divided in whole units (a head's columns, so that heads stay
/// whole), uneven where the units do not divide. Layers of one's own may derive from it.
class SHARDPIPE_API ParallelLayer {
 public:
  virtual ~ParallelLayer();

  int parts() const;  ///< 1 of a whole layer
  int part() const;
  int64_t whole_extent() const { return extent_; }
  int64_t unit() const { return unit_; }
  int64_t local_extent() const { return local_extent(part()); }
  /// Of another part; where this layer's own begins.
  int64_t local_extent(int part) const;
  int64_t local_begin() const;

  // The identity for a whole layer, else collective, with gradients. They throw Error(usage) where the TensorParallel
  // has ended or is another thread's.
  /// A whole tensor from here on used piecewise: gradients of all parts are summed. Several layers that take what one
  /// of them entered (see ColumnParallelLinearOptions::entered) sum them once.
  at::Tensor enter(const at::Tensor& x) const;
  /// The sum of all parts' tensors.
  at::Tensor reduce(const at::Tensor& x) const;
  /// The whole from the parts' pieces along a dimension; this part's piece of a whole.
  at::Tensor gather(const at::Tensor& x, int64_t dim) const;
  at::Tensor take(const at::Tensor& x, int64_t dim) const;

  /// The parameters that are in pieces, and the dimension of each that is the extent.
  virtual std::vector<std::pair<std::string, int64_t>> divided() const = 0;
  /// How a whole layer wants to be divided.
  virtual TensorPin pin() const = 0;

 protected:
  /// Divided as the innermost TensorParallel of this thread says. Throws Error(usage) when `extent` or `unit` is below
  /// 1 or the unit does not divide the extent; `what` names the extent.
  ParallelLayer(const char* what, int64_t extent, int64_t unit);
  ParallelLayer(const ParallelLayer&);
  ParallelLayer& operator=(const ParallelLayer&);

  /// This part's piece of an initialised tensor, in memory of its own; the tensor itself for a whole layer.
  at::Tensor keep_piece(const at::Tensor& whole, int64_t dim) const;

 private:
  friend struct LayerAccess;
  std::string axis() const;
  std::vector<int64_t> units() const;

  int64_t extent_;
  int64_t unit_;
  std::shared_ptr<TensorParallel::Impl> ranks_;  // none: whole
};

struct ColumnParallelLinearOptions {
  ColumnParallelLinearOptions(int64_t in_features, int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}
  TORCH_ARG(int64_t, in_features);
  TORCH_ARG(int64_t, out_features);
  TORCH_ARG(bool, bias) = true;
  /// The output is whole; false: each part goes on with its columns.
  TORCH_ARG(bool, gather_output) = true;
  /// The input is what enter() gave, of this layer or of one with the same ranks.
  TORCH_ARG(bool, entered) = false;
  /// Columns that stay together: the size of a head; out_features is a multiple.
  TORCH_ARG(int64_t, unit) = 1;
};

/// x W^T + b, W [out, in] divided by rows, b with them: each part computes some of the outputs.
/// Whole x [.., in] -> [.., out], or [.., local_extent()] without gather_output.
class SHARDPIPE_API ColumnParallelLinearImpl : public torch::nn::Cloneable<ColumnParallelLinearImpl>,
                                               public ParallelLayer {
 public:
  ColumnParallelLinearImpl(int64_t in_features, int64_t out_features)
      : ColumnParallelLinearImpl(ColumnParallelLinearOptions(in_features, out_features)) {}
  explicit ColumnParallelLinearImpl(const ColumnParallelLinearOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  at::Tensor forward(const at::Tensor& x);
  std::vector<std::pair<std::string, int64_t>> divided() const override;
  TensorPin pin() const override;

  ColumnParallelLinearOptions options;
  at::Tensor weight;  ///< [local_extent(), in]
  at::Tensor bias;    ///< [local_extent()], or undefined
};
TORCH_MODULE(ColumnParallelLinear);

struct RowParallelLinearOptions {
  RowParallelLinearOptions(int64_t in_features, int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}
  TORCH_ARG(int64_t, in_features);
  TORCH_ARG(int64_t, out_features);
  TORCH_ARG(bool, bias) = true;
  /// The input is this part's columns, as a ColumnParallelLinear without gather_output leaves them; false: it is whole.
  TORCH_ARG(bool, input_is_parallel) = false;
  /// Columns of the input that stay together; in_features is a multiple.
  TORCH_ARG(int64_t, unit) = 1;
};

/// x W^T + b, W [out, in] divided by columns: the parts' products are summed, and b, which each part has whole, is
/// added once. x [.., local_extent()], or whole [.., in] without input_is_parallel -> whole [.., out].
class SHARDPIPE_API RowParallelLinearImpl : public torch::nn::Cloneable<RowParallelLinearImpl>, public ParallelLayer {
 public:
  RowParallelLinearImpl(int64_t in_features, int64_t out_features)
      : RowParallelLinearImpl(RowParallelLinearOptions(in_features, out_features)) {}
  explicit RowParallelLinearImpl(const RowParallelLinearOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  at::Tensor forward(const at::Tensor& x);
  std::vector<std::pair<std::string, int64_t>> divided() const override;
  TensorPin pin() const override;

  RowParallelLinearOptions options;
  at::Tensor weight;  ///< [out, local_extent()]
  at::Tensor bias;    ///< [out], or undefined
};
TORCH_MODULE(RowParallelLinear);

struct VocabParallelEmbeddingOptions {
  VocabParallelEmbeddingOptions(int64_t num_embeddings, int64_t embedding_dim)
      : num_embeddings_(num_embeddings), embedding_dim_(embedding_dim) {}
  TORCH_ARG(int64_t, num_embeddings);
  TORCH_ARG(int64_t, embedding_dim);
  /// A row that begins as zero and has no gradient; below 0: counted from the end.
  TORCH_ARG(std::optional<int64_t>, padding_idx) = std::nullopt;
};

/// A table [num_embeddings, embedding_dim] divided by rows. Ids of any shape [..] -> whole [.., embedding_dim].
class SHARDPIPE_API VocabParallelEmbeddingImpl : public torch::nn::Cloneable<VocabParallelEmbeddingImpl>,
                                                 public ParallelLayer {
 public:
  VocabParallelEmbeddingImpl(int64_t num_embeddings, int64_t embedding_dim)
      : VocabParallelEmbeddingImpl(VocabParallelEmbeddingOptions(num_embeddings, embedding_dim)) {}
  explicit VocabParallelEmbeddingImpl(const VocabParallelEmbeddingOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  at::Tensor forward(const at::Tensor& ids);
  /// The table as a head that is tied to it: whole x [.., embedding_dim] -> x table^T [.., local_extent()].
  at::Tensor logits(const at::Tensor& x);
  std::vector<std::pair<std::string, int64_t>> divided() const override;
  TensorPin pin() const override;

  VocabParallelEmbeddingOptions options;
  at::Tensor weight;  ///< [local_extent(), embedding_dim]
};
TORCH_MODULE(VocabParallelEmbedding);

enum class LossReduction { none, mean, sum };

/// As torch::nn::functional::cross_entropy, of logits of which each part has its piece of the classes: nobody has them
/// whole. logits_part [classes], [rows, classes] or [rows, classes, ..]; target: class numbers, whole. `head`: the
/// layer whose division the classes have, the one that made the logits. The result is whole.
SHARDPIPE_API at::Tensor parallel_cross_entropy(
    const at::Tensor& logits_part,
    const at::Tensor& target,
    const ParallelLayer& head,
    LossReduction reduction = LossReduction::mean,
    int64_t ignore_index = -100);

struct LoadOptions {
  std::string prefix;             ///< of the module's names in the checkpoint; other names there are passed over
  bool allow_unexpected = false;  ///< pass over tensors that the module does not have
};

/// Fills a module, whole or divided, from a checkpoint of whole tensors: a safetensors file, a file of torch.save, or a
/// folder with one of them or an index. Each rank reads its own pieces; tensors keep the module's dtypes. Of names of
/// one tensor any will do. Throws Error(input) for tensors that are missing, unexpected or of another shape,
/// Error(usage) for a module on `meta`; nothing has changed then.
SHARDPIPE_API void load_unsharded(
    torch::nn::Module& module, const std::filesystem::path& path, const LoadOptions& options = {});

/// Writes this part's tensors to FOLDER/part-I-of-N.safetensors, and what they are pieces of. Every part calls it;
/// where several ranks hold the same part, one of them. The files of another number of parts go. Throws Error(usage)
/// when the module's layers are divided among different numbers of parts, Error(io) when a file cannot be written.
SHARDPIPE_API void save_sharded(const torch::nn::Module& module, const std::filesystem::path& folder);

/// Fills a module that is divided as the one that was saved. Throws Error(input) for another number of parts, another
/// division, and as load_unsharded(); nothing has changed then.
SHARDPIPE_API void load_sharded(torch::nn::Module& module, const std::filesystem::path& folder);

}  // namespace shardpipe
