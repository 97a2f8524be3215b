// Gives every name its place, after jinja_symbols.h has found what the scopes have.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja_ast.h"
#include "text/jinja_filters.h"
#include "text/jinja_lexer.h"
#include "text/jinja_symbols.h"

namespace shardpipe::text::jinja {
namespace {

// Second pass: gives each name its place, and goes into the inner scopes.
class Resolver {
 public:
  void scope(
      ScopePlan& plan,
      const Symbols* parent,
      const std::function<void(Collector&, Symbols&)>& collect,
      const std::function<void(const Symbols&)>& visit) {
    Symbols symbols;
    symbols.parent = parent;
    Collector collector(symbols);
    collect(collector, symbols);
    for (const auto& [name, start] : symbols.starts) {
      plan.slots.push_back({name, start});
    }
    const int soft = std::exchange(soft_, 0);
    plans_.push_back(&plan);
    visit(symbols);
    plans_.pop_back();
    soft_ = soft;
  }

  void block(Block& statements, const Symbols& symbols) {
    for (auto& node : statements) {
      statement(*node, symbols);
    }
  }

 private:
  static int slot_of(const ScopePlan& plan, const std::string& name) {
    const auto found = std::lower_bound(
        plan.slots.begin(), plan.slots.end(), name,
        [](const Slot& slot, const std::string& wanted) { return slot.name < wanted; });
    return found != plan.slots.end() && found->name == name ? static_cast<int>(found - plan.slots.begin()) : -1;
  }

  void name(Expression& node) const {
    for (size_t hops = 0; hops < plans_.size(); ++hops) {
      const int slot = slot_of(*plans_[plans_.size() - 1 - hops], node.name);
      if (slot >= 0) {
        node.hops = static_cast<int>(hops);
        node.slot = slot;
        return;
      }
    }
    throw_internal("the name {} of a chat template has no scope", node.name);
  }

  void expression(const ExpressionPtr& node) {
    if (!node) {
      return;
    }
    if (node->kind == ExpressionKind::name || node->kind == ExpressionKind::member) {
      name(*node);
    }
    const bool conditional = node->kind == ExpressionKind::conditional;
    soft_ += conditional ? 1 : 0;
    // An unknown filter or test in a condition fails only if it is reached.
    if (soft_ == 0 && node->kind == ExpressionKind::filter && find_filter(node->name) == nullptr) {
      fail_syntax(fmt::format("no filter named '{}'", node->name), node->line);
    }
    if (soft_ == 0 && node->kind == ExpressionKind::test && find_test(node->name) == nullptr) {
      fail_syntax(fmt::format("no test named '{}'", node->name), node->line);
    }
    expressions(node->operands);
    expressions(node->arguments.positional);
    for (auto& [key, part] : node->arguments.named) {
      expression(part);
    }
    expression(node->arguments.star);
    expression(node->arguments.double_star);
    soft_ -= conditional ? 1 : 0;
  }

  void expressions(std::vector<ExpressionPtr>& nodes) {
    for (auto& node : nodes) {
      expression(node);
    }
  }

  void check_loop_name(const Expression& target) const {
    for (const auto& part : target.operands) {
      check_loop_name(*part);
    }
    if (loops_ > 0 && target.kind == ExpressionKind::name && target.name == "loop") {
      fail_syntax("Can't assign to special loop variable in for-loop target", target.line);
    }
  }

  static ExpressionPtr copy_target(const Expression& target) {
    auto copy = std::make_unique<Expression>();
    copy->kind = target.kind;
    copy->line = target.line;
    copy->name = target.name;
    for (const auto& part : target.operands) {
      copy->operands.push_back(copy_target(*part));
    }
    return copy;
  }

  void inner(ScopePlan& plan, const Symbols& parent, Block& body) {
    scope(
        plan, &parent, [&](Collector& collector, Symbols&) { collector.block(body); },
        [&](const Symbols& symbols) { block(body, symbols); });
  }

  void loop(Statement& node, const Symbols& symbols) {
    expression(node.expression);
    ++loops_;
    check_loop_name(*node.target);
    if (node.test) {
      node.test_target = copy_target(*node.target);
      scope(
          node.test_scope, &symbols,
          [&](Collector& collector, Symbols&) {
            collector.target(*node.target, true);
            collector.expression(node.test);
          },
          [&](const Symbols&) {
            expression(node.test_target);
            expression(node.test);
          });
    }
    scope(
        node.scope, &symbols,
        [&](Collector& collector, Symbols& own) {
          own.parameter("loop");
          collector.target(*node.target, true);
          collector.block(node.body);
        },
        [&](const Symbols& own) {
          expression(node.target);
          node.slot_of_loop = slot_of(node.scope, "loop");
          block(node.body, own);
        });
    inner(node.other_scope, symbols, node.other);
    --loops_;
  }

  void macro(Statement& node, const Symbols& symbols) {
    scope(
        node.scope, &symbols,
        [&](Collector& collector, Symbols& own) {
          for (const auto& [parameter, value] : node.parameters) {
            collector.target(*parameter, true);
          }
          for (const auto& [parameter, value] : node.parameters) {
            collector.expression(value);
          }
          for (const auto& [used, name] :
               {std::pair(node.uses_caller, "caller"), {node.uses_kwargs, "kwargs"}, {node.uses_varargs, "varargs"}}) {
            if (used) {
              own.parameter(name);
            }
          }
          collector.block(node.body);
        },
        [&](const Symbols& own) {
          for (auto& [parameter, value] : node.parameters) {
            expression(parameter);
            expression(value);
          }
          node.slot_of_caller = node.uses_caller ? slot_of(node.scope, "caller") : -1;
          node.slot_of_kwargs = node.uses_kwargs ? slot_of(node.scope, "kwargs") : -1;
          node.slot_of_varargs = node.uses_varargs ? slot_of(node.scope, "varargs") : -1;
          block(node.body, own);
        });
  }

  void statement(Statement& node, const Symbols& symbols) {
    switch (node.kind) {
      case StatementKind::condition:
        ++soft_;
        for (Branch& branch : node.branches) {
          expression(branch.test);
          block(branch.body, symbols);
        }
        --soft_;
        break;
      case StatementKind::loop:
        loop(node, symbols);
        break;
      case StatementKind::macro:
        check_loop_name(*node.target);
        expression(node.target);
        macro(node, symbols);
        break;
      case StatementKind::call_block:
        expression(node.expression);
        macro(node, symbols);
        break;
      case StatementKind::capture:
        check_loop_name(*node.target);
        expression(node.target);
        captured(node, symbols);
        break;
      case StatementKind::filter_block:
        captured(node, symbols);
        break;
      case StatementKind::with:
        expressions(node.expressions);
        scope(
            node.scope, &symbols,
            [&](Collector& collector, Symbols&) {
              for (const auto& target : node.targets) {
                collector.target(*target, true);
              }
              collector.block(node.body);
            },
            [&](const Symbols& own) {
              expressions(node.targets);
              block(node.body, own);
            });
        break;
      case StatementKind::scope:
        inner(node.scope, symbols, node.body);
        break;
      case StatementKind::assign:
        check_loop_name(*node.target);
        [[fallthrough]];
      default:
        expression(node.expression);
        expressions(node.expressions);
        if (node.target) {
          expression(node.target);
        }
    }
  }

  // A block whose text goes through filters, which see the block's own variables.
  void captured(Statement& node, const Symbols& symbols) {
    scope(
        node.scope, &symbols,
        [&](Collector& collector, Symbols&) {
          collector.expression(node.expression);
          collector.block(node.body);
        },
        [&](const Symbols& own) {
          expression(node.expression);
          block(node.body, own);
        });
  }

  std::vector<const ScopePlan*> plans_;
  int loops_ = 0;
  int soft_ = 0;  ///< conditions around the current node, within its scope
};

}  // namespace

void resolve_names(Template& parsed) {
  Resolver resolver;
  resolver.scope(
      parsed.scope, nullptr, [&](Collector& collector, Symbols&) { collector.block(parsed.body); },
      [&](const Symbols& symbols) { resolver.block(parsed.body, symbols); });
}

}  // namespace shardpipe::text::jinja
