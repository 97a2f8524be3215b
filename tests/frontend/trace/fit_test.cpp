#include "frontend/trace/fit.h"

#include <gtest/gtest.h>

#include <set>

#include "graph/fuzz.h"

namespace shardpipe::trace {
namespace {

using graph::Size;

const std::vector<std::string> kNames = {"batch", "seq", "heads", "width"};

std::vector<std::string> names(size_t count) {
  return {kNames.begin(), kNames.begin() + static_cast<int64_t>(count)};
}

// What fit_size() makes of the values of `f` in the first probes and those it asks for.
template <typename F>
std::optional<Size> fit(size_t count, F f) {
  auto runs = first_probe_sizes(names(count));
  for (;;) {
    std::vector<int64_t> values;
    for (const graph::Dimensions& run : runs) {
      values.push_back(f(run));
    }
    auto size = fit_size(names(count), runs, values);
    const auto further = further_probe_sizes(names(count), runs, values);
    if (size || further.empty()) {
      return size;
    }
    runs.insert(runs.end(), further.begin(), further.end());
  }
}

TEST(Fit, ProbesChangeEachDimensionAndAll) {
  EXPECT_EQ(first_probe_sizes({}).size(), 1u);
  EXPECT_EQ(first_probe_sizes(names(1)).size(), 4u);
  auto runs = first_probe_sizes(names(4));
  EXPECT_EQ(runs.size(), 1u + 4 + 2);
  // batch * seq of them: further sizes of batch and of seq, and both changed.
  std::vector<int64_t> values;
  for (const graph::Dimensions& run : runs) {
    values.push_back(run.at("batch") * run.at("seq"));
  }
  const auto further = further_probe_sizes(names(4), runs, values);
  EXPECT_EQ(further.size(), 3u);
  for (const graph::Dimensions& run : further) {
    EXPECT_EQ(run.at("heads"), runs[0].at("heads"));
    EXPECT_EQ(run.at("width"), runs[0].at("width"));
  }
  const graph::Dimensions last = runs.back();
  runs.pop_back();
  runs.insert(runs.end(), further.begin(), further.end());
  for (const std::string& name : kNames) {
    std::set<int64_t> seen;
    for (const graph::Dimensions& run : runs) {
      seen.insert(run.at(name));
    }
    EXPECT_EQ(seen.count(last.at(name)), 0u);  // the last run checks what the others gave
  }
  std::set<int64_t> base;
  for (int i = 0; i < 30; ++i) {
    base.insert(first_probe_sizes([] {
                  std::vector<std::string> many;
                  for (int n = 0; n < 30; ++n) {
                    many.push_back(
                        "d" + std::string(1, static_cast<char>('a' + n % 26)) +
                        std::string(1, static_cast<char>('a' + n / 26)));
                  }
                  return many;
                }())[0]
                    .at("d" + std::string(1, static_cast<char>('a' + i % 26)) +
                        std::string(1, static_cast<char>('a' + i / 26))));
  }
  EXPECT_EQ(base.size(), 30u);
}

TEST(Fit, FindsPolynomialsOfDegreeTwo) {
  for (int seed = 0; seed < test::fuzz_count(1000); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(static_cast<unsigned>(seed));
    const size_t count = 1 + test::draw(random, 4);
    const auto coefficient = [&] {
      return Size(test::draw(random, 3) == 0 ? 0 : static_cast<int64_t>(test::draw(random, 2001)) - 1000);
    };
    Size size = coefficient();
    for (size_t i = 0; i < count; ++i) {
      size = size + coefficient() * Size::symbol(kNames[i]);
      for (size_t j = i; j < count; ++j) {
        size = size + coefficient() * Size::symbol(kNames[i]) * Size::symbol(kNames[j]);
      }
    }
    EXPECT_EQ(fit(count, [&](const graph::Dimensions& run) { return size.evaluate(run); }), size);
  }
}

TEST(Fit, FindsProductsOfPowers) {
  for (const char* text :
       {"batch*seq*heads", "64*batch*seq*heads*width", "batch*seq*seq", "3*batch*seq*seq*heads", "seq*seq*seq",
        "-2*batch*batch*batch"}) {
    const Size size = Size::parse(text);
    EXPECT_EQ(fit(4, [&](const graph::Dimensions& run) { return size.evaluate(run); }), size) << text;
  }
}

TEST(Fit, RefusesTheRest) {
  const auto refused = [](auto f) { EXPECT_EQ(fit(2, f), std::nullopt); };
  refused([](const auto& run) { return run.at("seq") / 2; });
  refused([](const auto& run) { return (run.at("seq") + 1) / 2; });
  refused([](const auto& run) { return run.at("seq") % 2; });
  refused([](const auto& run) { return run.at("seq") * run.at("batch") / 3; });
  refused([](const auto& run) { return (run.at("seq") + 7) / 8 * 8; });
  refused([](const auto& run) { return std::max(run.at("seq"), run.at("batch") + 6); });
  refused([](const auto& run) { return std::min(run.at("seq"), int64_t{14}); });
  refused([](const auto& run) { return run.at("seq") * run.at("seq") * run.at("batch") + 1; });
  refused([](const auto& run) { return int64_t{1} << run.at("seq"); });
  refused([](const auto& run) { return std::numeric_limits<int64_t>::max() - run.at("seq"); });
  refused([](const auto& run) { return std::numeric_limits<int64_t>::min() + run.at("seq"); });
}

TEST(Fit, ConstantsMayBeAnyNumber) {
  for (const int64_t number :
       {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
    EXPECT_EQ(fit(2, [&](const auto&) { return number; }), Size(number));
    EXPECT_EQ(fit(0, [&](const auto&) { return number; }), Size(number));
  }
}

}  // namespace
}  // namespace shardpipe::trace
