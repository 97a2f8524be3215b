#pragma once

#include <cstddef>
#include <utility>

#include "generate/session.h"

namespace shardpipe::generation {

/// The prompts that a replica continues: the first one, and how many. Cut as torch.tensor_split does; replicas beyond
/// the prompts have none.
std::pair<size_t, size_t> prompts_of(size_t prompts, int replicas, int replica);

/// Completes the result of one replica by those of the others: outputs in the order of the prompts, times of the
/// slowest. Calls `on_token` for what the others generated. All ranks together, those of idle replicas too.
void join_replicas(
    const runtime::Engine& engine, size_t prompts, GenerateResult& result, const TokenCallback& on_token);

}  // namespace shardpipe::generation
