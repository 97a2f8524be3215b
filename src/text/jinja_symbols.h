#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "text/jinja_ast.h"

// After Jinja's idtracking: what the names in one scope are.
namespace shardpipe::text::jinja {

/// `starts` has the names that the scope has a variable for, `stores` those that it writes.
struct Symbols {
  const Symbols* parent = nullptr;
  std::map<std::string, Start> starts;
  std::set<std::string> stores;

  /// Whether a scope around this one has the name.
  bool outside(const std::string& name) const;
  void parameter(const std::string& name);
  void store(const std::string& name);
  void load(const std::string& name);
  /// Takes over the branches of an `if`: a name that only some of them store keeps its outer value in the others.
  void join(const std::vector<Symbols>& branches);
};

/// Collects the names of one scope, in the order of reading; stops where an inner scope begins.
class Collector {
 public:
  explicit Collector(Symbols& symbols) : symbols_(&symbols) {}
  void target(const Expression& node, bool as_parameter);
  void expression(const ExpressionPtr& node);
  void block(const Block& statements);

 private:
  void statement(const Statement& node);
  void condition(const Statement& node);
  Symbols* symbols_;
};

}  // namespace shardpipe::text::jinja
