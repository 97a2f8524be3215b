#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "graph/graph.h"
#include "kernels/choice.h"
#include "mesh/mesh.h"
#include "partition/balance.h"
#include "partition/stages.h"
#include "plan/scalars.h"
#include "schedule/builders.h"
#include "shardpipe/options.h"
#include "tensor/shard.h"

namespace shardpipe::plan {

/// Where a tensor's bytes are.
struct WeightSource {
  int checkpoint = 0;  ///< index into ModelDescription::checkpoints
  std::string name;    ///< in that checkpoint
  bool operator==(const WeightSource&) const = default;
};

/// What the planner needs to know of a model.
struct ModelDescription {
  std::string family;  ///< "llama"; "exported" for an exported program
  graph::Graph graph;  ///< traced, before kernels are chosen
  at::ScalarType dtype = at::kFloat;
  std::vector<std::string> checkpoints;  ///< absolute paths that checkpoint::Checkpoint::open opens on every rank
  std::map<std::string, WeightSource> weights;  ///< by parameter, buffer or shared state without content of its own
  std::set<std::string> frozen;                 ///< parameters that have no gradient
  std::vector<tensor::PinRule> pins;            ///< how it wants to be divided; the layout's come before
};

/// What every rank holds and does. Made by rank 0, broadcast, and the same bytes on every rank.
struct Plan {
  std::string family;
  at::ScalarType dtype = at::kFloat;
  LayoutOptions layout;
  int threads = 1;               ///< per rank
  std::string device = "cpu";    ///< of the ranks' tensors, or "cuda"
  std::string kernels = "auto";  ///< or "reference"
  kernels::KernelChoice choice;  ///< what "auto" chose
  graph::Graph graph;            ///< with the chosen kernels: whole, or with tp > 1 that of the selected part
  partition::CutPoints cuts;     ///< indices into graph.nodes
  std::vector<std::string> checkpoints;
  std::map<std::string, WeightSource> weights;
  std::set<std::string> frozen;
  std::string schedule_csv;           ///< where layout.schedule is a file: its text
  std::vector<ScalarOutput> scalars;  ///< how the outputs without dimensions of several microbatches become one
  std::vector<graph::Graph> parts;    ///< by tp part, where their graphs differ; else empty
  std::map<std::string, tensor::Shard> shards;  ///< parameters, buffers and shared states that tp divides, by name

  bool own_pieces = false;  ///< each rank's checkpoints hold its pieces of them: an artefact's

  // What a plan tells its reader, known where it was made only.
  std::map<std::string, std::string> replicated;  ///< tensor::Sharded's
  std::vector<tensor::Collective> collectives;
  std::map<graph::ValueId, graph::ValueId> whole_values;

  // Derived from the above by every rank.
  int part = 0;  ///< of the axis tp that `graph` and `stages` are of
  partition::Stages stages;
  std::vector<int> placement;        ///< pp rank by stage; empty: stage mod pp
  schedule::Schedule file_schedule;  ///< that of schedule_csv

  /// Derives `placement` and `file_schedule`. Throws Error(input) when the schedule's file is bad, Error(usage) when it
  /// is for another number of ranks or stages.
  void place_stages();

  /// Makes `graph` and `stages` those of one part of the axis tp.
  void select_part(int selected);
  /// Makes them those of tensors on a device: see graph::on_device.
  void move_to(at::Device place);
  /// The shape of a parameter, buffer or shared state in the model; `value` is of `graph`, whose shape is the part's.
  std::optional<graph::Shape> whole_shape(const graph::Value& value) const;

  mesh::Mesh mesh() const { return {layout.pp, layout.dp, layout.tp}; }
  /// Microbatches of a batch that is large enough, where nobody says how many.
  int default_microbatches() const;
  int num_stages() const { return layout.pp * std::max(1, layout.virtual_stages); }
  /// The rank along the pipeline that holds the stage.
  int rank_of_stage(int stage) const {
    return placement.empty() ? stage % layout.pp : placement[static_cast<size_t>(stage)];
  }
  /// Those of one such rank, ascending.
  std::vector<int> stages_of_rank(int rank) const;
  std::vector<std::vector<int>> stages_by_rank() const;
  /// Inputs of the model that a stage uses, and outputs of the model, the hidden ones too, that it computes.
  std::vector<std::pair<std::string, graph::ValueId>> stage_inputs(int stage) const;
  std::vector<std::pair<std::string, graph::ValueId>> stage_outputs(int stage) const;
  /// (producer, consumer) pairs of stages, for the schedule; sorted.
  schedule::StageEdges stage_edges() const;
  /// Compute and communication actions of one step, backwards too where asked for. Throws Error(usage) when the
  /// schedule cannot have so many microbatches.
  schedule::Schedule schedule(int microbatches, bool backward) const;
  /// Throws Error(usage) where a rank holds more than so many bytes (0 = no limit).
  void check_memory(int64_t limit) const;
  /// Bytes of the parameters that the stages hold together, a tied one once.
  int64_t parameter_bytes(const std::vector<int>& of_stages) const;
};

/// What the nodes of a plan's graph cost; the plan is complete but for its cuts.
using CostFunction = std::function<partition::Costs(const Plan& plan)>;

/// Cuts the model and chooses its kernels. Everything that can be refused is refused here, before any rank loads
/// weights: throws Error(usage) for layouts that cannot exist. `costs` is asked where they decide the cuts; without it
/// they are the cost model's.
Plan make_plan(const ModelDescription& model, const PlanOptions& options, const CostFunction& costs = {});

/// The plan's program on another number of ranks, cut by the same policy (`balanced` instead of named cuts), to compare
/// with: all but the graphs of the stages; its edges are those of a chain, without values. Throws Error(usage) where
/// it cannot be.
Plan outline(const Plan& plan, const PlanOptions& options, int pp, const CostFunction& costs = {});

/// Version, hash, JSON, graph text. parse(serialize(p)) is the same plan; throws Error(input) naming `where` when the
/// text is damaged or of another version.
std::string serialize(const Plan& plan);
Plan parse(std::string_view text, const std::string& where);

}  // namespace shardpipe::plan
