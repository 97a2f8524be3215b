#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/json.h"
#include "checkpoint/zip_builder.h"

namespace shardpipe::test {

/// A small exported program that tests can change before it is written: forward(x) = {"y": linear(x, w) + 1, "n": rows
/// of x}, with the module "layers.0" and x [s0, 2].
struct HandMade {
  SortedJson program = SortedJson::parse(R"json({
    "schema_version": {"major": 8, "minor": 20},
    "range_constraints": {"s0": {"min_val": 2, "max_val": 16}},
    "guards_code": [],
    "graph_module": {
      "graph": {
        "inputs": [{"as_tensor": {"name": "p_w"}}, {"as_tensor": {"name": "b_b"}}, {"as_tensor": {"name": "x"}}],
        "outputs": [{"as_tensor": {"name": "add"}}, {"as_sym_int": {"as_name": "sym_size"}}],
        "nodes": [
          {"target": "torch.ops.aten.sym_size.int", "name": "sym_size", "metadata": {},
           "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1},
                      {"name": "dim", "arg": {"as_int": 0}, "kind": 1}],
           "outputs": [{"as_sym_int": {"as_name": "sym_size"}}]},
          {"target": "torch.ops.aten.linear.default", "name": "linear",
           "metadata": {"nn_module_stack": "L__self__,,m.Net;L__self___layers_0,layers.0,torch.nn.modules.linear.Linear"},
           "inputs": [{"name": "input", "arg": {"as_tensor": {"name": "x"}}, "kind": 1},
                      {"name": "weight", "arg": {"as_tensor": {"name": "p_w"}}, "kind": 1},
                      {"name": "bias", "arg": {"as_tensor": {"name": "b_b"}}, "kind": 1}],
           "outputs": [{"as_tensor": {"name": "linear"}}]},
          {"target": "torch.ops.aten.add.Tensor", "name": "add", "metadata": {"nn_module_stack": "L__self__,,m.Net"},
           "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "linear"}}, "kind": 1},
                      {"name": "other", "arg": {"as_int": 1}, "kind": 1}],
           "outputs": [{"as_tensor": {"name": "add"}}]}
        ],
        "tensor_values": {
          "x": {"dtype": 7, "sizes": [{"as_expr": {"expr_str": "Symbol('s0', positive=True, integer=True)"}}, {"as_int": 2}],
                "device": {"type": "cpu", "index": null}},
          "linear": {"dtype": 7, "sizes": [{"as_expr": {"expr_str": "Symbol('s0', positive=True, integer=True)"}}, {"as_int": 3}],
                "device": {"type": "cpu", "index": null}}
        },
        "sym_int_values": {"sym_size": {"as_expr": {"expr_str": "Symbol('s0', positive=True, integer=True)"}}}
      },
      "signature": {
        "input_specs": [{"parameter": {"arg": {"name": "p_w"}, "parameter_name": "layers.0.weight"}},
                        {"buffer": {"arg": {"name": "b_b"}, "buffer_name": "b", "persistent": false}},
                        {"user_input": {"arg": {"as_tensor": {"name": "x"}}}}],
        "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "add"}}}},
                         {"user_output": {"arg": {"as_sym_int": {"as_name": "sym_size"}}}}]
      },
      "module_call_graph": [{"fqn": "", "signature": {
        "in_spec": "[1, {\"type\": \"builtins.tuple\", \"context\": \"null\", \"children_spec\": [{\"type\": \"builtins.tuple\", \"context\": \"null\", \"children_spec\": [{\"type\": null, \"context\": null, \"children_spec\": []}]}, {\"type\": \"builtins.dict\", \"context\": \"[]\", \"children_spec\": []}]}]",
        "out_spec": "[1, {\"type\": \"builtins.dict\", \"context\": \"[\\\"y\\\", \\\"n\\\"]\", \"children_spec\": [{\"type\": null, \"context\": null, \"children_spec\": []}, {\"type\": null, \"context\": null, \"children_spec\": []}]}]",
        "forward_arg_names": ["x"]}}]
    }
  })json");
  SortedJson weights = SortedJson::parse(R"json({"config": {"layers.0.weight": {
    "path_name": "weight_0", "is_param": true, "use_pickle": false, "tensor_meta": {
      "dtype": 7, "sizes": [{"as_int": 3}, {"as_int": 2}], "strides": [{"as_int": 2}, {"as_int": 1}],
      "storage_offset": {"as_int": 0}, "layout": 7, "requires_grad": true}}}})json");
  SortedJson constants = SortedJson::parse(R"json({"config": {"b": {
    "path_name": "tensor_0", "is_param": false, "use_pickle": false, "tensor_meta": {
      "dtype": 7, "sizes": [{"as_int": 3}], "strides": [{"as_int": 1}],
      "storage_offset": {"as_int": 0}, "layout": 7, "requires_grad": false}}}})json");
  std::string weight_data = std::string(24, '\0');
  std::string constant_data = std::string(12, '\0');

  SortedJson& graph() { return program["graph_module"]["graph"]; }
  SortedJson& node(size_t i) { return graph()["nodes"][i]; }

  std::string bytes() const { return bytes_of(program.dump(), weights.dump(), constants.dump()); }
  /// The same with texts that may be no JSON.
  std::string bytes_of(
      const std::string& program_text, const std::string& weights_text, const std::string& constants_text) const {
    return ZipBuilder{}.build(
        {{"m/archive_format", "pt2"},
         {"m/models/model.json", program_text},
         {"m/data/weights/model_weights_config.json", weights_text},
         {"m/data/weights/weight_0", weight_data},
         {"m/data/constants/model_constants_config.json", constants_text},
         {"m/data/constants/tensor_0", constant_data}});
  }
};

/// A file that is removed at the end of the test.
class TestFile {
 public:
  explicit TestFile(const std::string& bytes, const std::string& suffix = ".pt2") {
    std::string name = (std::filesystem::temp_directory_path() / "shardpipe-pt2-XXXXXX").string() + suffix;
    const int fd = ::mkstemps(name.data(), static_cast<int>(suffix.size()));
    if (fd < 0) {
      throw std::runtime_error("cannot make " + name);
    }
    ::close(fd);
    path_ = name;
    write(bytes);
  }
  ~TestFile() { std::filesystem::remove(path_); }
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;
  void write(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace shardpipe::test
