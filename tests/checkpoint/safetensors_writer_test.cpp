#include "checkpoint/safetensors_writer.h"

#include <ATen/ATen.h>
#include <sys/resource.h>

#include <csignal>

#include "checkpoint/atomic_file.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/test_files.h"

namespace shardpipe::checkpoint {
namespace {

size_t files_in(const std::filesystem::path& folder) {
  const std::filesystem::directory_iterator files(folder);
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

TEST(SafetensorsWriter, RoundTripsAnyTensorAligned) {
  const TestFolder folder;
  const at::Tensor matrix = at::arange(12, at::kFloat).view({3, 4});
  const std::vector<std::pair<std::string, at::Tensor>> tensors = {
      {"flags", at::ones({3}, at::kBool)},
      {"transposed", matrix.t()},
      {"\"quoted\"\n\u00e9", at::scalar_tensor(2.5, at::kDouble)},
      {"column", matrix.select(1, 2)},
      {"empty", at::empty({0, 7}, at::kHalf)},
      {"conjugated", at::complex(matrix, matrix).conj()},
      {"shared", matrix},
  };
  write_safetensors(folder / "m.safetensors", tensors, {{"format", "pt"}, {"step \"1\"", "7\n"}});
  const auto file = SafetensorsFile::open(folder / "m.safetensors");
  ASSERT_EQ(file->tensors().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& info = file->tensors()[i];
    EXPECT_EQ(info.name, tensors[i].first);
    EXPECT_EQ(info.offset_bytes % c10::elementSize(info.dtype), 0u) << info.name;
    EXPECT_TRUE(at::equal(file->tensor(info.name), tensors[i].second)) << info.name;
  }
  EXPECT_EQ(file->metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"step \"1\"", "7\n"}}));
  EXPECT_EQ(files_in(folder.path()), 1u);  // no temporary file stays
}

TEST(SafetensorsWriter, PutsTensorsWhereTheyAreWanted) {
  const TestFolder folder;
  std::vector<LaterTensor> tensors;
  std::vector<at::Tensor> values;
  int in_memory = 0;
  int most = 0;
  for (const auto& [size, place] : {std::pair(3, 4), {16, 8}, {32, 8}, {5, 0}, {64, 60}, {0, 12}, {16, 4}}) {
    values.push_back(at::arange(size, at::kFloat) + place);
    tensors.push_back({"t" + std::to_string(values.size()), at::kFloat, {size}, nullptr, static_cast<size_t>(place)});
    tensors.back().make = [&, value = values.back()] {
      most = std::max(most, ++in_memory);
      const auto release = [&in_memory](void*) { --in_memory; };
      const at::Tensor copy = value.clone();
      return at::from_blob(
          copy.mutable_data_ptr(), copy.sizes(), [copy, release](void* data) { release(data); }, at::kFloat);
    };
  }
  write_placed(folder / "m.safetensors", tensors, {{"rank", "3"}});
  EXPECT_EQ(most, 1);
  const auto file = SafetensorsFile::open(folder / "m.safetensors");
  EXPECT_EQ(file->metadata().at("rank"), "3");
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor tensor = file->tensor(tensors[i].name);
    EXPECT_TRUE(tensor.equal(values[i])) << i;
    EXPECT_EQ(file->info(tensors[i].name).offset_bytes % kPlaceUnit, tensors[i].place) << i;
  }
  tensors[0].shape = {4};
  expect_error(
      ErrorCode::internal, {"the tensor \"t1\" for"}, [&] { write_placed(folder / "m.safetensors", tensors); });
}

TEST(SafetensorsWriter, WritesEmptyLists) {
  const TestFolder folder;
  write_safetensors(folder / "none.safetensors", {});
  write_safetensors(folder / "meta.safetensors", {}, {{"a", "b"}});
  EXPECT_TRUE(SafetensorsFile::open(folder / "none.safetensors")->tensors().empty());
  EXPECT_EQ(SafetensorsFile::open(folder / "meta.safetensors")->metadata().at("a"), "b");
}

TEST(SafetensorsWriter, ReplacesAFileThatIsMapped) {
  const TestFolder folder;
  write_safetensors(folder / "m.safetensors", {{"a", at::zeros({4})}});
  const at::Tensor old = SafetensorsFile::open(folder / "m.safetensors")->tensor("a");
  write_safetensors(folder / "m.safetensors", {{"a", at::ones({2})}});
  EXPECT_TRUE(at::equal(old, at::zeros({4})));
  EXPECT_TRUE(at::equal(SafetensorsFile::open(folder / "m.safetensors")->tensor("a"), at::ones({2})));
}

TEST(SafetensorsWriter, RefusesWhatTheFormatCannotHold) {
  const TestFolder folder;
  const auto refused = [&](const std::string& name, const at::Tensor& tensor, const std::string& why) {
    expect_error(ErrorCode::usage, {"cannot write", why, "m.safetensors"}, [&] {
      write_safetensors(folder / "m.safetensors", {{name, tensor}});
    });
  };
  refused("a", at::zeros({1}, at::kComplexDouble), "no dtype ComplexDouble");
  refused("a", at::Tensor(), "undefined");
  refused("a", at::empty({2}, at::TensorOptions(at::kMeta)), "no data");
  refused("a", at::eye(2).to_sparse(), "not a dense tensor");
  refused("a", at::zeros({1}, at::kByte).view(c10::ScalarType::Float4_e2m1fn_x2)[0], "needs a dimension");
  refused("__metadata__", at::zeros({1}), "taken by the format");
  refused("\xFF", at::zeros({1}), "not UTF-8");
  expect_error(ErrorCode::usage, {R"("a")", "given twice", "m.safetensors"}, [&] {
    write_safetensors(folder / "m.safetensors", {{"a", at::zeros({1})}, {"a", at::zeros({1})}});
  });
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST(AtomicFile, LeavesNothingBehindWhenItFails) {
  const TestFolder folder;
  expect_error(ErrorCode::io, {"cannot create", "none/m.safetensors"}, [&] {
    AtomicFile file(folder / "none" / "m.safetensors");
  });
  std::filesystem::create_directory(folder / "taken");
  expect_error(ErrorCode::io, {"cannot rename to", "taken"}, [&] { AtomicFile(folder / "taken").commit(); });
  { const AtomicFile abandoned(folder / "m.safetensors"); }
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, ReportsAFullDevice) {
  const TestFolder folder;
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Error error = error_of([&] { write_safetensors(folder / "m.safetensors", {{"a", at::zeros({4096})}}); });
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(error.code(), ErrorCode::io);
  EXPECT_NE(error.message().find("cannot write"), std::string::npos) << error.what();
  EXPECT_EQ(files_in(folder.path()), 0u);
}

}  // namespace
}  // namespace shardpipe::checkpoint
