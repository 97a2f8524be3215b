#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/pt2_file.h"
#include "checkpoint/text.h"
#include "frontend/pt2/exported.h"
#include "frontend/pt2/functional.h"
#include "frontend/pt2/nodes.h"
#include "frontend/pt2/tidy.h"
#include "frontend/pt2/tree.h"
#include "graph/verify.h"

namespace shardpipe::pt2 {
namespace {

using checkpoint::in_quotes;
using graph::Argument;
using graph::Value;
using graph::ValueId;
using graph::ValueKind;
using graph::ValueType;

constexpr int64_t kSchemaMajor = 8;

class Loader {
 public:
  explicit Loader(const std::filesystem::path& path) : file_(checkpoint::Pt2File::open(path)) { model_.path = path; }

  ExportedModel load() {
    const std::string record = "models/" + file_->model_name() + ".json";
    document_ = parse_sorted_json(file_->archive().text(record), record);
    check_version();
    const Document& module = document_.at("graph_module");
    exported_ = &module.at("graph");
    if (const std::vector<std::string> unknown = unknown_operators(*exported_); !unknown.empty()) {
      throw Error(
          ErrorCode::input, fmt::format("LibTorch has no operator {}", fmt::join(first_of(unknown, 5), ", ")),
          "operators that Python registers must be replaced before the export, or decomposed with "
          "run_decompositions()");
    }
    read_names(module);
    const Document& signature = module.at("signature");
    const auto& specs = list_of(signature.at("input_specs"));
    name_symbols(specs);
    builder_.emplace(symbols_, device());
    add_inputs(specs);
    builder_->add(model_.graph, *exported_, scope_, {});
    add_outputs(list_of(signature.at("output_specs")));
    tidy();
    read_limits();
    return std::move(model_);
  }

 private:
  static std::vector<std::string> first_of(const std::vector<std::string>& all, size_t count) {
    std::vector<std::string> some(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(count, all.size())));
    if (all.size() > count) {
      some.push_back(fmt::format("and {} more", all.size() - count));
    }
    return some;
  }

  void check_version() const {
    const int64_t major = integer_of(document_.at("schema_version").at("major"));
    if (major != kSchemaMajor) {
      throw Error(
          ErrorCode::input, fmt::format("schema version {}, this program reads version {}", major, kSchemaMajor),
          "export it with PyTorch 2.8 to 2.13");
    }
  }

  // Where the program was exported: of any tensor.
  std::string device() const {
    const auto values = exported_->find("tensor_values");
    return values == exported_->end() || values->empty() ? "cpu" : text_of(values->begin()->at("device").at("type"));
  }

  // Names of inputs and outputs from the call specification of the outermost module.
  void read_names(const Document& module) {
    for (const Document& entry : list_of(module.at("module_call_graph"))) {
      const auto signature = entry.find("signature");
      if (!text_of(entry.at("fqn")).empty() || signature == entry.end() || signature->is_null()) {
        continue;
      }
      std::vector<std::string> forward;
      const auto names = signature->find("forward_arg_names");
      if (names != signature->end() && names->is_array()) {
        for (const Document& name : *names) {
          forward.push_back(text_of(name));
        }
      }
      input_names_ = input_names(text_of(signature->at("in_spec")), forward);
      output_names_ = output_names(text_of(signature->at("out_spec")));
      return;
    }
  }

  // What the user gives, in order: (position in the specs, name of the input). The placeholder's name serves where the
  // call specification is another than the signature.
  std::vector<std::pair<size_t, std::string>> user_inputs(const Document::array_t& specs) const {
    std::vector<std::pair<size_t, std::string>> result;
    for (size_t i = 0; i < specs.size(); ++i) {
      const auto [kind, spec] = union_of(specs[i]);
      if (kind == "user_input") {
        const auto [type, value] = union_of(spec.at("arg"));
        const bool named = value.is_object() && (value.contains("name") || value.contains("as_name"));
        result.emplace_back(
            i, !named ? fmt::format("input{}", result.size())
                      : text_of(value.contains("name") ? value.at("name") : value.at("as_name")));
      } else if (kind == "constant_input") {
        result.emplace_back(i, text_of(spec.at("name")));
      }
    }
    if (input_names_.size() == result.size()) {
      for (size_t i = 0; i < result.size(); ++i) {
        result[i].second = input_names_[i];
      }
    }
    return result;
  }

  void name_symbols(const Document::array_t& specs) {
    // Extents that are a symbol name it before those that are computed from one.
    for (const auto& [position, name] : user_inputs(specs)) {
      const auto [kind, spec] = union_of(specs[position]);
      if (kind != "user_input") {
        continue;
      }
      const auto [type, value] = union_of(spec.at("arg"));
      if (type == "as_tensor") {
        const auto& extents = list_of(exported_->at("tensor_values").at(text_of(value.at("name"))).at("sizes"));
        for (size_t dim = 0; dim < extents.size(); ++dim) {
          extents_.emplace_back(&extents[dim], fmt::format("{}_dim{}", name, dim));
        }
      } else if (type == "as_sym_int" && value.contains("as_name")) {
        extents_.emplace_back(&exported_->at("sym_int_values").at(text_of(value.at("as_name"))), name);
      }
    }
    for (const bool plain : {true, false}) {
      for (const auto& [extent, name] : extents_) {
        const bool is_symbol =
            extent->contains("as_expr") && text_of(extent->at("as_expr").at("expr_str")).starts_with("Symbol(");
        if (is_symbol == plain) {
          symbols_.name(*extent, name);
        }
      }
    }
    model_.graph.dimensions = symbols_.dimensions();
  }

  void add_inputs(const Document::array_t& specs) {
    std::map<size_t, std::string> names;
    for (auto& [position, name] : user_inputs(specs)) {
      names.emplace(position, std::move(name));
    }
    for (const auto& [position, name] : names) {
      taken_.insert(name);
    }
    for (size_t i = 0; i < specs.size(); ++i) {
      const auto [kind, spec] = union_of(specs[i]);
      if (kind == "user_input") {
        add_user_input(spec.at("arg"), names.at(i));
      } else if (kind == "constant_input") {
        model_.constant_inputs.push_back({names.at(i), *plain_argument(spec.at("value"), scope_).as_constant()});
      } else if (kind == "parameter") {
        add_tensor(ValueKind::parameter, text_of(spec.at("parameter_name")), text_of(spec.at("arg").at("name")));
      } else if (kind == "buffer") {
        add_tensor(ValueKind::buffer, text_of(spec.at("buffer_name")), text_of(spec.at("arg").at("name")));
      } else if (kind == "tensor_constant") {
        add_tensor(ValueKind::buffer, text_of(spec.at("tensor_constant_name")), text_of(spec.at("arg").at("name")));
      } else {
        throw_input("an input of kind {}, which this version does not run", kind);
      }
    }
    for (std::vector<std::string>* list : {&model_.without_data, &model_.not_persistent, &model_.frozen}) {
      std::sort(list->begin(), list->end());
    }
  }

  void add_user_input(const Document& argument, const std::string& name) {
    const auto [kind, described] = union_of(argument);
    const bool tensor = kind == "as_tensor";
    if (!tensor &&
        !((kind == "as_sym_int" || kind == "as_sym_float" || kind == "as_sym_bool") && described.contains("as_name"))) {
      // A number that was passed in is a constant of the program.
      const Argument constant = plain_argument(argument, scope_);
      if (constant.as_constant() == nullptr) {
        throw_input("the input {} is of kind {}, which this version does not run", in_quotes(name), kind);
      }
      model_.constant_inputs.push_back({name, *constant.as_constant()});
      return;
    }
    Value value;
    value.kind = ValueKind::input;
    value.type = tensor                  ? ValueType::tensor
                 : kind == "as_sym_int"  ? ValueType::integer
                 : kind == "as_sym_bool" ? ValueType::boolean
                                         : ValueType::number;
    value.name = name;
    const std::string& inner = text_of(described.at(tensor ? "name" : "as_name"));
    builder_->describe(value, inner, *exported_);
    ExportedInput input{name, graph::kNoValue, value.type, value.dtype, value.shape};
    if (kind == "as_sym_int") {
      const auto size = symbols_.size(exported_->at("sym_int_values").at(inner));
      input.shape = size ? std::optional<graph::Shape>({*size}) : std::nullopt;
    }
    input.value = model_.graph.add_value(std::move(value));
    model_.graph.inputs.push_back(input.value);
    scope_.insert_or_assign(inner, Argument::value(input.value));
    model_.inputs.push_back(std::move(input));
  }

  // A parameter, buffer or constant `fqn` that nodes call `inner`. Names of one tensor become one value.
  void add_tensor(ValueKind kind, const std::string& fqn, const std::string& inner) {
    const checkpoint::TensorInfo* info = file_->find(fqn);
    const checkpoint::Pt2Tensor* details = file_->details(fqn);
    if (info == nullptr) {
      throw_input("the archive lists no weight or constant {}", in_quotes(fqn));
    }
    if (!details->problem.empty()) {
      throw_input("tensor {} {}, which cannot be read", in_quotes(fqn), details->problem);
    }
    const auto bytes = std::tuple(details->record, info->dtype, info->shape, details->strides, details->storage_offset);
    if (const auto known = by_bytes_.find(bytes);
        details->has_data && info->size_bytes > 0 && known != by_bytes_.end()) {
      model_.graph.values[static_cast<size_t>(known->second)].tied_names.push_back(fqn);
      taken_.insert(fqn);
      scope_.insert_or_assign(inner, Argument::value(known->second));
      return;
    }
    Value value;
    value.kind = kind;
    // An input of the same name keeps it.
    value.name = fqn;
    while (!taken_.insert(value.name).second) {
      value.name += kind == ValueKind::parameter ? ".parameter" : ".buffer";
    }
    value.dtype = info->dtype;
    value.shape = graph::Shape(info->shape.begin(), info->shape.end());
    model_.weights.emplace(value.name, fqn);
    if (!details->has_data) {
      model_.without_data.push_back(value.name);
    }
    if (details->constant) {
      model_.not_persistent.push_back(value.name);
    }
    if (kind == ValueKind::parameter && !details->requires_grad) {
      model_.frozen.push_back(value.name);
    }
    const ValueId id = model_.graph.add_value(std::move(value));
    by_bytes_.emplace(bytes, id);
    scope_.insert_or_assign(inner, Argument::value(id));
  }

  void add_outputs(const Document::array_t& specs) {
    const auto& arguments = list_of(exported_->at("outputs"));
    if (arguments.size() != specs.size()) {
      throw_input("{} outputs, the signature has {}", arguments.size(), specs.size());
    }
    const auto is_user = [](const Document& spec) {
      const auto [kind, value] = union_of(spec);
      return kind == "user_output" || kind == "loss_output";
    };
    const auto num_user = static_cast<size_t>(std::count_if(specs.begin(), specs.end(), is_user));
    size_t user = 0;
    std::set<std::string> names;
    for (size_t i = 0; i < specs.size(); ++i) {
      const auto [kind, spec] = union_of(specs[i]);
      const Argument argument = plain_argument(arguments[i], scope_);
      if (is_user(specs[i])) {
        std::string name = output_names_.size() == num_user ? output_names_[user] : std::to_string(user);
        ++user;
        const c10::IValue* constant = argument.as_constant();
        if (constant != nullptr && (constant->isNone() || constant->isString())) {
          continue;  // neither can be in a file of tensors
        }
        while (!names.insert(name).second) {
          name += "_";
        }
        model_.graph.outputs.push_back({name, builder_->value_of(model_.graph, argument, "")});
      } else if (kind == "buffer_mutation" || kind == "parameter_mutation") {
        const bool buffer = kind == "buffer_mutation";
        const std::string& name = text_of(spec.at(buffer ? "buffer_name" : "parameter_name"));
        const ValueId state = model_.graph.find(name);
        if (state == graph::kNoValue || argument.as_value() == nullptr) {
          throw_input("the output {} changes {}, which is no tensor of the program", i, in_quotes(name));
        }
        updates_.push_back({state, *argument.as_value()});
      } else if (kind != "user_input_mutation" && kind != "token") {
        throw_input("an output of kind {}, which this version does not run", kind);
      }
    }
  }

  void tidy() {
    for (const graph::Update& update : updates_) {
      make_state(model_.graph, update.state, model_.frozen);
      if (update.value != update.state) {
        model_.graph.updates.push_back(update);
      }
    }
    make_states(model_.graph, model_.frozen, [&] { return builder_->unplaced_node(); });
    make_functional(model_.graph);
    drop_unused_numbers(model_.graph);
    builder_->set_modules(model_.graph);
    graph::verify(model_.graph, "loading");
  }

  void read_limits() {
    const auto ranges = document_.find("range_constraints");
    if (ranges != document_.end() && ranges->is_object()) {
      for (const auto& [text, range] : ranges->items()) {
        const std::optional<graph::Size> size = symbols_.plain_size(text);
        if (!size || size->is_constant()) {
          continue;  // of a size that no input shows
        }
        DimensionRange limits;
        const auto min = range.find("min_val");
        const auto max = range.find("max_val");
        limits.min = min == range.end() || min->is_null() ? 0 : integer_of(*min);
        if (max != range.end() && !max->is_null()) {
          limits.max = integer_of(*max);
        }
        model_.ranges.emplace(size->str(), limits);
      }
    }
    const auto guards = document_.find("guards_code");
    if (guards != document_.end() && guards->is_array()) {
      for (const Document& guard : *guards) {
        model_.guards.push_back(text_of(guard));
      }
    }
  }

  using Bytes = std::tuple<std::string, c10::ScalarType, std::vector<int64_t>, std::vector<int64_t>, int64_t>;

  std::shared_ptr<const checkpoint::Pt2File> file_;
  Document document_;
  const Document* exported_ = nullptr;  // the graph in document_
  ExportedModel model_;
  Symbols symbols_;
  std::optional<NodeBuilder> builder_;
  Scope scope_;
  std::vector<std::pair<const Document*, std::string>> extents_;
  std::vector<std::string> input_names_;   // empty: not known
  std::vector<std::string> output_names_;  // empty: not known
  std::set<std::string> taken_;            // names of inputs and tensors
  std::map<Bytes, ValueId> by_bytes_;
  std::vector<graph::Update> updates_;
};

}  // namespace

ExportedModel load_exported(const std::filesystem::path& path) {
  const std::string where = path.string();
  const auto refuse = [&](const std::string& message, const std::string& hint) {
    const bool names_file = message.find(where) != std::string::npos;
    throw Error(ErrorCode::input, names_file ? message : fmt::format("cannot load {}: {}", where, message), hint);
  };
  try {
    return Loader(path).load();
  } catch (const Error& error) {
    // What a file leads to is the file's fault: verify() and the operators' names know no files.
    refuse(error.message(), error.hint());
  } catch (const Document::exception& error) {
    refuse(fmt::format("it is damaged: {}", error.what()), "");
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    refuse(text.substr(0, text.find('\n')), "");
  }
  throw_internal("unreachable");
}

bool is_exported(const std::filesystem::path& path) {
  std::error_code error;
  return path.extension() == ".pt2" && std::filesystem::is_regular_file(path, error);
}

}  // namespace shardpipe::pt2
