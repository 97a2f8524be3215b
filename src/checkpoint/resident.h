#pragma once

#include <cstddef>

#include "base/file.h"

namespace shardpipe::checkpoint {

/// Bytes of the mapping that are in this process's page tables (the Rss of its areas in /proc/self/smaps): what the
/// process has touched, in whole pages, with the neighbours that the kernel maps along (up to 2 MiB at either end of a
/// range). Pages that only the page cache holds do not count. Throws Error(io) when /proc/self/smaps cannot be read.
size_t resident_bytes(const MappedFile& file);

/// Takes the whole pages inside [data, data + size_bytes) out of this process's page tables; what lies outside of the
/// mapping is left alone. The bytes stay readable: the next touch maps them again, from the page cache if still there.
void release_pages(const MappedFile& file, const void* data, size_t size_bytes);

}  // namespace shardpipe::checkpoint
