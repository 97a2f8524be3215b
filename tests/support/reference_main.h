#pragma once

// The start of programs that compare with what Python left in a folder.
#include <gtest/gtest.h>

#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>

namespace shardpipe::test {

/// Runs the tests of a program that is given the folder alone, after `prepare(folder)`.
inline int reference_main(int argc, char** argv, const std::function<void(const std::filesystem::path&)>& prepare) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  try {
    prepare(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return RUN_ALL_TESTS();
}

/// Registers a test for each folder in `folder` that holds `file`. Throws when there is none.
template <typename Comparison>
void register_folders(const std::string& suite, const std::filesystem::path& folder, const std::string& file) {
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::filesystem::path& path = entry.path();
    if (std::filesystem::exists(path / file)) {
      ::testing::RegisterTest(
          suite.c_str(), path.filename().c_str(), nullptr, nullptr, __FILE__, __LINE__,
          [path]() -> ::testing::Test* { return new Comparison(path); });
      ++found;
    }
  }
  if (found == 0) {
    throw std::runtime_error("no " + file + " in the folders of " + folder.string());
  }
}

}  // namespace shardpipe::test
