#include "checkpoint/header_json.h"

#include <limits>
#include <unordered_set>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/header.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

constexpr std::string_view kMetadata = "__metadata__";
// The reference refuses what is nested deeper.
constexpr int kMaxDepth = 127;

// Receives the parser's events. The state says inside what the parser is; unknown keys of a tensor are skipped.
class HeaderEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderEvents(const std::string& where) : where_(where) {}
  HeaderJson take() { return std::move(result_); }

  bool null() override {
    if (state_ == State::top && key_ == kMetadata) {
      return true;  // the reference takes it for "none"
    }
    return other("null");
  }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return other(value < 0 ? fmt::format("the number {}", value) : "the number -0");
  }
  bool number_unsigned(number_unsigned_t value) override;
  bool number_float(number_float_t, const string_t& text) override { return other("the number " + text.substr(0, 40)); }
  bool string(string_t& value) override;
  bool binary(binary_t&) override { return other("binary data"); }
  bool start_object(size_t) override;
  bool key(string_t& name) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override;
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    throw_input("the header of {} is not valid JSON: {}", where_, error.what());
  }

 private:
  enum class State { start, top, metadata, tensor, shape, offsets, skip };

  HeaderEntry& entry() { return result_.entries.back(); }
  void enter() {
    if (++depth_ > kMaxDepth) {
      throw_input("the header of {} is nested deeper than {} levels", where_, kMaxDepth);
    }
  }
  // A value that is right only where values are skipped.
  bool other(const std::string& found);
  void require(const char* field, bool present) {
    if (!present) {
      throw_input("tensor {} in {} has no \"{}\"", in_quotes(entry().name), where_, field);
    }
  }

  const std::string& where_;
  HeaderJson result_;
  State state_ = State::start;
  int depth_ = 0;
  int skip_depth_ = 0;  // depth outside of the value being skipped
  std::string key_;     // at top: the tensor's name; in a tensor: the field
  bool seen_metadata_ = false;
  bool seen_shape_ = false;
  bool seen_offsets_ = false;
  std::unordered_set<std::string> names_;
};

bool HeaderEvents::other(const std::string& found) {
  switch (state_) {
    case State::skip:
      return true;
    case State::start:
      throw_input("the header of {} must be a JSON object, found {}", where_, found);
    case State::top:
      if (key_ == kMetadata) {
        throw_input("\"__metadata__\" in {} must be an object of strings, found {}", where_, found);
      }
      throw_input("tensor {} in {} must be an object, found {}", in_quotes(key_), where_, found);
    case State::metadata:
      throw_input("\"__metadata__\" in {}: the value of {} must be a string, found {}", where_, in_quotes(key_), found);
    case State::tensor:
      if (key_ == "dtype") {
        throw_input("tensor {} in {}: \"dtype\" must be a string, found {}", in_quotes(entry().name), where_, found);
      }
      if (key_ == "shape" || key_ == "data_offsets") {
        throw_input("tensor {} in {}: \"{}\" must be a list, found {}", in_quotes(entry().name), where_, key_, found);
      }
      return true;
    case State::shape:
      throw_input(
          "tensor {} in {}: an extent of \"shape\" must be an integer from 0 to 2^63-1, found {}",
          in_quotes(entry().name), where_, found);
    case State::offsets:
      throw_input(
          "tensor {} in {}: \"data_offsets\" must be integers from 0 to 2^64-1, found {}", in_quotes(entry().name),
          where_, found);
  }
  return true;
}

bool HeaderEvents::number_unsigned(number_unsigned_t value) {
  if (state_ == State::shape && value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    if (entry().shape.size() == kMaxDims) {
      throw_input("tensor {} in {} has more than {} dimensions", in_quotes(entry().name), where_, kMaxDims);
    }
    entry().shape.push_back(static_cast<int64_t>(value));
    return true;
  }
  if (state_ == State::offsets) {
    if (entry().offsets.size() == 2) {
      throw_input(
          "tensor {} in {}: \"data_offsets\" must be two integers, found more", in_quotes(entry().name), where_);
    }
    entry().offsets.push_back(value);
    return true;
  }
  return other(fmt::format("the number {}", value));
}

bool HeaderEvents::string(string_t& value) {
  if (state_ == State::metadata) {
    result_.metadata[key_] = std::move(value);
    return true;
  }
  if (state_ == State::tensor && key_ == "dtype") {
    entry().dtype = find_safetensors_type(value);
    if (entry().dtype == nullptr) {
      throw_input("tensor {} in {} has the unknown dtype {}", in_quotes(entry().name), where_, in_quotes(value, 40));
    }
    return true;
  }
  return other("the string " + in_quotes(value, 40));
}

bool HeaderEvents::start_object(size_t) {
  enter();
  if (state_ == State::start) {
    state_ = State::top;
  } else if (state_ == State::top && key_ == kMetadata) {
    state_ = State::metadata;
  } else if (state_ == State::top) {
    state_ = State::tensor;
    seen_shape_ = seen_offsets_ = false;
    result_.entries.emplace_back().name = key_;
  } else {
    other("an object");
    if (state_ == State::tensor) {
      state_ = State::skip;
      skip_depth_ = depth_ - 1;
    }
  }
  return true;
}

bool HeaderEvents::key(string_t& name) {
  if (state_ == State::top) {
    const bool again = name == kMetadata ? std::exchange(seen_metadata_, true) : !names_.insert(name).second;
    if (again) {
      throw_input("{} appears twice in the header of {}", in_quotes(name), where_);
    }
  } else if (state_ == State::tensor) {
    const bool again = (name == "dtype" && entry().dtype != nullptr) || (name == "shape" && seen_shape_) ||
                       (name == "data_offsets" && seen_offsets_);
    if (again) {
      throw_input("tensor {} in {} has \"{}\" twice", in_quotes(entry().name), where_, name);
    }
  }
  if (state_ != State::skip) {
    key_ = std::move(name);
  }
  return true;
}

bool HeaderEvents::end_object() {
  --depth_;
  if (state_ == State::skip) {
    state_ = depth_ == skip_depth_ ? State::tensor : State::skip;
    return true;
  }
  if (state_ == State::tensor) {
    require("dtype", entry().dtype != nullptr);
    require("shape", seen_shape_);
    require("data_offsets", seen_offsets_);
  }
  state_ = State::top;
  return true;
}

bool HeaderEvents::start_array(size_t) {
  enter();
  if (state_ == State::tensor && key_ == "shape") {
    state_ = State::shape;
    seen_shape_ = true;
  } else if (state_ == State::tensor && key_ == "data_offsets") {
    state_ = State::offsets;
    seen_offsets_ = true;
  } else {
    other("a list");
    if (state_ == State::tensor) {
      state_ = State::skip;
      skip_depth_ = depth_ - 1;
    }
  }
  return true;
}

bool HeaderEvents::end_array() {
  --depth_;
  if (state_ == State::skip) {
    state_ = depth_ == skip_depth_ ? State::tensor : State::skip;
    return true;
  }
  if (state_ == State::offsets && entry().offsets.size() != 2) {
    throw_input(
        "tensor {} in {}: \"data_offsets\" must be two integers, found {}", in_quotes(entry().name), where_,
        entry().offsets.size());
  }
  state_ = State::tensor;
  return true;
}

}  // namespace

HeaderJson parse_header_json(std::string_view text, const std::string& where) {
  // The parser would skip a byte order mark, and would take a NUL for the end of the text.
  if (text.starts_with("\xEF\xBB\xBF") || text.find('\0') != std::string_view::npos) {
    throw_input("the header of {} is not valid JSON: it holds a byte order mark or a NUL byte", where);
  }
  HeaderEvents events(where);
  nlohmann::json::sax_parse(text.begin(), text.end(), &events);
  return events.take();
}

}  // namespace shardpipe::checkpoint
