#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/folder.h"

namespace shardpipe::checkpoint {

enum class WantedKind {
  parameter,  ///< must be in the checkpoint, under its own or a tied name
  buffer,     ///< the same; told apart in messages
  optional,   ///< may be absent: the model makes it itself (rotary tables, causal masks)
};

/// A tensor of the model, under the model's own name.
struct WantedTensor {
  std::string name;
  std::vector<int64_t> shape;
  WantedKind kind = WantedKind::parameter;
};

/// What a model family knows of its checkpoints.
struct NameRules {
  /// Base-model prefixes: a checkpoint of the bare base model lacks them, one of a model with a head has them.
  std::vector<std::string> prefixes = {"model.", "transformer."};
  /// Groups of names of one and the same parameter. The first is the one that serves when several are present (the
  /// embedding, as in transformers).
  std::vector<std::vector<std::string>> tied;
  /// Names in the checkpoint that no model needs, as patterns of the whole name in which * stands for any text:
  /// "*.rotary_emb.inv_freq", "*.attn.masked_bias".
  std::vector<std::string> ignored;
};

struct Resolution {
  std::map<std::string, std::string> source;  ///< the model's name -> the checkpoint's name
  std::vector<std::string> absent;            ///< optional tensors that the checkpoint lacks
  std::vector<std::string> surplus;           ///< tensors of the checkpoint that nothing wants or ignores, sorted
};

/// Finds each tensor of the model in the checkpoint: by its own name, then with each prefix taken off or put before it;
/// a tied one through any name of its group. A name of the checkpoint that is itself wanted is never taken through a
/// prefix. Give all tensors of the model, not one stage's: what is surplus, and whose a prefixed name is, depends on
/// all. Opens the files that hold wanted tensors, to compare shapes. Throws Error(input) naming the weight, the
/// checkpoint and the nearest names for a missing weight, both shapes for a mismatch, both weights when one tensor fits
/// two.
Resolution resolve_names(const Checkpoint& checkpoint, const std::vector<WantedTensor>& wanted, const NameRules& rules);

/// One warning on standard error with the count and the first few surplus names; nothing when there are none.
void warn_of_surplus(const Resolution& resolution, const Checkpoint& checkpoint);

/// The groups of rules.tied without the members that the checkpoint holds with other values or another shape than the
/// first member it holds (groups left with one name are dropped): transformers 5 does not tie those, whatever
/// config.json says; transformers 4 does. Reads both tensors where a group is present twice.
std::vector<std::vector<std::string>> tied_by_content(const Checkpoint& checkpoint, const NameRules& rules);

/// Does `pattern`, in which * stands for any text, match the whole of `text`?
bool matches_pattern(std::string_view pattern, std::string_view text);

}  // namespace shardpipe::checkpoint
