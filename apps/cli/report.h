#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "shardpipe/engine.h"

namespace shardpipe::cli {

/// To standard output, at once. A reader that has gone away is an Error(io) of this rank, not its death by a signal.
void write(const std::string& text);

/// A whole answer in one line; bytes that are no UTF-8 are replaced.
void write_json(const Json& report);

/// Throws Error(io) when the file that an option names cannot be written: before the work, not after it.
void check_output(const std::string& option, const std::string& file);

/// {"pp", "tp", "dp", "chunks"}, and "virtual" where a rank has several stages.
Json layout_report(const LayoutOptions& layout, int chunks);

/// What every rank tells of itself: {"rank", "peak_rss_bytes", "parameter_bytes"}.
Json rank_report(const World& world, const Engine& engine);

/// The ranks' reports, gathered as text, as a list.
Json ranks_report(const std::vector<std::string>& ranks);

}  // namespace shardpipe::cli
