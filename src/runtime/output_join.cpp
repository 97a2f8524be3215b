#include "runtime/output_join.h"

#include <ATen/Functions.h>

#include "base/error.h"
#include "runtime/scalar_join.h"

namespace shardpipe::runtime {

at::Tensor join_output(
    const std::string& name,
    const MergeRule& rule,
    const std::vector<at::Tensor>& values,
    const std::vector<int64_t>& rows) {
  if (values.size() == 1 || rule.kind == MergeRule::Kind::last) {
    return values.back();
  }
  if (rule.kind == MergeRule::Kind::cat) {
    if (values.front().dim() <= rule.dim) {
      throw Error(
          ErrorCode::usage,
          fmt::format(
              "the output \"{}\" has shape {}: no dimension {} to concatenate", name, c10::str(values.front().sizes()),
              rule.dim),
          fmt::format("use --merge {}=sum, mean or last", name));
    }
    return at::cat(values, rule.dim);
  }
  const std::vector<double> weights =
      rule.kind == MergeRule::Kind::mean ? row_weights(rows) : std::vector<double>(values.size(), 1);
  at::Tensor total;
  for (size_t m = 0; m < values.size(); ++m) {
    const at::Tensor value = rule.kind == MergeRule::Kind::mean ? values[m] * weights[m] : values[m];
    total = total.defined() ? total + value : value;
  }
  return total;
}

}  // namespace shardpipe::runtime
