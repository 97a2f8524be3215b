#include "generate/replicas.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "runtime/bundle.h"
#include "runtime/microbatches.h"

namespace shardpipe::generation {
namespace {

constexpr int kReplicaTag = 6;

// Outputs of a replica as tensors, since JSON has no infinity: tokens and reason of each row, all tokens, all log
// probabilities, and the times.
std::vector<c10::IValue> pack(const GenerateResult& result) {
  std::vector<int64_t> rows;
  std::vector<int64_t> tokens;
  std::vector<double> logprobs;
  for (const Output& output : result.outputs) {
    rows.push_back(std::ssize(output.token_ids));
    rows.push_back(static_cast<int64_t>(output.finish_reason));
    tokens.insert(tokens.end(), output.token_ids.begin(), output.token_ids.end());
    logprobs.insert(logprobs.end(), output.logprobs.begin(), output.logprobs.end());
  }
  return {
      at::tensor(rows, at::kLong), at::tensor(tokens, at::kLong), at::tensor(logprobs, at::kDouble),
      at::tensor(std::vector<double>{result.prefill_s, result.decode_s}, at::kDouble)};
}

GenerateResult unpack(const std::vector<runtime::Received>& values) {
  const auto tensor = [&](size_t i) { return values[i].value.toTensor().contiguous(); };
  const at::Tensor rows = tensor(0);
  const at::Tensor tokens = tensor(1);
  const at::Tensor logprobs = tensor(2);
  const at::Tensor times = tensor(3);
  GenerateResult result;
  const int64_t* next = tokens.const_data_ptr<int64_t>();
  const double* logprob = logprobs.const_data_ptr<double>();
  for (int64_t row = 0; row < rows.numel(); row += 2) {
    const int64_t count = rows.const_data_ptr<int64_t>()[row];
    Output& output = result.outputs.emplace_back();
    output.finish_reason = static_cast<FinishReason>(rows.const_data_ptr<int64_t>()[row + 1]);
    output.token_ids.assign(next, next + count);
    next += count;
    if (logprobs.numel() > 0) {
      output.logprobs.assign(logprob, logprob + count);
      logprob += count;
    }
  }
  result.prefill_s = times.const_data_ptr<double>()[0];
  result.decode_s = times.const_data_ptr<double>()[1];
  return result;
}

}  // namespace

std::pair<size_t, size_t> prompts_of(size_t prompts, int replicas, int replica) {
  const std::vector<int64_t> counts = runtime::split_rows(static_cast<int64_t>(prompts), replicas);
  int64_t first = 0;
  for (int before = 0; before < replica; ++before) {
    first += counts[static_cast<size_t>(before)];
  }
  return {static_cast<size_t>(first), static_cast<size_t>(counts[static_cast<size_t>(replica)])};
}

void join_replicas(
    const runtime::Engine& engine, size_t prompts, GenerateResult& result, const TokenCallback& on_token) {
  const int replicas = engine.plan().layout.dp;
  const mesh::Coordinates& own = engine.at();
  if (replicas == 1) {
    return;
  }
  const comm::ActionScope action(engine.monitor(), "replicas");
  const auto rank_of = [&](int replica) { return engine.rank_at(own.pp, replica, own.tp); };
  for (int replica = 0; replica < replicas; ++replica) {
    if (replica != own.dp) {
      runtime::send_bundle(engine.world(), pack(result), rank_of(replica), kReplicaTag);
    }
  }
  std::vector<Output> outputs;
  double prefill = 0;
  double whole = 0;
  for (int replica = 0; replica < replicas; ++replica) {
    const bool other = replica != own.dp;
    GenerateResult part =
        other ? unpack(runtime::receive_bundle(engine.world(), 4, rank_of(replica), kReplicaTag)) : result;
    const size_t first = prompts_of(prompts, replicas, replica).first;
    for (size_t row = 0; row < part.outputs.size(); ++row) {
      Output& output = part.outputs[row];
      for (size_t i = 0; other && on_token && i < output.token_ids.size(); ++i) {
        const bool last = i + 1 == output.token_ids.size();
        on_token(first + row, output.token_ids[i], last ? output.finish_reason : FinishReason::none);
      }
      outputs.push_back(std::move(output));
    }
    prefill = std::max(prefill, part.prefill_s);
    whole = std::max(whole, part.prefill_s + part.decode_s);
  }
  result.outputs = std::move(outputs);
  result.prefill_s = prefill;
  result.decode_s = whole - prefill;
}

}  // namespace shardpipe::generation
