#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace shardpipe::text::jinja {

/// One rendering of a template. Statements are in jinja_interpreter.cpp, expressions in jinja_evaluate.cpp.
class Interpreter {
 public:
  Interpreter(const Template& parsed, std::unordered_map<std::string, Value> variables);
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  /// The rendered text. Throws Error(usage) for raise_exception and Error(input) for everything else, naming the line.
  std::string run();

 private:
  struct Scope;
  using ScopePtr = std::shared_ptr<Scope>;
  struct Scope {
    const ScopePlan* plan;
    ScopePtr parent;
    Values slots;  ///< one a slot of the plan; missing while unset
  };
  enum class Flow { normal, break_loop, continue_loop };
  struct Depth {
    explicit Depth(Interpreter& interpreter);
    ~Depth() { --interpreter_.depth_; }
    Interpreter& interpreter_;
  };

  ScopePtr enter(const ScopePlan& plan, const ScopePtr& parent);
  Value context(const std::string& name) const;
  static Value outer_value(const Scope* scope, const std::string& name);

  Flow render(const Block& block, const ScopePtr& scope, std::string& out);
  Flow render_statement(const Statement& statement, const ScopePtr& scope, std::string& out);
  Flow render_condition(const Statement& statement, const ScopePtr& scope, std::string& out);
  void render_output(const Statement& statement, const ScopePtr& scope, std::string& out);
  Flow render_loop(
      const Statement& statement, const Value& iterable, int64_t depth0, const ScopePtr& scope, std::string& out);
  void render_captured(const Statement& statement, const ScopePtr& scope, std::string& out);
  void append_block(const Value& result, std::string& out);
  void render_with(const Statement& statement, const ScopePtr& scope, std::string& out);
  Value make_macro(const Statement& statement, const ScopePtr& scope);
  Value run_macro(const Statement& statement, const ScopePtr& scope, Arguments& arguments);
  void assign(const Expression& target, const Value& value, Scope& scope);
  void check_members(const Expression& target, Scope& scope) const;

  Value evaluate(const Expression& node, const ScopePtr& scope);
  Value evaluate_name(const Expression& node, const Scope* scope) const;
  Value evaluate_container(const Expression& node, const ScopePtr& scope);
  Value evaluate_filter(const Expression& node, const ScopePtr& scope);
  Value evaluate_compare(const Expression& node, const ScopePtr& scope);
  Value evaluate_call(const Expression& node, const ScopePtr& scope, const Value* caller = nullptr);
  Value evaluate_conditional(const Expression& node, const ScopePtr& scope);
  Value evaluate_concat(const Expression& node, const ScopePtr& scope);
  Arguments evaluate_arguments(const CallArguments& arguments, const ScopePtr& scope);

  const Template& parsed_;
  std::deque<Namespace> namespaces_;
  std::unordered_map<std::string, Value> context_;
  std::vector<ScopePtr> kept_;  ///< the scopes that macros were defined in
  Value block_text_;            ///< what the filters of a block start from
  int line_ = 1;
  int depth_ = 0;
};

}  // namespace shardpipe::text::jinja
