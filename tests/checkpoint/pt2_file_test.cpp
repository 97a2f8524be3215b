#include "checkpoint/pt2_file.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cstring>
#include <fstream>

#include "checkpoint/folder.h"
#include "checkpoint/test_files.h"
#include "frontend/pt2/hand_made.h"

namespace shardpipe::checkpoint {
namespace {

using test::HandMade;
using test::TestFile;

SortedJson entry(
    int dtype,
    std::vector<int64_t> sizes,
    std::vector<int64_t> strides,
    int64_t offset,
    const char* record = "weight_0") {
  SortedJson meta = {
      {"dtype", dtype},
      {"sizes", SortedJson::array()},
      {"strides", SortedJson::array()},
      {"storage_offset", {{"as_int", offset}}},
      {"layout", 7},
      {"requires_grad", true}};
  for (const int64_t size : sizes) {
    meta["sizes"].push_back({{"as_int", size}});
  }
  for (const int64_t stride : strides) {
    meta["strides"].push_back({{"as_int", stride}});
  }
  return {{"path_name", record}, {"is_param", true}, {"use_pickle", false}, {"tensor_meta", meta}};
}

// weight_0 holds 0 to 5 as float32.
HandMade with(const std::map<std::string, SortedJson>& tensors) {
  HandMade made;
  const at::Tensor data = at::arange(6, at::kFloat);
  made.weight_data.assign(static_cast<const char*>(data.const_data_ptr()), data.nbytes());
  made.weights["config"] = tensors;
  return made;
}

TEST(Pt2File, TensorsAreViewsOfTheMapping) {
  const TestFile file(with({{"whole", entry(7, {2, 3}, {3, 1}, 0)},
                            {"turned", entry(7, {3, 2}, {1, 3}, 0)},
                            {"tail", entry(7, {2}, {1}, 4)},
                            {"scalar", entry(7, {}, {}, 5)},
                            {"none", entry(7, {0, 4}, {4, 1}, 0)},
                            {"same", entry(7, {100}, {0}, 1)}})
                          .bytes());
  const auto checkpoint = Checkpoint::open(file.path());
  EXPECT_EQ(checkpoint->names(), (std::vector<std::string>{"b", "none", "same", "scalar", "tail", "turned", "whole"}));
  const at::Tensor whole = checkpoint->tensor("whole");
  EXPECT_TRUE(at::equal(whole, at::arange(6, at::kFloat).view({2, 3})));
  EXPECT_TRUE(at::equal(checkpoint->tensor("turned"), whole.t()));
  EXPECT_EQ(checkpoint->tensor("turned").strides(), at::IntArrayRef({1, 3}));
  EXPECT_TRUE(at::equal(checkpoint->tensor("tail"), at::tensor({4.0f, 5.0f})));
  EXPECT_EQ(checkpoint->tensor("scalar").item<double>(), 5.0);
  EXPECT_EQ(checkpoint->tensor("none").sizes(), at::IntArrayRef({0, 4}));
  EXPECT_TRUE(at::equal(checkpoint->tensor("same"), at::ones({100})));
  EXPECT_TRUE(at::equal(checkpoint->slice("turned", 0, 1, 2), whole.t().narrow(0, 1, 2)));
  EXPECT_EQ(checkpoint->info("turned").shape, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(checkpoint->info("turned").dtype_name, "F32");
  EXPECT_EQ(checkpoint->info("tail").size_bytes, 8u);
  EXPECT_EQ(checkpoint->info("tail").offset_bytes, checkpoint->info("whole").offset_bytes + 16);
  for (const char* name : {"whole", "turned", "same", "scalar"}) {
    EXPECT_TRUE(at::equal(checkpoint->load(name, at::kDouble), checkpoint->tensor(name).to(at::kDouble))) << name;
  }
  EXPECT_TRUE(at::equal(checkpoint->load_slice("turned", 1, 0, 1, at::kHalf), whole.t().narrow(1, 0, 1).to(at::kHalf)));
  // One storage: what is written shows in the other views, and not in the file.
  whole.add_(10);
  EXPECT_EQ(checkpoint->tensor("scalar").item<double>(), 15.0);
  EXPECT_EQ(Checkpoint::open(file.path())->tensor("scalar").item<double>(), 5.0);
}

TEST(Pt2File, ConvertingASliceKeepsWhatWasWrittenBehindIt) {
  // Columns of a matrix that ends in the middle of the storage: the last row's stride reaches over what follows.
  constexpr int64_t kRows = 64;
  constexpr int64_t kColumns = 4096;
  HandMade made = with(
      {{"m", entry(7, {kRows, kColumns}, {kColumns, 1}, 0)}, {"next", entry(7, {kColumns}, {1}, kRows * kColumns)}});
  made.weight_data.assign((kRows + 1) * kColumns * 4, '\0');
  const TestFile file(made.bytes());
  const auto checkpoint = Checkpoint::open(file.path());
  checkpoint->tensor("next").fill_(7);
  checkpoint->load_slice("m", 1, kColumns - 8, 8, at::kDouble);
  EXPECT_TRUE(at::equal(checkpoint->tensor("next"), at::full({kColumns}, 7.0f)));
}

TEST(Pt2File, OddRecords) {
  HandMade made = with({{"flags", entry(12, {4}, {1}, 0)}, {"uneven", entry(7, {1}, {1}, 1)}});
  made.weight_data = std::string("\0\1\2\1", 4) + std::string("\0\0\x80\x3f", 4) + "xyz";  // no whole number of floats
  const TestFile file(made.bytes());
  const auto checkpoint = Checkpoint::open(file.path());
  EXPECT_TRUE(at::equal(checkpoint->tensor("flags"), at::tensor({0, 1, 1, 1}).to(at::kBool)));
  EXPECT_EQ(checkpoint->tensor("uneven").item<double>(), 1.0);
  const auto archive = Pt2File::open(file.path());
  EXPECT_EQ(archive->model_name(), "model");
  EXPECT_TRUE(archive->details("flags")->is_parameter);
  EXPECT_FALSE(archive->details("flags")->constant);
  EXPECT_TRUE(archive->details("b")->constant);
  EXPECT_EQ(archive->details("b")->record, "data/constants/tensor_0");
  EXPECT_EQ(archive->details("other"), nullptr);
  for (int number = 0; number < 40; ++number) {
    EXPECT_EQ(exported_dtype(number).has_value(), (number >= 1 && number <= 13) || (number >= 28 && number <= 35))
        << number;
  }
}

TEST(Pt2File, RefusesWhatIsNoArchive) {
  const auto refused = [](const HandMade& made, const std::string& part) {
    const TestFile file(made.bytes());
    expect_error(ErrorCode::input, {file.path().string(), part}, [&] { Pt2File::open(file.path()); });
  };
  const TestFile bin(test::ZipBuilder{}.build({{"m/data.pkl", "x"}}));
  expect_error(
      ErrorCode::input, {"is no torch.export archive: it has no record models/model.json", "torch.export.save"},
      [&] { Pt2File::open(bin.path()); });
  const TestFile two(test::ZipBuilder{}.build({{"m/models/a.json", "x"}, {"m/models/b.json", "x"}}));
  expect_error(
      ErrorCode::input, {"holds 2 programs (\"a\", \"b\"), it must be one"}, [&] { Pt2File::open(two.path()); });
  const TestFile none(test::ZipBuilder{}.build({{"m/models/a.json", "x"}}));
  expect_error(
      ErrorCode::input, {"has no record \"data/weights/a_weights_config.json\""}, [&] { Pt2File::open(none.path()); });
  const TestFile text(HandMade().bytes_of("{}", "no json", "{}"));
  expect_error(ErrorCode::input, {"bad JSON in", "model_weights_config.json"}, [&] { Pt2File::open(text.path()); });
  HandMade made;
  made.weights = {{"config", 3}};
  refused(made, "is damaged: [json.exception.type_error");
  refused(with({{"t", entry(99, {1}, {1}, 0)}}), "tensor \"t\" in");
  refused(with({{"t", entry(99, {1}, {1}, 0)}}), "has dtype number 99, which torch does not have");
  refused(with({{"t", entry(7, {1}, {1}, 0, "weight_9")}}), "no record \"data/weights/weight_9\" for tensor \"t\"");
  refused(
      with({{"t", entry(7, {7}, {1}, 0)}}),
      "tensor \"t\" needs 28 bytes of the record \"data/weights/weight_0\", which has 24");
  refused(with({{"t", entry(7, {2}, {5}, 1)}}), "needs 28 bytes");
  refused(with({{"t", entry(7, {2}, {-1}, 1)}}), "tensor \"t\" has shape [2], strides [-1], offset 1");
  refused(with({{"t", entry(7, {2, 2}, {1}, 0)}}), "has shape [2, 2], strides [1]");
  refused(with({{"t", entry(7, {1}, {1}, -1)}}), "offset -1");
  refused(with({{"t", entry(7, {INT64_MAX, 4}, {0, 0}, 0)}}), "has shape [9223372036854775807, 4]");
  refused(with({{"t", entry(7, {1 << 30}, {0}, 0)}}), "tensor \"t\" in");
  refused(with({{"t", entry(7, {1 << 30}, {0}, 0)}}), "repeats 24 bytes to 4294967296; the limit is 67108864");
}

TEST(Pt2File, RefusesTensorsThatItCannotRead) {
  SortedJson pickled = entry(7, {1}, {1}, 0);
  pickled["use_pickle"] = true;
  SortedJson sparse = entry(7, {1}, {1}, 0);
  sparse["tensor_meta"]["layout"] = 1;
  const TestFile file(with({{"pickled", pickled}, {"sparse", sparse}, {"good", entry(7, {6}, {1}, 0)}}).bytes());
  const auto checkpoint = Checkpoint::open(file.path());
  expect_error(ErrorCode::input, {"tensor \"pickled\" in", "is stored as a Python object, which cannot be read"}, [&] {
    checkpoint->tensor("pickled");
  });
  expect_error(
      ErrorCode::input, {"tensor \"sparse\" in", "is not strided (sparse or packed), which cannot be read"},
      [&] { checkpoint->tensor("sparse"); });
  expect_error(ErrorCode::input, {"no tensor \"god\" in", "\"good\""}, [&] { checkpoint->tensor("god"); });
  expect_error(
      ErrorCode::input, {"cannot take 3 rows from row 4 of dimension 0 of tensor \"good\" in", "its shape is [6]"},
      [&] { checkpoint->slice("good", 0, 4, 3); });
}

TEST(Pt2File, OpensQuicklyAndTouchesWhatIsRead) {
  // A weight of 4.5 GB that is a hole in the file, then the directory.
  constexpr uint64_t kHole = 4'500'000'000;
  const TestFile file("");
  HandMade made;
  made.weights["config"] = {{"w", entry(7, {1'000'000'000}, {1}, 0)}};
  const std::string small = test::ZipBuilder{.zip64 = true, .hole = {"m/data/weights/weight_0", kHole}}.build(
      {{"m/models/model.json", made.program.dump()},
       {"m/data/weights/model_weights_config.json", made.weights.dump()},
       {"m/data/constants/model_constants_config.json", made.constants.dump()},
       {"m/data/constants/tensor_0", made.constant_data},
       {"m/data/weights/weight_0", ""}});
  const size_t directory = small.find("PK\1\2");
  {
    std::ofstream out(file.path(), std::ios::binary);
    out << small.substr(0, directory);
    out.seekp(static_cast<std::streamoff>(directory + kHole));
    out << small.substr(directory);
  }
  const auto start = std::chrono::steady_clock::now();
  const auto checkpoint = Checkpoint::open(file.path());
  const at::Tensor w = checkpoint->tensor("w");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(900));
  EXPECT_EQ(w.numel(), 1'000'000'000);
  EXPECT_EQ(w[999'999'999].item<double>(), 0.0);
  EXPECT_LT(checkpoint->resident_bytes(), 16u << 20);
}

}  // namespace
}  // namespace shardpipe::checkpoint
