#include "commands.h"

#include <chrono>

namespace shardpipe::cli {

const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"generate", "Continue prompts with a language model, cut into pipeline stages", add_generate},
      {"run", "One forward of any model, and its backward, with tensors from a file to a file", add_run},
      {"classify", "Labels of texts, or of pairs of texts, by a sequence classifier", add_classify},
      {"fill-mask", "What a masked language model puts in place of the mask token", add_fill_mask},
      {"plan", "What each rank of a layout holds, sends and takes, before anything runs", add_plan},
      {"verify", "Compare a layout's answers with those of one process, stage by stage", add_verify},
      {"simulate", "Time, idle time and memory of a schedule of pipeline stages, without running anything",
       add_simulate},
      {"compile", "Write a model, cut for a layout, to a folder that runs elsewhere without planning", add_compile},
      {"launch", "Start local ranks of a program, on one host or as one of several", add_launch},
      {"doctor", "Say what this machine and build can do", add_doctor},
      {"worker", "A process of a program's WorkerPool, which starts it", add_worker},
  };
  return table;
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace shardpipe::cli
