#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

namespace shardpipe::cli {

/// Puts the options of `--config FILE.json` (an object with the options' names, comments allowed: {"pp": 2, "cuts":
/// ["model.layers.3"], "stats": true}) behind the arguments, those that the command line gives left out. Throws
/// Error(input) for a file that is no such object, Error(usage) naming the file for an unknown name.
void apply_config_file(CLI::App& command, std::vector<std::string>& arguments);

}  // namespace shardpipe::cli
