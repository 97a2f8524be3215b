#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

// What the parser makes of a template. Every node knows its line (from 1).
namespace shardpipe::text::jinja {

enum class ExpressionKind {
  constant,     ///< value
  name,         ///< name, and where it lives: hops, slot
  member,       ///< target only: the attribute `attribute` of the namespace `name`
  tuple,        ///< operands; as a target too
  list,         ///< operands
  dict,         ///< operands: key, value, key, value, ...
  attribute,    ///< operands[0].name
  item,         ///< operands[0][operands[1]]
  slice,        ///< operands[0][a:b:c], absent bounds null
  call,         ///< operands[0](arguments)
  filter,       ///< operands[0] | name(arguments); operands[0] null: the text of the enclosing block
  test,         ///< operands[0] is name(arguments)
  negate,       ///< -operands[0]
  positive,     ///< +operands[0]
  logical_not,  ///< not operands[0]
  logical_and,
  logical_or,
  conditional,  ///< operands[1] if operands[0] else operands[2] (null: undefined)
  compare,      ///< operands joined by signs, as in a < b <= c
  arithmetic,   ///< operands[0] name operands[1]
  concat,       ///< the texts of operands, joined
};

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr star, double_star;
};

struct Expression {
  ExpressionKind kind;
  int line;
  std::string name;
  std::string attribute;
  Value value;
  std::vector<ExpressionPtr> operands;
  std::vector<std::string> signs;
  CallArguments arguments;
  int depth = 1;  ///< 1 + the deepest operand's
  int hops = 0;   ///< scopes outwards
  int slot = 0;   ///< place in that scope
};

/// How a scope starts a variable.
enum class Start { unset, parameter, context, outer };
struct Slot {
  std::string name;
  Start start = Start::unset;
};

/// The variables of one scope, found by resolve_names().
struct ScopePlan {
  std::vector<Slot> slots;
};

enum class StatementKind {
  output,      ///< text, then expressions
  condition,   ///< branches; a null test is `else`
  loop,        ///< for target in expression [if test] [recursive]: body, else other
  assign,      ///< target = expression
  capture,     ///< {% set target | filters %} body
  macro,       ///< name(parameters): body
  call_block,  ///< {% call(parameters) expression %} body
  filter_block,
  with,   ///< targets = values: body
  scope,  ///< {% generation %} body
  break_loop,
  continue_loop,
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

struct Branch {
  ExpressionPtr test;
  Block body;
};

struct Statement {
  StatementKind kind;
  int line;
  std::string text;  ///< of output; name of a macro
  std::vector<ExpressionPtr> expressions;
  ExpressionPtr target, expression, test;
  ExpressionPtr test_target;  ///< a loop's target in the scope of its test
  std::vector<Branch> branches;
  Block body, other;
  bool recursive = false;
  std::vector<ExpressionPtr> targets;                               ///< of with
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> parameters;  ///< of macro and call block: name, default or null
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
  ScopePlan scope;        ///< of body
  ScopePlan test_scope;   ///< of a loop's test
  ScopePlan other_scope;  ///< of a loop's else
  int slot_of_loop = -1, slot_of_caller = -1, slot_of_kwargs = -1, slot_of_varargs = -1;
};

struct Template {
  Block body;
  ScopePlan scope;
};

/// Parses a template. Throws Error(input) naming the line for anything that Jinja would refuse to compile, for what is
/// not supported (block, extends, include, import, from, autoescape) and for nesting beyond kMaxSyntaxDepth.
Template parse(std::string_view source);

/// Finds for every name which scope's variable it is, by Jinja's rules: a scope that stores a name anywhere has its own
/// variable, started with the value the name had outside. Throws Error(input) for a store to `loop` inside a loop.
void resolve_names(Template& parsed);

}  // namespace shardpipe::text::jinja
