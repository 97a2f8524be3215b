#include <fmt/format.h>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_filters.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"

namespace shardpipe::text::jinja {

Value Interpreter::evaluate(const Expression& node, const ScopePtr& scope) {
  const Depth depth(*this);
  charge(1);
  line_ = node.line;
  switch (node.kind) {
    case ExpressionKind::constant:
      return node.value;
    case ExpressionKind::name:
    case ExpressionKind::member:
      return evaluate_name(node, scope.get());
    case ExpressionKind::tuple:
    case ExpressionKind::list:
    case ExpressionKind::dict:
      return evaluate_container(node, scope);
    case ExpressionKind::attribute:
      return get_attribute(evaluate(*node.operands[0], scope), node.name);
    case ExpressionKind::item: {
      const Value object = evaluate(*node.operands[0], scope);
      return get_item(object, evaluate(*node.operands[1], scope));
    }
    case ExpressionKind::slice: {
      Value parts[4];
      for (size_t i = 0; i < 4; ++i) {
        parts[i] = node.operands[i] ? evaluate(*node.operands[i], scope) : Value(None{});
      }
      return get_slice(parts[0], parts[1], parts[2], parts[3]);
    }
    case ExpressionKind::call:
      return evaluate_call(node, scope);
    case ExpressionKind::filter:
    case ExpressionKind::test:
      return evaluate_filter(node, scope);
    case ExpressionKind::negate:
      return negate(evaluate(*node.operands[0], scope));
    case ExpressionKind::positive:
      return positive(evaluate(*node.operands[0], scope));
    case ExpressionKind::logical_not:
      return !truthy(evaluate(*node.operands[0], scope));
    case ExpressionKind::logical_and:
    case ExpressionKind::logical_or: {
      Value left = evaluate(*node.operands[0], scope);
      return truthy(left) == (node.kind == ExpressionKind::logical_or) ? left : evaluate(*node.operands[1], scope);
    }
    case ExpressionKind::conditional:
      return evaluate_conditional(node, scope);
    case ExpressionKind::compare:
      return evaluate_compare(node, scope);
    case ExpressionKind::arithmetic: {
      const Value left = evaluate(*node.operands[0], scope);
      return arithmetic(node.name, left, evaluate(*node.operands[1], scope));
    }
    case ExpressionKind::concat:
      return evaluate_concat(node, scope);
  }
  return {};
}

Value Interpreter::evaluate_name(const Expression& node, const Scope* scope) const {
  for (int i = 0; i < node.hops; ++i) {
    scope = scope->parent.get();
  }
  const Value& value = scope->slots[static_cast<size_t>(node.slot)];
  return value.is_missing() ? undefined(fmt::format("'{}' is undefined", node.name)) : value;
}

Value Interpreter::evaluate_container(const Expression& node, const ScopePtr& scope) {
  if (node.kind == ExpressionKind::dict) {
    Dict dict;
    for (size_t i = 0; i < node.operands.size(); i += 2) {
      Value key = evaluate(*node.operands[i], scope);
      dict.set(std::move(key), evaluate(*node.operands[i + 1], scope));
    }
    return make_dict(std::move(dict));
  }
  Values items;
  for (const auto& operand : node.operands) {
    items.push_back(evaluate(*operand, scope));
  }
  const bool tuple = node.kind == ExpressionKind::tuple;
  return make_sequence(std::move(items), tuple ? Sequence::Flavor::tuple : Sequence::Flavor::list);
}

// Filters and tests; both may have a name that was only looked for now, inside a condition.
Value Interpreter::evaluate_filter(const Expression& node, const ScopePtr& scope) {
  const Value subject = node.operands[0] ? evaluate(*node.operands[0], scope) : block_text_;
  Arguments arguments = evaluate_arguments(node.arguments, scope);
  line_ = node.line;
  if (node.kind == ExpressionKind::filter) {
    const Filter filter = find_filter(node.name);
    if (filter == nullptr) {
      throw_input("No filter named '{}' found.", node.name);
    }
    return filter(subject, arguments);
  }
  const Test test = find_test(node.name);
  if (test == nullptr) {
    throw_input("No test named '{}' found.", node.name);
  }
  return test(subject, arguments);
}

Value Interpreter::evaluate_compare(const Expression& node, const ScopePtr& scope) {
  Value left = evaluate(*node.operands[0], scope);
  for (size_t i = 0; i < node.signs.size(); ++i) {
    Value right = evaluate(*node.operands[i + 1], scope);
    if (!compare(node.signs[i], left, right)) {
      return false;
    }
    left = std::move(right);
  }
  return true;
}

Arguments Interpreter::evaluate_arguments(const CallArguments& given, const ScopePtr& scope) {
  Arguments arguments;
  for (const auto& argument : given.positional) {
    arguments.positional.push_back(evaluate(*argument, scope));
  }
  for (const auto& [name, argument] : given.named) {
    arguments.named.emplace_back(name, evaluate(*argument, scope));
  }
  if (given.star) {
    Values rest = list_of(evaluate(*given.star, scope));
    arguments.positional.insert(arguments.positional.end(), rest.begin(), rest.end());
  }
  if (given.double_star) {
    const Value rest = evaluate(*given.double_star, scope);
    if (rest.dict() == nullptr) {
      throw_input("argument after ** must be a mapping, not {}", type_name(rest));
    }
    for (const auto& [name, value] : rest.dict()->entries()) {
      if (name.text() == nullptr) {
        throw_input("keywords must be strings, not {}", type_name(name));
      }
      arguments.named.emplace_back(*name.text(), value);
    }
  }
  return arguments;
}

Value Interpreter::evaluate_call(const Expression& node, const ScopePtr& scope, const Value* caller) {
  const Value callee = evaluate(*node.operands[0], scope);
  Arguments arguments = evaluate_arguments(node.arguments, scope);
  if (caller != nullptr) {
    arguments.named.emplace_back("caller", *caller);
  }
  line_ = node.line;
  return call(callee, arguments);
}

Value Interpreter::evaluate_conditional(const Expression& node, const ScopePtr& scope) {
  if (truthy(evaluate(*node.operands[0], scope))) {
    return evaluate(*node.operands[1], scope);
  }
  return node.operands[2]
             ? evaluate(*node.operands[2], scope)
             : undefined(fmt::format(
                   "the inline if-expression on line {} evaluated to false and no else section was defined.",
                   node.line));
}

Value Interpreter::evaluate_concat(const Expression& node, const ScopePtr& scope) {
  std::string text;
  for (const auto& operand : node.operands) {
    const std::string part = to_text(evaluate(*operand, scope));
    charge_bytes(part.size());
    text += part;
  }
  return text;
}

}  // namespace shardpipe::text::jinja
