#pragma once

#include <string>
#include <string_view>

#include "graph/graph.h"

namespace shardpipe::graph {

/// The graph as text, one line a value or node; parse(print(g)) gives the same graph and print is a fixed point.
///
///   shardpipe-graph 1
///   dimension tokens
///   input %0 "input_ids": int64[tokens]
///   parameter %1 "model.embed_tokens.weight" tied "lm_head.weight": float32[49152, 576]
///   buffer %2 "model.rotary_emb.inv_freq" content "0000803f...": float32[32]
///   state %3 "model.layers.0.self_attn.k_cache" per_sequence: float32[slots, 3, capacity, 64]
///   module "model.layers.0" "LlamaDecoderLayer"
///   #12 %20: float32[tokens, 576] = aten::embedding(%1, %0, -1, false, false) in "model.embed_tokens"
///   output "logits" %99
///
/// Ids of values are those of Graph::values, so a printed stage keeps the ids of its graph.
std::string print(const Graph& graph);

/// Reads what print() writes. Throws Error(input) naming `where`, the line and what was expected.
Graph parse(std::string_view text, const std::string& where);

}  // namespace shardpipe::graph
