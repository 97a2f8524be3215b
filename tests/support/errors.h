#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace shardpipe::test {

/// `f` throws shardpipe::Error of that code, whose line contains `text`.
template <typename F>
void expect_error(ErrorCode code, const std::string& text, F f) {
  try {
    f();
    ADD_FAILURE() << "no error; expected one with: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), std::string(to_string(code))) << error.what();
    EXPECT_THAT(error.what(), testing::HasSubstr(text));
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another exception: " << error.what();
  }
}

/// What `f` throws; a failure of the test when it throws nothing.
template <typename F>
Error error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return {ErrorCode::internal, ""};
}

}  // namespace shardpipe::test
