#include "generate/lanes.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <bit>
#include <map>

#include "base/error.h"

namespace shardpipe::generation {

Lane::Lane(std::vector<Row> rows, bool logprobs) : rows_(std::move(rows)), logprobs_(logprobs) {
  prepare();
  prepare_sources();
}

const at::Tensor& Lane::input(const std::string& name) const {
  static const std::map<std::string, at::Tensor Lane::*, std::less<>> inputs = {
      {"input_ids", &Lane::input_ids_},
      {"positions", &Lane::positions_},
      {"slots", &Lane::slots_},
      {"selected", &Lane::selected_},
      {"source_ids", &Lane::source_ids_},
      {"source_positions", &Lane::source_positions_},
      {"source_slots", &Lane::source_slots_},
      {"source_lengths", &Lane::source_lengths_}};
  if (const auto found = inputs.find(name); found != inputs.end() && (this->*found->second).defined()) {
    return this->*found->second;
  }
  throw_internal("a generation program has no input \"{}\"", name);
}

void Lane::set_choices(const std::vector<Choice>& choices) {
  // A new tensor each step: the one before may still be on its way.
  choices_ = at::empty(choices_.sizes(), at::kLong);
  int64_t* out = choices_.mutable_data_ptr<int64_t>();
  for (const Choice& choice : choices) {
    *out++ = choice.token;
    *out++ = static_cast<int64_t>(choice.finish_reason);
    if (logprobs_) {
      *out++ = std::bit_cast<int64_t>(choice.logprob);
    }
  }
}

void Lane::advance(const std::function<void(size_t slot, const Choice& choice)>& seen) {
  const int64_t* in = choices_.const_data_ptr<int64_t>();
  for (const size_t slot : active_rows_) {
    Choice choice;
    choice.token = *in++;
    choice.finish_reason = static_cast<FinishReason>(*in++);
    Row& row = rows_[slot];
    row.cached = static_cast<int64_t>(row.prompt->size() + row.output.token_ids.size());
    row.output.token_ids.push_back(choice.token);
    row.output.finish_reason = choice.finish_reason;
    if (logprobs_) {
      choice.logprob = std::bit_cast<double>(*in++);
      row.output.logprobs.push_back(choice.logprob);
    }
    seen(slot, choice);
  }
  prepare();
  if (source_ids_.defined() && source_ids_.numel() > 0) {
    source_ids_ = at::empty({0}, at::kLong);
    source_positions_ = source_ids_;
    source_slots_ = source_ids_;
    dimensions_["sources"] = 0;
  }
}

void Lane::prepare() {
  active_rows_.clear();
  int64_t tokens = 0;
  for (size_t slot = 0; slot < rows_.size(); ++slot) {
    const Row& row = rows_[slot];
    if (row.active()) {
      active_rows_.push_back(slot);
      tokens += row.cached == 0 ? static_cast<int64_t>(row.prompt->size()) : 1;
    }
  }
  const auto outputs = static_cast<int64_t>(active_rows_.size());
  if (!input_ids_.defined() || input_ids_.numel() != tokens || selected_.numel() != outputs) {
    input_ids_ = at::empty({tokens}, at::kLong);
    positions_ = at::empty({tokens}, at::kLong);
    slots_ = at::empty({tokens}, at::kLong);
    selected_ = at::empty({outputs}, at::kLong);
    choices_ = at::empty({outputs, logprobs_ ? 3 : 2}, at::kLong);
  }
  int64_t* ids = input_ids_.mutable_data_ptr<int64_t>();
  int64_t* positions = positions_.mutable_data_ptr<int64_t>();
  int64_t* slots = slots_.mutable_data_ptr<int64_t>();
  int64_t* selected = selected_.mutable_data_ptr<int64_t>();
  int64_t at = 0;
  for (const size_t slot : active_rows_) {
    const Row& row = rows_[slot];
    const auto prompt = static_cast<int64_t>(row.prompt->size());
    const int64_t length = prompt + static_cast<int64_t>(row.output.token_ids.size());
    for (int64_t position = row.cached; position < length; ++position, ++at) {
      ids[at] = position < prompt ? (*row.prompt)[static_cast<size_t>(position)]
                                  : row.output.token_ids[static_cast<size_t>(position - prompt)];
      positions[at] = position;
      slots[at] = static_cast<int64_t>(slot);
    }
    *selected++ = at - 1;
  }
  dimensions_["tokens"] = tokens;
  dimensions_["outputs"] = outputs;
}

// Those of the first step.
void Lane::prepare_sources() {
  std::vector<int64_t> ids;
  std::vector<int64_t> positions;
  std::vector<int64_t> slots;
  std::vector<int64_t> lengths;
  for (size_t slot = 0; slot < rows_.size(); ++slot) {
    if (const std::vector<int64_t>* source = rows_[slot].source) {
      for (size_t position = 0; position < source->size(); ++position) {
        ids.push_back((*source)[position]);
        positions.push_back(static_cast<int64_t>(position));
        slots.push_back(static_cast<int64_t>(slot));
      }
      lengths.push_back(static_cast<int64_t>(source->size()));
    }
  }
  if (!lengths.empty()) {
    source_ids_ = at::tensor(ids, at::kLong);
    source_positions_ = at::tensor(positions, at::kLong);
    source_slots_ = at::tensor(slots, at::kLong);
    source_lengths_ = at::tensor(lengths, at::kLong);
    dimensions_["sources"] = source_ids_.numel();
    dimensions_["slots"] = source_lengths_.numel();
  }
}

StepExample step_example(const graph::Graph& program, const StepSize& size) {
  const auto names_source = [&](graph::ValueId id) {
    return program.values[static_cast<size_t>(id)].name == "source_ids";
  };
  const bool has_source = std::any_of(program.inputs.begin(), program.inputs.end(), names_source);
  const std::vector<int64_t> prompt(static_cast<size_t>(has_source ? 1 : size.prompt_tokens), 0);
  const std::vector<int64_t> source(static_cast<size_t>(size.source_tokens), 0);
  Row row;
  row.prompt = &prompt;
  row.source = has_source ? &source : nullptr;
  if (size.generated > 1) {
    row.output.token_ids.resize(static_cast<size_t>(size.generated) - 1, 0);
    row.cached = std::ssize(prompt) + size.generated - 2;
  }
  const auto rows = static_cast<size_t>(size.rows);
  Lane lane(std::vector<Row>(rows, row), false);
  if (size.generated > 0) {
    lane.set_choices(std::vector<Choice>(rows));
    lane.advance([](size_t, const Choice&) {});
  }
  StepExample example;
  for (const graph::ValueId id : program.inputs) {
    const std::string& name = program.values[static_cast<size_t>(id)].name;
    example.inputs[name] = lane.input(name);
  }
  example.sizes = {{"slots", size.rows}, {"capacity", size.capacity}, {"source_capacity", size.source_tokens}};
  example.sizes.insert(lane.dimensions().begin(), lane.dimensions().end());
  return example;
}

std::vector<std::vector<Row>> split_rows(std::vector<Row> rows, int lanes) {
  std::vector<std::vector<Row>> split;
  const size_t count = static_cast<size_t>(lanes);
  auto next = rows.begin();
  for (size_t lane = 0; lane < count; ++lane) {
    const size_t size = rows.size() / count + (lane < rows.size() % count ? 1 : 0);
    const auto end = next + static_cast<ptrdiff_t>(size);
    split.emplace_back(std::make_move_iterator(next), std::make_move_iterator(end));
    next = end;
  }
  return split;
}

}  // namespace shardpipe::generation
