// Refusals of parse_header, each with the values its message must name.
#include "checkpoint/header.h"

#include <fmt/core.h>

#include <chrono>

#include "checkpoint/test_files.h"

namespace shardpipe::checkpoint {
namespace {

Header parse(const std::string& bytes) {
  return parse_header(std::as_bytes(std::span(bytes)), "dir/m.safetensors");
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return join({R"({"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)", offsets, "}"});
}

void expect_refused(const std::string& bytes, std::vector<std::string> parts) {
  parts.emplace_back("dir/m.safetensors");
  expect_error(ErrorCode::input, parts, [&] { parse(bytes); });
}

TEST(Header, AcceptsWhatTheFormatAllows) {
  const std::string header = join(
      {R"( {"__metadata__":{"format":"pt","a\u00e9":"x"},"w":)", entry("F32", "[2,1]", "[0,8]"), R"(,"empty":)",
       entry("I64", "[0,5]", "[8,8]"), R"(,"s":{"later":[{"x":1.5}],"dtype":"U8","shape":[],)",
       R"("data_offsets":[8,9]}}  )"});
  const Header parsed = parse(file_bytes(header, "123456789"));
  ASSERT_EQ(parsed.tensors.size(), 3u);
  EXPECT_EQ(parsed.tensors[0].name, "w");
  EXPECT_EQ(parsed.tensors[0].dtype->type, ElementType::float32);
  EXPECT_EQ(parsed.tensors[0].shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(parsed.tensors[0].offset_bytes, 8 + header.size());
  EXPECT_EQ(parsed.tensors[0].size_bytes, 8u);
  EXPECT_EQ(parsed.tensors[1].size_bytes, 0u);
  EXPECT_TRUE(parsed.tensors[2].shape.empty());
  EXPECT_EQ(parsed.metadata.at("format"), "pt");
  EXPECT_EQ(parsed.metadata.at("a\u00e9"), "x");
  EXPECT_TRUE(parse(file_bytes("{}")).tensors.empty());
  EXPECT_TRUE(parse(file_bytes(R"({"__metadata__":null})")).metadata.empty());
}

TEST(Header, RefusesABadLength) {
  expect_refused("", {"0 bytes", "takes 8"});
  expect_refused(std::string("\1\0\0", 3), {"3 bytes"});
  expect_refused(std::string(8, '\0'), {"length is 0"});
  expect_refused(std::string("\x40\0\0\0\0\0\0\0{}", 10), {"truncated", "ends at byte 72", "has 10"});
  std::string huge(8, '\0');
  const uint64_t length = kMaxHeaderBytes + 1;
  std::memcpy(huge.data(), &length, 8);
  expect_refused(huge, {"100000001 bytes", "limit 100000000"});
  expect_refused(std::string(8, '\xFF'), {"18446744073709551615 bytes"});
  expect_refused("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", {"Git LFS pointer", "git lfs pull"});
}

TEST(Header, RefusesWhatIsNoJson) {
  expect_refused(file_bytes("{"), {"not valid JSON"});
  expect_refused(file_bytes("{} //"), {"not valid JSON"});
  expect_refused(file_bytes("{}{}"), {"not valid JSON"});
  expect_refused(file_bytes(std::string("{}\0\0", 4)), {"not valid JSON", "NUL"});
  expect_refused(file_bytes("\xEF\xBB\xBF{}"), {"not valid JSON", "byte order mark"});
  expect_refused(file_bytes("{\"\xFF\":1}"), {"not valid JSON", "UTF-8"});
  expect_refused(file_bytes(R"({"\ud800":1})"), {"not valid JSON"});
  expect_refused(file_bytes(R"({"a":{"x":1e999}})"), {"not valid JSON", "1e999"});
  expect_refused(file_bytes(join({R"({"a":{"x":)", std::string(126, '[')})), {"nested deeper than 127"});
  expect_refused(file_bytes(std::string(5'000'000, '[')), {"must be a JSON object"});
}

TEST(Header, RefusesAnotherStructure) {
  expect_refused(file_bytes("[]"), {"must be a JSON object", "a list"});
  expect_refused(file_bytes("3"), {"must be a JSON object", "the number 3"});
  expect_refused(file_bytes("true"), {"must be a JSON object", "a boolean"});
  expect_refused(file_bytes(R"({"a":3})"), {R"(tensor "a")", "must be an object", "the number 3"});
  expect_refused(file_bytes(R"({"a":null})"), {R"(tensor "a")", "null"});
  expect_refused(file_bytes(R"({"a":["F32",[1],[0,4]]})"), {R"(tensor "a")", "must be an object", "a list"});
  expect_refused(file_bytes(R"({"a\nb":"\u0007"})"), {R"(tensor "a\u000ab")", R"(the string "\u0007")"});
  expect_refused(file_bytes(R"({"__metadata__":[]})"), {"__metadata__", "object of strings", "a list"});
  expect_refused(file_bytes(R"({"__metadata__":{"k":1}})"), {"__metadata__", R"("k" must be a string)", "number 1"});
  expect_refused(file_bytes(R"({"__metadata__":{"k":{}}})"), {"__metadata__", R"("k" must be a string)", "an object"});
  expect_refused(file_bytes(R"({"__metadata__":{},"__metadata__":{}})"), {R"("__metadata__" appears twice)"});
  const std::string a = entry("U8", "[1]", "[0,1]");
  expect_refused(file_bytes(join({"{\"a\":", a, ",\"a\":", a, "}"}), "1"), {R"("a" appears twice)"});
}

TEST(Header, RefusesABadTensor) {
  const auto refused = [](const std::string& body, std::vector<std::string> parts) {
    parts.emplace_back(R"(tensor "a")");
    expect_refused(file_bytes(join({"{\"a\":", body, "}"}), "1234"), parts);
  };
  refused(R"({"shape":[1],"data_offsets":[0,4]})", {R"(has no "dtype")"});
  refused(R"({"dtype":"F32","data_offsets":[0,4]})", {R"(has no "shape")"});
  refused(R"({"dtype":"F32","shape":[1]})", {R"(has no "data_offsets")"});
  refused(R"({"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})", {R"("dtype" twice)"});
  refused(R"({"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]})", {R"("shape" twice)"});
  refused(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"data_offsets":[0,4]})", {R"("data_offsets" twice)"});
  refused(entry("f32", "[1]", "[0,4]"), {R"(unknown dtype "f32")"});
  refused(entry("C128", "[1]", "[0,4]"), {R"(unknown dtype "C128")"});
  refused(R"({"dtype":32,"shape":[1],"data_offsets":[0,4]})", {R"("dtype" must be a string)", "the number 32"});
  refused(R"({"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]})", {R"("dtype" must be a string)", "an object"});
  refused(entry("F32", "4", "[0,4]"), {R"("shape" must be a list)", "the number 4"});
  refused(entry("F32", "null", "[0,4]"), {R"("shape" must be a list)", "null"});
  refused(entry("F32", "[-1]", "[0,4]"), {"extent", "the number -1"});
  refused(entry("F32", "[-0]", "[0,4]"), {"extent", "the number -0"});
  refused(entry("F32", "[1.0]", "[0,4]"), {"extent", "the number 1.0"});
  refused(entry("F32", "[\"1\"]", "[0,4]"), {"extent", R"(the string "1")"});
  refused(entry("F32", "[[1]]", "[0,4]"), {"extent", "a list"});
  refused(entry("F32", "[0,9223372036854775808]", "[0,0]"), {"2^63-1", "9223372036854775808"});
  refused(entry("F32", "[18446744073709551616]", "[0,0]"), {"2^63-1", "18446744073709551616"});
  refused(entry("F32", "[1]", "4"), {R"("data_offsets" must be a list)"});
  refused(entry("F32", "[1]", "[4]"), {"two integers, found 1"});
  refused(entry("F32", "[1]", "[0,4,4]"), {"two integers, found more"});
  refused(entry("F32", "[1]", "[0,4.0]"), {"data_offsets", "the number 4.0"});
  refused(entry("F32", "[1]", "[-4,0]"), {"data_offsets", "the number -4"});
  std::string dims = "[1";
  for (size_t i = 0; i < kMaxDims; ++i) {
    dims += ",1";
  }
  dims += "]";
  refused(entry("F32", dims, "[0,4]"), {"more than 64 dimensions"});
}

TEST(Header, RefusesBytesThatDoNotFit) {
  const auto refused = [](const std::string& header, std::vector<std::string> parts) {
    expect_refused(file_bytes(header, "12345678"), std::move(parts));
  };
  const auto one = [](const std::string& body) { return join({"{\"a\":", body, "}"}); };
  const auto two = [](const std::string& a, const std::string& b) { return join({"{\"a\":", a, ",\"b\":", b, "}"}); };
  refused(one(entry("F32", "[2]", "[8,0]")), {R"(tensor "a")", "ends at 0 before it begins at 8"});
  refused(one(entry("F32", "[4]", "[0,16]")), {R"(tensor "a")", "ends at 16", "has 8 bytes", "truncated"});
  refused(one(entry("F32", "[1]", "[0,18446744073709551615]")), {R"(tensor "a")", "has 8 bytes"});
  refused(one(entry("F32", "[3]", "[0,8]")), {R"(tensor "a")", "shape [3] in dtype F32 takes 12", "[0, 8] hold 8"});
  refused(one(entry("F32", "[4611686018427387904,8]", "[0,0]")), {R"(tensor "a")", "above 2^64 bits"});
  refused(one(entry("F32", "[2305843009213693952,1]", "[0,0]")), {R"(tensor "a")", "above 2^64 bits"});
  refused(one(entry("F4", "[3]", "[0,1]")), {R"(tensor "a")", "3 elements of 4 bits"});
  refused(one(entry("F32", "[1]", "[0,4]")), {"trailing bytes", "end at 4", "data at 8"});
  refused(one(entry("F32", "[1]", "[4,8]")), {"hole", "from 0 to 4", R"("a")"});
  refused(two(entry("U8", "[2]", "[0,2]"), entry("U8", "[4]", "[4,8]")), {"hole", "from 2 to 4", R"("b")"});
  refused(
      two(entry("U8", "[8]", "[0,8]"), entry("U8", "[4]", "[4,8]")),
      {"overlap", R"("a")", R"("b")", "ends at 8", "begins at 4"});
  refused(two(entry("U8", "[8]", "[0,8]"), entry("U8", "[0]", "[4,4]")), {"overlap"});
  expect_refused(file_bytes("{}", "1"), {"trailing bytes"});
}

// A header of a large model must cost next to nothing, and one with very many names must not take quadratic time.
TEST(Header, ParsesManyTensorsInLinearTime) {
  constexpr int kTensors = 100'000;
  std::string header = "{";
  for (int i = 0; i < kTensors; ++i) {
    header += fmt::format(
        R"("model.layers.{}.mlp.up_proj.weight":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}},)", i, i, i + 1);
  }
  header.back() = '}';
  const std::string bytes = file_bytes(header, std::string(kTensors, 'x'));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse(bytes).tensors.size(), static_cast<size_t>(kTensors));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took.count(), 5.0);  // about 0.1 s; minutes when quadratic
  RecordProperty("milliseconds_per_1000_tensors", std::to_string(took.count() * 1e6 / kTensors));
}

}  // namespace
}  // namespace shardpipe::checkpoint
