#include "checkpoint/safetensors.h"

#include <ATen/ATen.h>

#include "checkpoint/safetensors_writer.h"
#include "checkpoint/scalar_type.h"
#include "checkpoint/test_files.h"

namespace shardpipe::checkpoint {
namespace {

class Safetensors : public ::testing::Test {
 protected:
  std::shared_ptr<const SafetensorsFile> open(const std::string& header, const std::string& data) {
    write_file(folder_ / "m.safetensors", file_bytes(header, data));
    return SafetensorsFile::open(folder_ / "m.safetensors");
  }
  TestFolder folder_;
};

template <typename T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

TEST_F(Safetensors, TensorsAreViewsThatKeepTheMapping) {
  const std::string header = R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}       )";
  auto file = open(header, raw<float>({1, 2, 3, 4, 5, 6}));
  at::Tensor w = file->tensor("w");
  EXPECT_EQ(w.const_data_ptr(), file->mapping()->bytes().data() + file->info("w").offset_bytes);
  file.reset();
  EXPECT_TRUE(at::equal(w, at::arange(1, 7, at::kFloat).view({2, 3})));
}

TEST_F(Safetensors, SlicesAreViews) {
  const std::string header = R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}       )";
  const auto file = open(header, raw<float>({1, 2, 3, 4, 5, 6}));
  const at::Tensor columns = file->slice("w", 1, 1, 2);
  EXPECT_TRUE(at::equal(columns, at::tensor({2, 3, 5, 6}, at::kFloat).view({2, 2})));
  EXPECT_EQ(
      static_cast<const std::byte*>(columns.const_data_ptr()),
      file->mapping()->bytes().data() + file->info("w").offset_bytes + 4);
  EXPECT_EQ(file->slice("w", 0, 2, 0).numel(), 0);
}

// "U8" of one byte first: everything behind it is misaligned.
TEST_F(Safetensors, MisalignedTensorsAreCopied) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("w":{"dtype":"F64","shape":[2,2],"data_offsets":[1,33]},)"
                             R"("s":{"dtype":"I16","shape":[],"data_offsets":[33,35]},)"
                             R"("e":{"dtype":"I16","shape":[0],"data_offsets":[35,35]}})";
  const auto file = open(header, join({"x", raw<double>({1, 2, 3, 4}), raw<int16_t>({-7})}));
  const at::Tensor w = file->tensor("w");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(w.const_data_ptr()) % 8, 0u);
  EXPECT_TRUE(at::equal(w, at::tensor({1, 2, 3, 4}, at::kDouble).view({2, 2})));
  EXPECT_TRUE(at::equal(file->slice("w", 1, 1, 1), at::tensor({2, 4}, at::kDouble).view({2, 1})));
  EXPECT_EQ(file->tensor("s").item<int64_t>(), -7);
  EXPECT_EQ(file->tensor("s").dim(), 0);
  EXPECT_EQ(file->tensor("e").numel(), 0);
}

TEST_F(Safetensors, BooleansBecomeZeroAndOne) {
  const auto file = open(R"({"m":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}})", std::string("\0\1\2\xFF", 4));
  const at::Tensor m = file->tensor("m");
  EXPECT_EQ(std::memcmp(m.const_data_ptr(), "\0\1\1\1", 4), 0);
  EXPECT_EQ(std::memcmp(file->slice("m", 0, 2, 1).const_data_ptr(), "\1", 1), 0);
  EXPECT_EQ(file->slice("m", 0, 0, 2).const_data_ptr(), file->mapping()->bytes().data() + file->info("m").offset_bytes);
}

TEST_F(Safetensors, EmptyTensorsWithHugeExtents) {
  const auto file = open(R"({"e":{"dtype":"F32","shape":[4611686018427387904,0],"data_offsets":[0,0]}})", "");
  EXPECT_EQ(file->tensor("e").numel(), 0);
}

TEST_F(Safetensors, PackedFourBitTensors) {
  const auto file = open(
      R"({"p":{"dtype":"F4","shape":[2,4],"data_offsets":[0,4]},)"
      R"("odd":{"dtype":"F4","shape":[2,3],"data_offsets":[4,7]}})",
      "abcdefg");
  EXPECT_EQ(file->info("p").shape, (std::vector<int64_t>{2, 4}));
  const at::Tensor packed = file->tensor("p");
  EXPECT_EQ(packed.sizes(), (at::IntArrayRef{2, 2}));
  EXPECT_EQ(packed.scalar_type(), c10::ScalarType::Float4_e2m1fn_x2);
  expect_error(
      ErrorCode::input, {R"("odd")", "even last extent", "[2, 3]", "m.safetensors"}, [&] { file->tensor("odd"); });
}

TEST_F(Safetensors, DtypesWithoutTorchTypeAreListedButNotRead) {
  const auto file = open(R"({"q":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}})", "abc");
  EXPECT_EQ(file->info("q").dtype_name, "F6_E2M3");
  expect_error(
      ErrorCode::input, {R"("q")", "F6_E2M3", "torch does not have", "m.safetensors"}, [&] { file->tensor("q"); });
}

TEST_F(Safetensors, ErrorsNameTensorAndFile) {
  const auto file = open(R"({"input_ids":{"dtype":"I32","shape":[2,1],"data_offsets":[0,8]}})", raw<int32_t>({1, 2}));
  EXPECT_EQ(file->find("inputs"), nullptr);
  expect_error(
      ErrorCode::input, {R"(no tensor "inputs")", "m.safetensors", R"("input_ids")"}, [&] { file->tensor("inputs"); });
  expect_error(ErrorCode::input, {R"("input_ids")", "m.safetensors", "dtype I32", "must be Long"}, [&] {
    file->tensor("input_ids", at::kLong);
  });
  EXPECT_EQ(file->tensor("input_ids", at::kInt).size(0), 2);
  for (const auto& [dim, start, length] :
       {std::tuple{0, 1, 2}, std::tuple{2, 0, 1}, std::tuple{-1, 0, 1}, std::tuple{0, -1, 1}, std::tuple{0, 0, -1}}) {
    expect_error(ErrorCode::input, {"cannot take", R"("input_ids")", "m.safetensors", "shape is [2, 1]"}, [&] {
      file->slice("input_ids", dim, start, length);
    });
  }
  expect_error(ErrorCode::input, {"none.safetensors"}, [&] { SafetensorsFile::open(folder_ / "none.safetensors"); });
  expect_error(ErrorCode::input, {R"(no tensor "x")", "0 tensors include none"}, [&] { open("{}", "")->tensor("x"); });
}

TEST_F(Safetensors, EveryDtypeRoundTrips) {
  for (const char* name :
       {"F64", "F32", "F16",  "BF16", "I64",     "I32",     "I16",         "I8",          "U64",     "U32",
        "U16", "U8",  "BOOL", "C64",  "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "F4"}) {
    const ElementFormat* format = find_safetensors_type(name);
    ASSERT_NE(format, nullptr) << name;
    const c10::ScalarType dtype = to_scalar_type(format->type);
    EXPECT_EQ(to_element_type(dtype), format->type);
    EXPECT_EQ(dtype_name(dtype), name);
    const int64_t width = static_cast<int64_t>(c10::elementSize(dtype));
    const bool boolean = dtype == at::kBool;
    const at::Tensor bytes = at::arange(3 * 2 * width, at::kByte).remainder(boolean ? 2 : 255).view({3, 2 * width});
    write_safetensors(folder_ / "d.safetensors", {{"t", bytes.view(dtype)}});
    const auto file = SafetensorsFile::open(folder_ / "d.safetensors");
    EXPECT_EQ(file->info("t").dtype_name, name);
    const at::Tensor read = file->tensor("t");
    EXPECT_EQ(read.scalar_type(), dtype);
    EXPECT_EQ(read.sizes(), bytes.view(dtype).sizes()) << name;
    EXPECT_TRUE(at::equal(read.view(at::kByte), bytes)) << name;
  }
}

}  // namespace
}  // namespace shardpipe::checkpoint
