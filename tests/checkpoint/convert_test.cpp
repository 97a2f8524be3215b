#include "checkpoint/convert.h"

#include <ATen/ATen.h>

#include "checkpoint/folder.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_files.h"

namespace shardpipe::checkpoint {
namespace {

TEST(Convert, FloatsTakeTheRunDtypeAndOthersKeepTheirs) {
  const TestFolder folder;
  // Above one block, odd sizes, values that round: compared with torch's own conversion of the whole.
  const at::Tensor big = at::linspace(-3, 70000, 5'000'003, at::kFloat);
  const at::Tensor matrix = at::linspace(-1, 1, 2000 * 2500, at::kFloat).view({2000, 2500});
  write_safetensors(
      folder / "m.safetensors", {{"big", big},
                                 {"matrix", matrix},
                                 {"bfloat", big.narrow(0, 0, 1001).to(at::kBFloat16)},
                                 {"eight", big.narrow(0, 0, 64).to(at::kFloat8_e4m3fn)},
                                 {"scalar", at::scalar_tensor(1.1)},
                                 {"none", at::empty({0, 3})},
                                 {"ids", at::arange(5)},
                                 {"flags", at::ones({5}, at::kBool)},
                                 {"complex", at::complex(at::ones({2}), at::ones({2}))},
                                 {"packed", at::zeros({2}, at::kByte).view(c10::ScalarType::Float4_e2m1fn_x2)}});
  const auto checkpoint = Checkpoint::open(folder / "m.safetensors");
  for (const c10::ScalarType dtype : {at::kHalf, at::kBFloat16, at::kFloat}) {
    for (const char* name : {"big", "matrix", "bfloat", "eight", "scalar", "none"}) {
      const at::Tensor loaded = checkpoint->load(name, dtype);
      EXPECT_EQ(loaded.scalar_type(), dtype) << name;
      EXPECT_TRUE(at::equal(loaded, checkpoint->tensor(name).to(dtype))) << name;
    }
    EXPECT_TRUE(at::equal(checkpoint->load_slice("matrix", 1, 100, 77, dtype), matrix.narrow(1, 100, 77).to(dtype)));
    EXPECT_TRUE(at::equal(checkpoint->load_slice("matrix", 0, 7, 1900, dtype), matrix.narrow(0, 7, 1900).to(dtype)));
    EXPECT_EQ(checkpoint->load("ids", dtype).scalar_type(), at::kLong);
    EXPECT_EQ(checkpoint->load("flags", dtype).scalar_type(), at::kBool);
    EXPECT_EQ(checkpoint->load("complex", dtype).scalar_type(), at::kComplexFloat);
  }
  expect_error(ErrorCode::input, {R"("packed")", "F4", "BFloat16", "m.safetensors"}, [&] {
    checkpoint->load("packed", at::kBFloat16);
  });
}

TEST(Convert, MisalignedTensorsAreConvertedToo) {
  const TestFolder folder;
  const float values[] = {1.5f, -2.25f};
  write_file(
      folder / "m.safetensors", file_bytes(
                                    R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                    R"("w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
                                    join({"x", {reinterpret_cast<const char*>(values), sizeof values}})));
  const auto checkpoint = Checkpoint::open(folder / "m.safetensors");
  EXPECT_TRUE(at::equal(checkpoint->load("w", at::kHalf), at::tensor({1.5, -2.25}).to(at::kHalf)));
}

}  // namespace
}  // namespace shardpipe::checkpoint
