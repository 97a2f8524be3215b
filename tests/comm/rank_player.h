#pragma once

#include <string>
#include <vector>

#include "comm/world.h"

namespace shardpipe::comm::player {

using Arguments = std::vector<std::string>;

// rank_player_c10d.cpp
void use_c10d(World& world);

// rank_player_bench.cpp; rank 0 prints the numbers.
void bench_messages(World& world);

}  // namespace shardpipe::comm::player
