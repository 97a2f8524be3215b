// The group of all ranks, used as code that speaks c10d uses groups: through c10d's own operators.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>

#include "comm/c10d_backend.h"
#include "comm/group_body.h"
#include "comm/rank_player.h"

namespace shardpipe::comm::player {
namespace {

at::Tensor functional(const char* name, std::vector<c10::IValue> stack) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  op.callBoxed(&stack);
  std::vector<c10::IValue> wait = {stack.at(0)};
  c10::Dispatcher::singleton().findSchemaOrThrow("_c10d_functional::wait_tensor", "").callBoxed(&wait);
  return wait.at(0).toTensor();
}

}  // namespace

void use_c10d(World& world) {
  const int rank = world.rank();
  const int size = world.size();
  const auto group = make_process_group(world.transport(), world.group(), "everyone");
  std::vector<at::Tensor> inputs;
  for (int member = 0; member < size; ++member) {
    inputs.push_back(at::arange(6 * size, at::kFloat).add(member).div(3).view({2 * size, 3}));
  }
  const at::Tensor own = inputs[rank];
  const at::Tensor sum = at::stack(inputs).sum(0);
  const auto check = [&](const char* what, const at::Tensor& got, const at::Tensor& expected) {
    if (!at::allclose(got, expected, 1e-6, 1e-6) || got.sizes() != expected.sizes()) {
      throw_internal("c10d: {} is wrong on rank {}", what, rank);
    }
  };

  std::vector<at::Tensor> list{own.clone()};
  group->allreduce(list)->wait();
  check("allreduce", list[0], sum);
  list = {own.clone()};
  c10d::AllreduceOptions average;
  average.reduceOp = c10d::ReduceOp::AVG;
  const auto work = group->allreduce(list, average);
  work->wait();
  check("average", list[0], sum / size);
  check("the result of a work", work->result().at(0), sum / size);
  check("the future of a work", work->getFuture()->value().toTensorVector().at(0), sum / size);
  list = {own.clone()};
  group->broadcast(list, {.rootRank = size - 1})->wait();
  check("broadcast", list[0], inputs[size - 1]);
  list = {own.clone()};
  group->reduce(list, {.rootRank = 1})->wait();
  check("reduce", list[0], rank == 1 ? sum : own);

  std::vector<std::vector<at::Tensor>> lists(1);
  for (int member = 0; member < size; ++member) {
    lists[0].push_back(at::zeros_like(own));
  }
  list = {own};
  group->allgather(lists, list)->wait();
  check("allgather", at::stack(lists[0]), at::stack(inputs));
  std::vector<std::vector<at::Tensor>> gathered;
  if (rank == 1) {
    gathered = lists;
    gathered[0][0].zero_();
  }
  group->gather(gathered, list, {.rootRank = 1})->wait();
  check("gather", rank == 1 ? gathered[0][0] : inputs[0], inputs[0]);
  at::Tensor out = at::zeros({2, 3});
  list = {out};
  std::vector<std::vector<at::Tensor>> scattered;
  if (rank == 0) {
    scattered.push_back(own.chunk(size));
  }
  group->scatter(list, scattered, {.rootRank = 0})->wait();
  check("scatter", out, inputs[0].chunk(size)[rank]);
  std::vector<std::vector<at::Tensor>> parts = {own.chunk(size)};
  group->reduce_scatter(list, parts)->wait();
  check("reduce_scatter", out, sum.chunk(size)[rank]);
  at::Tensor exchanged = at::zeros_like(own);
  at::Tensor given = own.clone();
  std::vector<int64_t> none;
  group->all_to_all_single(exchanged, given, none, none)->wait();
  std::vector<at::Tensor> columns;
  for (const at::Tensor& input : inputs) {
    columns.push_back(input.chunk(size)[rank]);
  }
  check("alltoall_base", exchanged, at::cat(columns));

  list = {given};
  std::vector<at::Tensor> arrived{at::zeros_like(own)};
  const auto receive = group->recv(arrived, (rank + size - 1) % size, 5);
  group->send(list, (rank + 1) % size, 5)->wait();
  receive->wait();
  check("recv", arrived[0], inputs[(rank + size - 1) % size]);
  group->barrier()->wait();

  // As programs of torch.export hold them.
  check("functional all_reduce", functional("_c10d_functional::all_reduce", {own, "sum", "everyone"}), sum);
  check(
      "functional all_gather", functional("_c10d_functional::all_gather_into_tensor", {own, size, "everyone"}),
      at::cat(inputs));
  check(
      "functional reduce_scatter",
      functional("_c10d_functional::reduce_scatter_tensor", {own, "sum", size, "everyone"}), sum.chunk(size)[rank]);

  c10d::AllreduceOptions bits;
  bits.reduceOp = c10d::ReduceOp::BAND;
  try {
    group->allreduce(list, bits);
    throw std::runtime_error("BAND was taken");
  } catch (const Error& error) {
    if (error.message().find("reductions are SUM, AVG, PRODUCT, MIN and MAX, not number") == std::string::npos) {
      throw;
    }
  }
  std::vector<at::Tensor> two{own, own};
  try {
    group->allreduce(two);
    throw std::runtime_error("two tensors were taken");
  } catch (const Error& error) {
    if (error.message().find("a call with 2 tensors of one device, must be 1") == std::string::npos) {
      throw;
    }
  }
  c10d::unregister_process_group("everyone");
}

}  // namespace shardpipe::comm::player
