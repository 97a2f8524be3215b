#include "shardpipe/simulate.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "commands.h"
#include "report.h"

namespace shardpipe::cli {
namespace {

struct Options {
  SimulationOptions simulation;
  std::vector<double> costs;
  std::string html;
  bool json = false;
};

void apply_costs(Options& options) {
  if (options.costs.empty()) {
    return;
  }
  if (options.costs.size() != 4) {
    throw Error(
        ErrorCode::usage, fmt::format("--costs has {} numbers, must have 4", options.costs.size()),
        "--costs F,I,W,comm, such as 1,1,1,0");
  }
  SimulationOptions& simulation = options.simulation;
  simulation.forward = options.costs[0];
  simulation.input_gradient = options.costs[1];
  simulation.weight_gradient = options.costs[2];
  simulation.transfer = options.costs[3];
}

// Rank by rank: the actions of a large schedule fill gigabytes as one JSON value.
void write_report(const Options& options, const ScheduleSimulation& simulation) {
  Json report = {{"schedule", options.simulation.schedule}, {"pp", simulation.pp()},
                 {"virtual", simulation.virtual_stages()},  {"chunks", simulation.chunks()},
                 {"makespan", simulation.makespan()},       {"bubble_fraction", simulation.bubble_fraction()}};
  const double closed_form = simulation.closed_form_makespan();
  report["closed_form_makespan"] = std::isnan(closed_form) ? Json() : Json(closed_form);
  report["peak_activations"] = simulation.peak_activations();
  std::string text = report.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.back() = ',';
  write(text + "\"actions\":[");
  for (int rank = 0; rank < simulation.pp(); ++rank) {
    write((rank == 0 ? "" : ",") + Json(simulation.actions(rank)).dump());
  }
  write("]}\n");
}

}  // namespace

Action add_simulate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  SimulationOptions& simulation = options->simulation;
  app.add_option(
         "--schedule", simulation.schedule,
         "fill-drain, 1f1b, interleaved, looped-bfs, zb-h1, zb-v, or FILE.csv (torch.distributed.pipelining's format)")
      ->required();
  app.add_option("--pp", simulation.pp, "ranks (default: the file's)")->check(CLI::PositiveNumber);
  app.add_option("--chunks", simulation.chunks, "microbatches (default: the file's)")->check(CLI::PositiveNumber);
  app.add_option(
         "--virtual", simulation.virtual_stages,
         "stages a rank (default: 2 of interleaved, looped-bfs and zb-v, else 1)")
      ->check(CLI::PositiveNumber);
  app.add_option(
         "--costs", options->costs,
         "F,I,W,comm: forward, gradients of inputs, gradients of weights, one message (default: 1,1,1,0)")
      ->delimiter(',');
  app.add_option("--html", options->html, "write a page with the timeline to this file");
  app.add_flag("--json", options->json, "print one JSON object");
  app.add_option("--config", "JSON file with these options by name; the command line wins");
  return [options](const Invocation&) {
    apply_costs(*options);
    const ScheduleSimulation result(options->simulation);
    if (!options->html.empty()) {
      write_file(options->html, result.html());
    }
    if (options->json) {
      write_report(*options, result);
    } else {
      write(result.text());
    }
    return 0;
  };
}

}  // namespace shardpipe::cli
