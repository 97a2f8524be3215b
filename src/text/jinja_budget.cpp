#include "text/jinja_budget.h"

#include "base/error.h"

namespace shardpipe::text::jinja {
namespace {

// Per thread rather than an argument, because comparing, printing and hashing values cost too, and those are called
// from inside sorts and containers.
thread_local Budget* current_budget = nullptr;

}  // namespace

Budget::Budget(uint64_t steps) : left_(steps), outer_(current_budget) {
  current_budget = this;
}

Budget::~Budget() {
  current_budget = outer_;
}

void charge(uint64_t steps) {
  if (current_budget == nullptr) {
    return;
  }
  if (steps > current_budget->left_) {
    current_budget->left_ = 0;
    throw_input("the chat template does too much work: its budget of {} steps is spent", kMaxSteps);
  }
  current_budget->left_ -= steps;
}

void charge_bytes(uint64_t bytes) {
  charge(bytes / 16 + 1);
}

}  // namespace shardpipe::text::jinja
