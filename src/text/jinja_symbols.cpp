#include "text/jinja_symbols.h"

#include <algorithm>
#include <iterator>

namespace shardpipe::text::jinja {

bool Symbols::outside(const std::string& name) const {
  return parent != nullptr && (parent->starts.count(name) != 0 || parent->outside(name));
}

void Symbols::parameter(const std::string& name) {
  stores.insert(name);
  starts[name] = Start::parameter;
}

void Symbols::store(const std::string& name) {
  stores.insert(name);
  starts.try_emplace(name, outside(name) ? Start::outer : Start::unset);
}

void Symbols::load(const std::string& name) {
  if (starts.count(name) == 0 && !outside(name)) {
    starts[name] = Start::context;
  }
}

void Symbols::join(const std::vector<Symbols>& branches) {
  std::set<std::string> stored;
  for (const Symbols& branch : branches) {
    std::set_difference(
        branch.stores.begin(), branch.stores.end(), stores.begin(), stores.end(), std::inserter(stored, stored.end()));
  }
  for (const Symbols& branch : branches) {
    for (const auto& [name, start] : branch.starts) {
      starts[name] = start;
    }
    stores.insert(branch.stores.begin(), branch.stores.end());
  }
  for (const std::string& name : stored) {
    starts[name] = outside(name) ? Start::outer : Start::context;
  }
}

void Collector::target(const Expression& node, bool as_parameter) {
  if (node.kind == ExpressionKind::tuple) {
    for (const auto& part : node.operands) {
      target(*part, as_parameter);
    }
  } else if (node.kind == ExpressionKind::member) {
    symbols_->load(node.name);
  } else if (as_parameter) {
    symbols_->parameter(node.name);
  } else {
    symbols_->store(node.name);
  }
}

void Collector::expression(const ExpressionPtr& node) {
  if (!node) {
    return;
  }
  if (node->kind == ExpressionKind::name) {
    symbols_->load(node->name);
  }
  for (const auto& part : node->operands) {
    expression(part);
  }
  for (const auto& part : node->arguments.positional) {
    expression(part);
  }
  for (const auto& [name, part] : node->arguments.named) {
    expression(part);
  }
  expression(node->arguments.star);
  expression(node->arguments.double_star);
}

void Collector::block(const Block& statements) {
  for (const auto& statement : statements) {
    this->statement(*statement);
  }
}

void Collector::statement(const Statement& node) {
  switch (node.kind) {
    case StatementKind::condition:
      condition(node);
      break;
    case StatementKind::assign:
      expression(node.expression);
      target(*node.target, false);
      break;
    case StatementKind::capture:
    case StatementKind::macro:
      target(*node.target, false);
      break;
    case StatementKind::loop:
    case StatementKind::call_block:
    case StatementKind::filter_block:
      expression(node.expression);
      break;
    case StatementKind::output:
    case StatementKind::with:
      for (const auto& part : node.expressions) {
        expression(part);
      }
      break;
    default:
      break;
  }
}

// The first test belongs to the scope itself; each `elif` is an `if` of its own.
void Collector::condition(const Statement& node) {
  expression(node.branches[0].test);
  Symbols* const original = symbols_;
  std::vector<Symbols> branches(3, *original);
  const auto within = [&](Symbols& symbols, const auto& visit) {
    symbols_ = &symbols;
    visit();
    symbols_ = original;
  };
  within(branches[0], [&] { block(node.branches[0].body); });
  for (size_t i = 1; i < node.branches.size(); ++i) {
    if (!node.branches[i].test) {
      within(branches[2], [&] { block(node.branches[i].body); });
      continue;
    }
    within(branches[1], [&] {
      expression(node.branches[i].test);
      Symbols inner = branches[1];
      within(inner, [&] { block(node.branches[i].body); });
      symbols_ = &branches[1];
      symbols_->join({inner});
    });
  }
  original->join(branches);
}

}  // namespace shardpipe::text::jinja
