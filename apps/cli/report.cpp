#include "report.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace shardpipe::cli {

void write(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Error(ErrorCode::io, fmt::format("cannot write to standard output: {}", std::strerror(errno)));
  }
}

void write_json(const Json& report) {
  write(report.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

void check_output(const std::string& option, const std::string& file) {
  const std::filesystem::path folder = std::filesystem::absolute(file).parent_path();
  if (::access(folder.c_str(), W_OK) != 0 || std::filesystem::is_directory(file)) {
    throw Error(
        ErrorCode::io, fmt::format("{} {} cannot be written", option, file), "name a file in a folder of yours");
  }
}

Json layout_report(const LayoutOptions& layout, int chunks) {
  Json report = {{"pp", layout.pp}, {"tp", layout.tp}, {"dp", layout.dp}, {"chunks", chunks}};
  if (layout.virtual_stages > 1) {
    report["virtual"] = layout.virtual_stages;
  }
  return report;
}

Json rank_report(const World& world, const Engine& engine) {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return {
      {"rank", world.rank()},
      {"peak_rss_bytes", int64_t{usage.ru_maxrss} * 1024},
      {"parameter_bytes", engine.parameter_bytes()}};
}

Json ranks_report(const std::vector<std::string>& ranks) {
  Json list = Json::array();
  for (const std::string& rank : ranks) {
    list.push_back(parse_json(rank, "a rank's report"));
  }
  return list;
}

}  // namespace shardpipe::cli
