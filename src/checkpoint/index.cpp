#include "checkpoint/index.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

constexpr int kMaxDepth = 256;

// Receives the parser's events and keeps {"weight_map": {string: string}}; other keys are skipped. A document tree with
// a hundred thousand keys would take seconds.
class IndexEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit IndexEvents(const std::string& where) : where_(where) {}
  ShardIndex take() {
    if (!seen_map_) {
      throw_input("{} has no \"weight_map\"", where_);
    }
    return std::move(result_);
  }

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(number_integer_t) override { return other("a number"); }
  bool number_unsigned(number_unsigned_t) override { return other("a number"); }
  bool number_float(number_float_t, const string_t&) override { return other("a number"); }
  bool binary(binary_t&) override { return other("binary data"); }
  bool start_array(size_t) override { return open("a list"); }
  bool end_array() override { return close(); }
  bool end_object() override { return close(); }

  bool start_object(size_t) override {
    if (depth_ == 0) {
      depth_ = 1;
      return true;
    }
    if (depth_ == 1 && key_ == "weight_map") {
      if (std::exchange(seen_map_, true)) {
        throw_input("{} has \"weight_map\" twice", where_);
      }
      in_map_ = true;
      depth_ = 2;
      return true;
    }
    return open("an object");
  }

  bool key(string_t& name) override {
    if (depth_ == 1 || in_map_) {
      key_ = std::move(name);
    }
    return true;
  }

  bool string(string_t& value) override {
    if (!in_map_) {
      return other("a string");
    }
    check_file_name(value);
    const auto [file, added] = files_.try_emplace(value, result_.files.size());
    if (added) {
      result_.files.push_back(value);
    }
    if (!result_.tensors.emplace(key_, file->second).second) {
      throw_input("{} names the tensor {} twice", where_, in_quotes(key_));
    }
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    throw_input("{} is not valid JSON: {}", where_, error.what());
  }

 private:
  // A value that is right only outside of the map.
  bool other(const char* found) {
    if (depth_ == 0) {
      throw_input("{} must be a JSON object, found {}", where_, found);
    }
    if (in_map_) {
      throw_input("{}: the file of tensor {} must be a string, found {}", where_, in_quotes(key_), found);
    }
    if (depth_ == 1 && key_ == "weight_map") {
      throw_input("{}: \"weight_map\" must be an object, found {}", where_, found);
    }
    return true;
  }
  bool open(const char* found) {
    other(found);
    if (++depth_ > kMaxDepth) {
      throw_input("{} is nested deeper than {} levels", where_, kMaxDepth);
    }
    return true;
  }
  bool close() {
    --depth_;
    in_map_ = false;
    return true;
  }
  // A file of the folder itself: an index of any origin must not make us read elsewhere.
  void check_file_name(const std::string& file) const {
    const bool control = std::any_of(file.begin(), file.end(), [](unsigned char c) { return c < 0x20; });
    if (file.empty() || file == "." || file == ".." || file.find_first_of("/\\") != std::string::npos || control) {
      throw_input(
          "{} places tensor {} in {}: it must be the name of a file in the same folder", where_, in_quotes(key_),
          in_quotes(file));
    }
  }

  const std::string& where_;
  ShardIndex result_;
  std::unordered_map<std::string, size_t> files_;
  std::string key_;
  int depth_ = 0;
  bool in_map_ = false;
  bool seen_map_ = false;
};

}  // namespace

ShardIndex read_shard_index(const std::filesystem::path& path) {
  const std::string where = path.string();
  const std::string text = read_file(path);
  IndexEvents events(where);
  nlohmann::json::sax_parse(text, &events);
  return events.take();
}

}  // namespace shardpipe::checkpoint
