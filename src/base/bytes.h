#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace shardpipe {

/// "300000", "512K", "1.5GiB", "2GB": K, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024, a B may follow. Throws
/// Error(usage) naming `what` for other text, and for numbers that are not from 1 to 2^62.
int64_t parse_bytes(std::string_view text, const std::string& what);

}  // namespace shardpipe
