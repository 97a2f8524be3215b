#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "shardpipe/export.h"
#include "shardpipe/model.h"
#include "shardpipe/options.h"
#include "shardpipe/tensors.h"

namespace shardpipe {

/// What a plan is explained for.
struct ExplainOptions {
  std::string name;      ///< what the model is called; empty = its folder or file
  bool profile = false;  ///< costs are measured: each step runs layer by layer in this process; needs the weights
  /// Rows of a request: prompts, or items of the batch. 0 = the example's, else one a microbatch of the layout.
  int64_t batch = 0;
  int64_t prompt_tokens = 0;  ///< of each prompt, of generation; 0 = 128, or fewer where the model has no room for them
  int64_t new_tokens = 0;     ///< after each prompt; 0 = 32, or fewer likewise
  std::map<std::string, int64_t> sizes;  ///< of named dimensions that no example gives; of other programs
};

/// What is known of a plan before it runs: what each stage holds and computes, what goes between them, and how long it
/// takes. A cheap value.
class SHARDPIPE_API Explanation {
 public:
  std::string json() const;  ///< one object: docs/reference/command-line.md
  std::string text() const;  ///< tables, up to 100 columns
  std::string html() const;  ///< a page of its own, without anything from elsewhere

  struct Impl;

 private:
  friend SHARDPIPE_API Explanation explain(
      const Model& model,
      const PlanOptions& options,
      const ExplainOptions& explain_options,
      const NamedTensors& inputs);
  std::shared_ptr<const Impl> impl_;
};

/// Plans for all ranks of a layout in this one process, starts none and reads no weights (but with
/// ExplainOptions::profile), which need not be there. The ranks are taken to share this host. `inputs`: an example of
/// a program other than generation. Throws as make_plan(), and Error(usage) for sizes and inputs that the model does
/// not take.
SHARDPIPE_API Explanation explain(
    const Model& model,
    const PlanOptions& options,
    const ExplainOptions& explain_options = {},
    const NamedTensors& inputs = {});

}  // namespace shardpipe
