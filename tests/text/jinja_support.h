#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "shardpipe/error.h"
#include "text/chat_template.h"

namespace shardpipe::text {

/// The text of a template over the variables s, l, d, a.
inline std::string render(const std::string& source) {
  const Json variables = {{"s", "Hello"}, {"l", {3, 1, 2}}, {"d", {{"k", "v"}, {"n", nullptr}}}, {"a", 3}};
  return ChatTemplate::from_source(source).apply(Json::array(), false, variables);
}

struct Failure {
  std::string source;
  std::string message;  ///< a part of it
  ErrorCode code = ErrorCode::input;
};

/// Expects each template to fail with its message.
inline void expect_failures(const std::vector<Failure>& failures) {
  for (const Failure& failure : failures) {
    try {
      ADD_FAILURE() << failure.source << " gave " << render(failure.source);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), failure.code) << failure.source;
      EXPECT_NE(error.message().find(failure.message), std::string::npos) << failure.source << ": " << error.what();
    }
  }
}

inline void expect_texts(const std::vector<std::pair<std::string, std::string>>& texts) {
  for (const auto& [source, text] : texts) {
    try {
      EXPECT_EQ(render(source), text) << source;
    } catch (const Error& error) {
      ADD_FAILURE() << source << ": " << error.what();
    }
  }
}

}  // namespace shardpipe::text
