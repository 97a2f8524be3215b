#include "text/jinja_interpreter.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_functions.h"
#include "text/jinja_operators.h"

namespace shardpipe::text::jinja {

Interpreter::Interpreter(const Template& parsed, std::unordered_map<std::string, Value> variables)
    : parsed_(parsed), context_(std::move(variables)) {
  context_.merge(make_globals(namespaces_));  // a variable of the same name wins
}

Interpreter::Depth::Depth(Interpreter& interpreter) : interpreter_(interpreter) {
  if (++interpreter.depth_ > kMaxEvaluationDepth) {
    --interpreter.depth_;
    throw_input("the chat template calls itself deeper than {} levels", kMaxEvaluationDepth);
  }
}

std::string Interpreter::run() {
  std::string out;
  try {
    render(parsed_.body, enter(parsed_.scope, nullptr), out);
  } catch (Error& error) {
    error.add_context(fmt::format("line {} of the chat template", line_));
    throw;
  }
  return out;
}

Value Interpreter::context(const std::string& name) const {
  const auto found = context_.find(name);
  return found == context_.end() ? Value() : found->second;
}

Value Interpreter::outer_value(const Scope* scope, const std::string& name) {
  for (; scope != nullptr; scope = scope->parent.get()) {
    const auto& slots = scope->plan->slots;
    const auto found = std::lower_bound(
        slots.begin(), slots.end(), name,
        [](const Slot& slot, const std::string& wanted) { return slot.name < wanted; });
    if (found != slots.end() && found->name == name) {
      return scope->slots[static_cast<size_t>(found - slots.begin())];
    }
  }
  return {};
}

Interpreter::ScopePtr Interpreter::enter(const ScopePlan& plan, const ScopePtr& parent) {
  charge(4 + 2 * plan.slots.size());
  auto scope = std::make_shared<Scope>(Scope{&plan, parent, Values(plan.slots.size())});
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    if (plan.slots[i].start == Start::context) {
      scope->slots[i] = context(plan.slots[i].name);
    } else if (plan.slots[i].start == Start::outer) {
      scope->slots[i] = outer_value(parent.get(), plan.slots[i].name);
    }
  }
  return scope;
}

Interpreter::Flow Interpreter::render(const Block& block, const ScopePtr& scope, std::string& out) {
  const Depth depth(*this);
  for (const auto& statement : block) {
    charge(1);
    line_ = statement->line;
    const Flow flow = render_statement(*statement, scope, out);
    if (flow != Flow::normal) {
      return flow;
    }
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::render_statement(const Statement& node, const ScopePtr& scope, std::string& out) {
  switch (node.kind) {
    case StatementKind::output:
      render_output(node, scope, out);
      break;
    case StatementKind::condition:
      return render_condition(node, scope, out);
    case StatementKind::loop: {
      const Value iterable = evaluate(*node.expression, scope);
      return render_loop(node, iterable, 0, scope, out);
    }
    case StatementKind::assign: {
      check_members(*node.target, *scope);
      const Value value = evaluate(*node.expression, scope);
      assign(*node.target, value, *scope);
      break;
    }
    case StatementKind::capture:
    case StatementKind::filter_block:
      render_captured(node, scope, out);
      break;
    case StatementKind::macro:
      assign(*node.target, make_macro(node, scope), *scope);
      break;
    case StatementKind::call_block: {
      const Value caller = make_macro(node, scope);
      append_block(evaluate_call(*node.expression, scope, &caller), out);
      break;
    }
    case StatementKind::with:
      render_with(node, scope, out);
      break;
    case StatementKind::scope:
      return render(node.body, enter(node.scope, scope), out);
    case StatementKind::break_loop:
      return Flow::break_loop;
    case StatementKind::continue_loop:
      return Flow::continue_loop;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::render_condition(const Statement& node, const ScopePtr& scope, std::string& out) {
  for (const Branch& branch : node.branches) {
    if (!branch.test || truthy(evaluate(*branch.test, scope))) {
      return render(branch.body, scope, out);
    }
  }
  return Flow::normal;
}

void Interpreter::render_output(const Statement& node, const ScopePtr& scope, std::string& out) {
  charge_bytes(node.text.size());
  out += node.text;
  for (const auto& expression : node.expressions) {
    const std::string text = to_text(evaluate(*expression, scope));
    charge_bytes(text.size());
    out += text;
  }
}

Interpreter::Flow Interpreter::render_loop(
    const Statement& node, const Value& iterable, int64_t depth0, const ScopePtr& scope, std::string& out) {
  const auto loop = std::make_shared<Loop>();
  loop->iterable = iterable;
  loop->iterator = iterate(iterable);
  loop->depth0 = depth0;
  if (node.test) {
    // Each item is tested when it is reached, as in Jinja: the body may change what the test sees.
    loop->iterable = make_iterator(
        [this, &node, scope, source = loop->iterator]() -> std::optional<Value> {
          while (auto item = source->next()) {
            charge(1);
            const ScopePtr test = enter(node.test_scope, scope);
            assign(*node.test_target, *item, *test);
            if (truthy(evaluate(*node.test, test))) {
              return item;
            }
          }
          return std::nullopt;
        },
        iterable.depth());
    loop->iterator = iterate(loop->iterable);
  }
  if (node.recursive) {
    loop->recurse = [this, &node, scope](const Value& inner, int64_t depth) -> Value {
      std::string text;
      render_loop(node, inner, depth, scope, text);
      return text;
    };
  }
  // Jinja's else: no iteration ran to its end, so a break or continue in each of them counts as none.
  bool finished = false;
  while (const auto item = loop->advance()) {
    const ScopePtr inner = enter(node.scope, scope);
    inner->slots[static_cast<size_t>(node.slot_of_loop)] = loop;
    assign(*node.target, *item, *inner);
    const Flow flow = render(node.body, inner, out);
    if (flow == Flow::break_loop) {
      break;
    }
    finished = finished || flow == Flow::normal;
  }
  return finished ? Flow::normal : render(node.other, enter(node.other_scope, scope), out);
}

void Interpreter::render_captured(const Statement& node, const ScopePtr& scope, std::string& out) {
  const ScopePtr inner = enter(node.scope, scope);
  std::string text;
  render(node.body, inner, text);
  block_text_ = std::move(text);
  const Value result = node.expression ? evaluate(*node.expression, inner) : block_text_;
  if (node.kind == StatementKind::capture) {
    check_members(*node.target, *scope);
    assign(*node.target, result, *scope);
  } else {
    append_block(result, out);
  }
}

// Unlike an expression, a filter or call block must give text.
void Interpreter::append_block(const Value& result, std::string& out) {
  if (result.text() == nullptr) {
    throw_input("a filter or call block gives {} instead of text", type_name(result));
  }
  charge_bytes(result.text()->size());
  out += *result.text();
}

void Interpreter::render_with(const Statement& node, const ScopePtr& scope, std::string& out) {
  const ScopePtr inner = enter(node.scope, scope);
  for (size_t i = 0; i < node.targets.size(); ++i) {
    assign(*node.targets[i], evaluate(*node.expressions[i], scope), *inner);
  }
  render(node.body, inner, out);
}

Value Interpreter::make_macro(const Statement& node, const ScopePtr& scope) {
  // A macro may outlive the scope it sees, in a namespace; the scope may hold the macro. So neither owns the other.
  if (kept_.empty() || kept_.back() != scope) {
    charge(16);
    kept_.push_back(scope);
  }
  const std::weak_ptr<Scope> seen = scope;
  return make_callable(
      node.text, [this, &node, seen](Arguments& arguments) { return run_macro(node, seen.lock(), arguments); });
}

Value Interpreter::run_macro(const Statement& node, const ScopePtr& outside, Arguments& arguments) {
  const Depth depth(*this);
  const int line = line_;
  const ScopePtr scope = enter(node.scope, outside);
  const auto take_named = [&arguments](const std::string& name) -> std::optional<Value> {
    const auto found = std::find_if(
        arguments.named.begin(), arguments.named.end(), [&](const auto& each) { return each.first == name; });
    if (found == arguments.named.end()) {
      return std::nullopt;
    }
    Value value = std::move(found->second);
    arguments.named.erase(found);
    return value;
  };
  const size_t given = std::min(arguments.positional.size(), node.parameters.size());
  std::vector<std::optional<Value>> values(
      arguments.positional.begin(), arguments.positional.begin() + static_cast<ptrdiff_t>(given));
  for (size_t i = given; i < node.parameters.size(); ++i) {
    values.push_back(take_named(node.parameters[i].first->name));
  }
  if (node.uses_caller) {
    scope->slots[static_cast<size_t>(node.slot_of_caller)] =
        take_named("caller").value_or(undefined("No caller defined"));
  }
  if (node.uses_kwargs) {
    Dict rest;
    for (auto& [name, value] : arguments.named) {
      rest.set(Value(name), std::move(value));
    }
    scope->slots[static_cast<size_t>(node.slot_of_kwargs)] = make_dict(std::move(rest));
  } else if (!arguments.named.empty()) {
    throw_input("macro '{}' takes no keyword argument '{}'", node.text, arguments.named[0].first);
  }
  if (node.uses_varargs) {
    scope->slots[static_cast<size_t>(node.slot_of_varargs)] = make_sequence(
        Values(arguments.positional.begin() + static_cast<ptrdiff_t>(given), arguments.positional.end()),
        Sequence::Flavor::tuple);
  } else if (arguments.positional.size() > given) {
    throw_input("macro '{}' takes not more than {} argument(s)", node.text, node.parameters.size());
  }
  // All that is given first: defaults may refer to other parameters.
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i]) {
      assign(*node.parameters[i].first, *values[i], *scope);
    }
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const auto& [target, otherwise] = node.parameters[i];
    if (!values[i]) {
      const Value value = otherwise ? evaluate(*otherwise, scope)
                                    : undefined(fmt::format("parameter '{}' was not provided", target->name));
      assign(*target, value, *scope);
    }
  }
  std::string text;
  render(node.body, scope, text);
  line_ = line;
  return text;
}

// All members of a target must belong to namespaces before the value is computed.
void Interpreter::check_members(const Expression& target, Scope& scope) const {
  for (const auto& part : target.operands) {
    check_members(*part, scope);
  }
  if (target.kind == ExpressionKind::member && evaluate_name(target, &scope).space() == nullptr) {
    throw_input("cannot assign attribute on non-namespace object");
  }
}

void Interpreter::assign(const Expression& target, const Value& value, Scope& scope) {
  if (target.kind == ExpressionKind::member) {
    set_member(evaluate_name(target, &scope), target.attribute, value);
    return;
  }
  if (target.kind == ExpressionKind::name) {
    // Stores go to the scope itself: its plan has a slot for each name it stores.
    scope.slots[static_cast<size_t>(target.slot)] = value;
    return;
  }
  const Values parts = list_of(value);
  if (parts.size() != target.operands.size()) {
    throw_input("cannot unpack {} values into {} names", parts.size(), target.operands.size());
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    assign(*target.operands[i], parts[i], scope);
  }
}

}  // namespace shardpipe::text::jinja
