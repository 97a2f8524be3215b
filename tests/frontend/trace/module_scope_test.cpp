#include "frontend/trace/module_scope.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <thread>

namespace shardpipe::trace {
namespace {

using Modules = std::map<std::string, std::string>;

TEST(ModuleScope, PathsNest) {
  EXPECT_EQ(ModuleScope::current(), "");
  {
    const ModuleScope model("model", "Model");
    EXPECT_EQ(ModuleScope::current(), "model");
    {
      const ModuleScope layer("layers.3", "Layer");
      EXPECT_EQ(ModuleScope::current(), "model.layers.3");
    }
    const ModuleScope norm("norm", "Norm");
    EXPECT_EQ(ModuleScope::current(), "model.norm");
  }
  EXPECT_EQ(ModuleScope::current(), "");
}

TEST(ModuleScope, ExceptionsCloseScopes) {
  try {
    const ModuleScope model("model", "Model");
    const ModuleScope layer("layer", "Layer");
    throw std::runtime_error("x");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(ModuleScope::current(), "");
}

TEST(ModuleScope, CollectorsNest) {
  Modules outer;
  Modules inner;
  {
    const ModuleScope::Collector collect_outer(outer);
    const ModuleScope model("model", "Model");
    try {
      const ModuleScope::Collector collect_inner(inner);
      const ModuleScope a("a", "A");
      throw std::runtime_error("x");
    } catch (const std::runtime_error&) {
    }
    const ModuleScope b("b", "B");
  }
  const ModuleScope after("after", "After");
  EXPECT_EQ(outer, (Modules{{"model", "Model"}, {"model.b", "B"}}));
  EXPECT_EQ(inner, (Modules{{"model.a", "A"}}));
}

TEST(ModuleScope, ThreadsHaveTheirOwn) {
  Modules modules;
  const ModuleScope::Collector collector(modules);
  const ModuleScope model("model", "Model");
  std::string seen = "unset";
  std::thread([&] {
    const ModuleScope other("other", "Other");
    seen = ModuleScope::current();
  }).join();
  EXPECT_EQ(seen, "other");
  EXPECT_EQ(modules, (Modules{{"model", "Model"}}));
}

}  // namespace
}  // namespace shardpipe::trace
