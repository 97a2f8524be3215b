#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "generate/lanes.h"
#include "generate/request.h"
#include "generate/sampler.h"
#include "runtime/engine.h"

namespace shardpipe::generation {

/// Called as each token becomes known on this rank: row of the request, token, and why the text ended with it.
using TokenCallback = std::function<void(size_t row, int64_t token, FinishReason reason)>;

/// Generates on all ranks together: every rank calls it with the same request. Throws Error(rank) when a rank fails.
GenerateResult generate(runtime::Engine& engine, const Request& request, const TokenCallback& on_token = {});

}  // namespace shardpipe::generation
