#include "shardpipe/simulate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "schedule/builders.h"
#include "schedule/grid.h"
#include "schedule/page.h"
#include "schedule/simulate.h"
#include "schedule/validate.h"

namespace shardpipe {
namespace {

using schedule::format_number;

bool is_file(const std::string& name) {
  return name.ends_with(".csv") || name.find('/') != std::string::npos;
}

void check_costs(const SimulationOptions& options) {
  for (const double cost : {options.forward, options.input_gradient, options.weight_gradient, options.transfer}) {
    if (!std::isfinite(cost) || cost < 0 || cost > 1e12) {
      throw_usage("a cost is {}, must be from 0 to 1e12", cost);
    }
  }
  if (options.forward + options.input_gradient + options.weight_gradient <= 0) {
    throw_usage("the costs of F, I and W are 0: one of them must be above");
  }
}

int most_stages(const schedule::Schedule& lists) {
  std::vector<int> stages(lists.ranks.size(), 0);
  int most = 0;
  for (const int rank : lists.rank_of_stage) {
    most = std::max(most, ++stages[static_cast<size_t>(rank)]);
  }
  return most;
}

// What is asked for must be what the file has.
void check_agrees(const char* option, int asked, int has, const char* what, const std::string& path) {
  if (asked != 0 && asked != has) {
    throw Error(
        ErrorCode::usage, fmt::format("{} is {}, but {} has {} {}", option, asked, path, has, what),
        fmt::format("leave {} out", option));
  }
}

schedule::Schedule read_schedule(const SimulationOptions& options) {
  const std::string& path = options.schedule;
  schedule::Schedule lists = schedule::parse_csv(read_file(path), path);
  check_agrees("--pp", options.pp, lists.num_ranks(), "ranks", path);
  check_agrees("--chunks", options.chunks, lists.num_microbatches, "microbatches", path);
  check_agrees("--virtual", options.virtual_stages, most_stages(lists), "stages on a rank", path);
  const schedule::StageEdges edges = schedule::chain_edges(lists.num_stages);
  lists = schedule::has_messages(lists) ? schedule::add_local_messages(lists, edges)
                                        : schedule::lower(lists, edges, /*reduce_gradients=*/true);
  try {
    schedule::validate(lists, edges);
  } catch (Error& error) {
    error.add_context(path);
    throw;
  }
  return lists;
}

schedule::Schedule build_schedule(const SimulationOptions& options) {
  const int stages =
      options.virtual_stages == 0 ? schedule::default_virtual_stages(options.schedule) : options.virtual_stages;
  for (const auto& [option, value] : {std::pair("--pp", options.pp), {"--chunks", options.chunks}}) {
    if (value == 0) {
      throw_usage("{} is missing: schedule {} needs a number of ranks and of microbatches", option, options.schedule);
    }
  }
  const schedule::Schedule lists = schedule::make_schedule(options.schedule, options.pp, stages, options.chunks, true);
  const schedule::StageEdges edges = schedule::chain_edges(lists.num_stages);
  schedule::Schedule lowered = schedule::lower(lists, edges, /*reduce_gradients=*/true);
  schedule::validate(lowered, edges);
  return lowered;
}

}  // namespace

struct ScheduleSimulation::Impl {
  SimulationOptions options;
  schedule::Schedule lists;
  schedule::Simulation result;
  int virtual_stages = 1;
  double closed_form = std::numeric_limits<double>::quiet_NaN();

  std::string name() const {
    return fmt::format(
        "{}: {} {}{}, {} {}", options.schedule, lists.num_ranks(), lists.num_ranks() == 1 ? "rank" : "ranks",
        virtual_stages == 1 ? "" : fmt::format(" of {} stages", virtual_stages), lists.num_microbatches,
        lists.num_microbatches == 1 ? "microbatch" : "microbatches");
  }

  std::string costs() const {
    return fmt::format(
        "F {}, I {}, W {}, message {}", format_number(options.forward), format_number(options.input_gradient),
        format_number(options.weight_gradient), format_number(options.transfer));
  }

  // "33, bubble 27.27 %"
  std::string closed_form_text() const {
    if (std::isnan(closed_form)) {
      return "none";
    }
    const double work =
        lists.num_microbatches * virtual_stages * (options.forward + options.input_gradient + options.weight_gradient);
    return fmt::format("{}, bubble {}", format_number(closed_form), percent((closed_form - work) / closed_form));
  }

  static std::string percent(double fraction) { return fmt::format("{:.4g} %", 100 * fraction); }
};

ScheduleSimulation::ScheduleSimulation(const SimulationOptions& options) {
  check_costs(options);
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  const bool file = is_file(options.schedule);
  impl->lists = file ? read_schedule(options) : build_schedule(options);
  impl->virtual_stages = most_stages(impl->lists);
  impl->result = schedule::simulate(
      impl->lists, schedule::chain_edges(impl->lists.num_stages),
      schedule::uniform_costs(
          impl->lists.num_stages, options.forward, options.input_gradient, options.weight_gradient, options.transfer));
  if (!file && options.transfer == 0) {
    impl->closed_form = impl->virtual_stages * impl->lists.num_microbatches *
                            (options.forward + options.input_gradient + options.weight_gradient) +
                        schedule::closed_form_bubble(
                            options.schedule, options.pp, impl->virtual_stages, options.chunks, options.forward,
                            options.input_gradient, options.weight_gradient);
  }
  impl_ = std::move(impl);
}

ScheduleSimulation::~ScheduleSimulation() = default;
ScheduleSimulation::ScheduleSimulation(ScheduleSimulation&&) noexcept = default;

int ScheduleSimulation::pp() const {
  return impl_->lists.num_ranks();
}

int ScheduleSimulation::virtual_stages() const {
  return impl_->virtual_stages;
}

int ScheduleSimulation::chunks() const {
  return impl_->lists.num_microbatches;
}

double ScheduleSimulation::makespan() const {
  return impl_->result.makespan;
}

double ScheduleSimulation::bubble_fraction() const {
  return impl_->result.bubble_fraction;
}

double ScheduleSimulation::closed_form_makespan() const {
  return impl_->closed_form;
}

const std::vector<int>& ScheduleSimulation::peak_activations() const {
  return impl_->result.peak_activations;
}

std::vector<std::string> ScheduleSimulation::actions(int rank) const {
  if (rank < 0 || rank >= pp()) {
    throw_usage("rank {} of a schedule with {} ranks", rank, pp());
  }
  std::vector<std::string> names;
  for (const schedule::Action& action : impl_->lists.ranks[static_cast<size_t>(rank)]) {
    names.push_back(to_string(action));
  }
  return names;
}

std::string ScheduleSimulation::text() const {
  return fmt::format(
      "{}\ncosts: {}\n\n{}\nmakespan          {}\nbubble            {}\nclosed form       {}\npeak activations  {}\n",
      impl_->name(), impl_->costs(), schedule::grid(impl_->result), format_number(makespan()),
      Impl::percent(bubble_fraction()), impl_->closed_form_text(), fmt::join(peak_activations(), " "));
}

std::string ScheduleSimulation::html() const {
  std::string figures;
  const auto figure = [&](const char* name, const std::string& value) {
    figures += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", name, schedule::html_escape(value));
  };
  figure("makespan", format_number(makespan()));
  figure("bubble", Impl::percent(bubble_fraction()));
  figure("closed form", impl_->closed_form_text());
  figure(
      "peak activations", fmt::format("{}", *std::max_element(peak_activations().begin(), peak_activations().end())));
  return schedule::html_page(
      "Schedule " + impl_->name(),
      fmt::format(
          "<p class=\"note\">Costs: {}.</p>\n<dl class=\"figures\">{}</dl>\n{}<h2>Ranks</h2>\n{}", impl_->costs(),
          figures, schedule::timeline_html(impl_->result), schedule::rank_table_html(impl_->result)));
}

}  // namespace shardpipe
