#include "schedule/orders.h"

#include <algorithm>

namespace shardpipe::schedule {
namespace {

// (stage, microbatch) pairs: rounds of `round` microbatches visit `stages` in turn.
std::vector<std::pair<int, int>> visits(const std::vector<int>& stages, int m, int round) {
  std::vector<std::pair<int, int>> pairs;
  pairs.reserve(stages.size() * static_cast<size_t>(m));
  for (int first = 0; first < m; first += round) {
    for (const int stage : stages) {
      for (int microbatch = first; microbatch < std::min(m, first + round); ++microbatch) {
        pairs.emplace_back(stage, microbatch);
      }
    }
  }
  return pairs;
}

std::vector<int> looped_stages(const Shape& shape, int rank) {
  std::vector<int> stages;
  for (int i = 0; i < shape.v; ++i) {
    stages.push_back(i * shape.p + rank);
  }
  return stages;
}

// `warm_up` forwards, then a forward before each backward, then the rest of the backwards.
std::vector<Action> forward_before_backward(const Shape& shape, int rank, int round, int warm_up) {
  std::vector<int> stages = looped_stages(shape, rank);
  const auto forwards = visits(stages, shape.m, round);
  std::reverse(stages.begin(), stages.end());
  const auto backwards = visits(stages, shape.m, round);
  std::vector<Action> actions;
  actions.reserve(2 * forwards.size());
  size_t done = 0;
  const auto forward = [&] {
    actions.push_back({forwards[done].first, ActionKind::F, forwards[done].second});
    ++done;
  };
  while (done < std::min(static_cast<size_t>(warm_up), forwards.size())) {
    forward();
  }
  for (const auto& [stage, microbatch] : backwards) {
    if (done < forwards.size()) {
      forward();
    }
    actions.push_back({stage, ActionKind::B, microbatch});
  }
  return actions;
}

// Appends actions of the microbatches below m; what is beyond keeps its place in the order and is left out.
class ZbVList {
 public:
  ZbVList(int m, std::vector<Action>& actions) : m_(m), actions_(actions) {}
  void add(int stage, ActionKind kind, int& microbatch) {
    if (microbatch < m_) {
      actions_.push_back({stage, kind, microbatch});
    }
    ++microbatch;
  }

 private:
  int m_;
  std::vector<Action>& actions_;
};

}  // namespace

std::vector<Action> forward_order(const std::vector<int>& stages, int m, int round) {
  std::vector<Action> actions;
  for (const auto& [stage, microbatch] : visits(stages, m, round)) {
    actions.push_back({stage, ActionKind::F, microbatch});
  }
  return actions;
}

std::vector<Action> breadth_first_order(const Shape& shape, int rank) {
  return forward_before_backward(shape, rank, shape.m, shape.v * shape.m);
}

std::vector<Action> one_f_one_b_order(const Shape& shape, int rank) {
  return forward_before_backward(shape, rank, shape.m, shape.p - rank - 1);
}

std::vector<Action> interleaved_order(const Shape& shape, int rank) {
  const int all = shape.v * shape.m;
  const int warm_up = shape.m == shape.p ? all : 2 * (shape.p - rank - 1) + (shape.v - 1) * shape.p;
  return forward_before_backward(shape, rank, shape.p, warm_up);
}

std::vector<Action> zb_h1_order(const Shape& shape, int rank) {
  std::vector<Action> actions;
  int forwards = 0;
  int weights = 0;
  const auto forward = [&] { actions.push_back({rank, ActionKind::F, forwards++}); };
  const auto weight = [&] { actions.push_back({rank, ActionKind::W, weights++}); };
  while (forwards < std::min(shape.p - rank - 1, shape.m)) {
    forward();
  }
  for (int microbatch = 0; microbatch < shape.m; ++microbatch) {
    if (forwards < shape.m) {
      forward();
    }
    actions.push_back({rank, ActionKind::I, microbatch});
    if (microbatch >= rank) {
      weight();
    }
  }
  while (weights < shape.m) {
    weight();
  }
  return actions;
}

std::vector<Action> zb_v_order(const Shape& shape, int rank) {
  using enum ActionKind;
  // The order is that of 2 p - 1 microbatches or more, without those beyond m.
  const int n = std::max(2 * shape.p - 1, shape.m);
  const int down = rank;                  // the stage on the way down
  const int up = 2 * shape.p - 1 - rank;  // and on the way up
  int f0 = 0, f1 = 0, i0 = 0, i1 = 0, w0 = 0, w1 = 0;
  std::vector<Action> actions;
  ZbVList list(shape.m, actions);
  const auto backward_up = [&] {
    list.add(up, I, i1);
    list.add(up, W, w1);
  };
  const auto backward_down = [&] {
    list.add(down, I, i0);
    list.add(down, W, w0);
  };
  // Warm-up: forwards down, then both ways, then backwards of the way up.
  for (int i = 0; i < 2 * (shape.p - rank) - 1; ++i) {
    list.add(down, F, f0);
  }
  for (int i = 0; i < rank; ++i) {
    list.add(up, F, f1);
    list.add(down, F, f0);
  }
  for (int i = 0; i < shape.p - rank; ++i) {
    list.add(up, F, f1);
    backward_up();
  }
  while (f1 < f0 || f0 < n) {  // steady state
    if (f0 < n) {
      list.add(down, F, f0);
    }
    backward_down();
    list.add(up, F, f1);
    backward_up();
  }
  // The end: what other ranks wait for first.
  for (int i = 0; i < rank; ++i) {
    list.add(down, I, i0);
    list.add(up, I, i1);
  }
  for (int i = 0; i < shape.p - rank; ++i) {
    backward_down();
  }
  while (w1 < i1) {
    list.add(up, W, w1);
  }
  while (w0 < i0) {
    list.add(down, W, w0);
  }
  return actions;
}

}  // namespace shardpipe::schedule
