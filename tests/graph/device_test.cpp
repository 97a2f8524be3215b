#include "graph/device.h"

#include <gtest/gtest.h>

#include "graph/text.h"
#include "support/errors.h"

namespace shardpipe::graph {
namespace {

using test::expect_error;

TEST(Device, NamesAndCounts) {
  EXPECT_EQ(device_type("cpu"), c10::kCPU);
  EXPECT_EQ(device_type("cuda"), c10::kCUDA);
  EXPECT_EQ(device_count(c10::kCPU), 1);
  EXPECT_EQ(find_device("cpu", 3), c10::Device(c10::kCPU));
  for (const char* name : {"", "gpu", "cuda:0", "CPU", "xpu"}) {
    expect_error(
        ErrorCode::usage, fmt::format("--device \"{}\" is not known; hint: use --device cpu or cuda", name),
        [&] { find_device(name, 0); });
  }
}

TEST(Device, WhatNamesTheCpuOrNothingToFollowMoves) {
  const std::string text = R"(shardpipe-graph 1
input %0 "x": float32[2]
#0 %1: tensor = aten::arange(4, none, none, none, none) in ""
#1 %2: tensor = aten::arange(4, none, none, device("cpu"), none) in ""
#2 %3: tensor = aten::zeros_like(%0, none, none, none, none, none) in ""
#3 %4: tensor = aten::new_zeros(%0, ints[2], none, none, device("cpu"), none) in ""
#4 %5: tensor = aten::to.device(%0, device("cpu"), 6, false, false, none) in ""
#5 %6: tensor = aten::scalar_tensor(1, none, none, none, none) in ""
output "a" %1
output "b" %2
output "c" %3
output "d" %4
output "e" %5
output "f" %6
)";
  std::string expected = text;
  const auto replace = [&](const std::string& from, const std::string& to) {
    for (size_t at = expected.find(from); at != std::string::npos; at = expected.find(from, at + to.size())) {
      expected.replace(at, from.size(), to);
    }
  };
  replace("device(\"cpu\")", "device(\"cuda:1\")");
  replace("arange(4, none, none, none,", "arange(4, none, none, device(\"cuda:1\"),");
  replace("scalar_tensor(1, none, none, none,", "scalar_tensor(1, none, none, device(\"cuda:1\"),");
  const Graph graph = parse(text, "test");
  EXPECT_EQ(print(on_device(graph, c10::Device("cuda:1"))), expected);
  EXPECT_EQ(print(graph), text);
}

TEST(Device, BranchesMoveToo) {
  Graph graph = parse("shardpipe-graph 1\ninput %0 \"x\": float32[2]\noutput \"x\" %0\n", "test");
  Node node;
  node.branches = {
      std::make_shared<const Graph>(
          parse("shardpipe-graph 1\n#0 %0: tensor = aten::ones(ints[2], none, none, none, none) in \"\"\n", "a")),
      std::make_shared<const Graph>(
          parse("shardpipe-graph 1\n#0 %0: tensor = aten::rand(ints[2], none, none, none, none) in \"\"\n", "b"))};
  graph.nodes.push_back(node);
  const Graph moved = on_device(graph, c10::Device("cuda:0"));
  for (const auto& branch : moved.nodes[0].branches) {
    EXPECT_NE(print(*branch).find("none, none, device(\"cuda:0\"), none"), std::string::npos) << print(*branch);
  }
}

}  // namespace
}  // namespace shardpipe::graph
