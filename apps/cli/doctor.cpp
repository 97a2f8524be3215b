#include <fmt/format.h>

#include <thread>

#include "base/json.h"
#include "commands.h"
#include "shardpipe/build_info.h"

namespace shardpipe::cli {

Action add_doctor(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  app.add_flag("--json", *json, "print one JSON object");
  return [json](const Invocation&) {
    const BuildInfo info = build_info();
    if (*json) {
      Json out;
      out["version"] = info.version;
      out["torch"] = info.torch;
      out["cores"] = std::thread::hardware_concurrency();
      out["simd"] = info.simd;
      out["transports"] = info.transports;
      out["cuda"] = info.cuda;
      out["nccl"] = info.nccl;
      out["gpus"] = info.gpus;
      out["families"] = info.families;
      fmt::print("{}\n", out.dump(2));
      return 0;
    }
    fmt::print(
        "shardpipe   {}\nLibTorch    {}\ncores       {}\nSIMD        {}\n", info.version, info.torch,
        std::thread::hardware_concurrency(), info.simd);
    const std::string gpus = fmt::format("{} NCCL, GPUs: {}", info.nccl ? "with" : "without", info.gpus);
    fmt::print("CUDA        {}\n", info.cuda ? gpus : "not compiled in");
    const auto line = [](const char* name, const std::vector<std::string>& values) {
      std::string text;
      for (const std::string& value : values) {
        text += (text.empty() ? "" : ", ") + value;
      }
      fmt::print("{:<11} {}\n", name, text);
    };
    line("transports", info.transports);
    line("families", info.families);
    return 0;
  };
}

}  // namespace shardpipe::cli
