#include "checkpoint/folder.h"

#include <ATen/ATen.h>

#include <thread>

#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_files.h"

namespace shardpipe::checkpoint {
namespace {

class Folder : public ::testing::Test {
 protected:
  void write_index(const std::string& text) { write_file(folder_ / "model.safetensors.index.json", text); }
  void write_shards() {
    write_safetensors(folder_ / "one.safetensors", {{"a", at::full({2}, 1.0)}, {"b", at::full({3}, 2, at::kLong)}});
    write_safetensors(folder_ / "two.safetensors", {{"c", at::full({4}, 3.0)}});
    write_index(R"({"metadata":{"total_size":1,"nested":[{"x":[]}]},)"
                R"("weight_map":{"c":"two.safetensors","a":"one.safetensors","b":"one.safetensors"}})");
  }
  std::shared_ptr<const Checkpoint> open() { return Checkpoint::open(folder_.path()); }
  void expect_refused(const std::string& index, std::vector<std::string> parts) {
    write_index(index);
    parts.emplace_back("model.safetensors.index.json");
    expect_error(ErrorCode::input, parts, [&] { open(); });
  }
  TestFolder folder_;
};

TEST_F(Folder, SingleFileAndFolderAgree) {
  write_safetensors(folder_ / "model.safetensors", {{"b", at::ones({2})}, {"a", at::zeros({3}, at::kLong)}});
  for (const auto& checkpoint : {open(), Checkpoint::open(folder_ / "model.safetensors")}) {
    EXPECT_EQ(checkpoint->names(), (std::vector<std::string>{"a", "b"}));
    const auto tensors = checkpoint->tensors();
    EXPECT_EQ(tensors[0].name, "a");
    EXPECT_EQ(tensors[0].dtype, at::kLong);
    EXPECT_EQ(tensors[1].shape, (std::vector<int64_t>{2}));
    EXPECT_TRUE(at::equal(checkpoint->tensor("b"), at::ones({2})));
    EXPECT_TRUE(checkpoint->contains("a"));
    EXPECT_FALSE(checkpoint->contains("c"));
  }
}

TEST_F(Folder, OpensOnlyTheFilesOfWhatIsAsked) {
  write_shards();
  const auto checkpoint = open();
  EXPECT_EQ(checkpoint->names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(checkpoint->opened_files().empty());
  EXPECT_EQ(checkpoint->resident_bytes(), 0u);
  EXPECT_TRUE(at::equal(checkpoint->tensor("c"), at::full({4}, 3.0)));
  EXPECT_EQ(checkpoint->opened_files(), (std::vector{folder_ / "two.safetensors"}));
  EXPECT_TRUE(at::equal(checkpoint->slice("b", 0, 1, 1), at::full({1}, 2, at::kLong)));
  EXPECT_EQ(checkpoint->opened_files().size(), 2u);
  EXPECT_EQ(checkpoint->tensors().size(), 3u);
}

TEST_F(Folder, PrefersTheSingleFile) {
  write_shards();
  write_safetensors(folder_ / "model.safetensors", {{"z", at::ones({1})}});
  EXPECT_EQ(open()->names(), (std::vector<std::string>{"z"}));
}

TEST_F(Folder, ThreadsMayShareIt) {
  write_shards();
  const auto checkpoint = open();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (const std::string& name : checkpoint->names()) {
        EXPECT_GT(checkpoint->tensor(name).sum().item<double>(), 0);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST_F(Folder, SaysWhatWasLookedFor) {
  const std::string folder = folder_.path().string();
  expect_error(
      ErrorCode::input,
      {folder,
       "looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index"},
      [&] { open(); });
  write_file(folder_ / "weights.pt", "");
  expect_error(ErrorCode::input, {folder, "weights.pt (0 bytes) is no zip archive"}, [&] { open(); });
  write_file(folder_ / "other.pth", "");
  expect_error(ErrorCode::input, {folder, "it holds other.pth and weights.pt, one is expected"}, [&] { open(); });
  write_file(folder_ / "pytorch_model.bin.index.json", "{}");
  expect_error(ErrorCode::input, {folder, "pytorch_model.bin.index.json has no \"weight_map\""}, [&] { open(); });
  write_file(folder_ / "pytorch_model.bin", "");
  expect_error(ErrorCode::input, {folder, "pytorch_model.bin (0 bytes) is no zip archive"}, [&] { open(); });
  expect_error(ErrorCode::input, {"none", "no such file or folder"}, [&] { Checkpoint::open(folder_ / "none"); });
  expect_error(ErrorCode::input, {"none", "not a folder"}, [&] { Checkpoint::open_folder(folder_ / "none"); });
}

TEST_F(Folder, NamesAMissingTensor) {
  write_shards();
  expect_error(ErrorCode::input, {R"(no tensor "d")", folder_.path().string(), "3 tensors include", R"("a")"}, [&] {
    open()->tensor("d");
  });
  write_index(R"({"weight_map":{}})");
  expect_error(ErrorCode::input, {R"(no tensor "d")", "0 tensors include none"}, [&] { open()->tensor("d"); });
}

TEST_F(Folder, NamesAMissingFileAndATensorItLacks) {
  write_shards();
  write_index(R"({"weight_map":{"a":"one.safetensors","x":"one.safetensors","y":"gone.safetensors"}})");
  const auto checkpoint = open();
  expect_error(
      ErrorCode::input, {R"("x")", "one.safetensors", "lacks it", "index.json"}, [&] { checkpoint->info("x"); });
  expect_error(ErrorCode::input, {R"("y")", "gone.safetensors", "does not exist", "index.json"}, [&] {
    checkpoint->tensor("y");
  });
  EXPECT_EQ(checkpoint->tensor("a").numel(), 2);
}

TEST_F(Folder, RefusesABadIndex) {
  expect_refused("{", {"not valid JSON"});
  expect_refused("[]", {"must be a JSON object", "a list"});
  expect_refused("3", {"must be a JSON object", "a number"});
  expect_refused("{}", {R"(no "weight_map")"});
  expect_refused(R"({"weight_map":[]})", {R"("weight_map" must be an object)", "a list"});
  expect_refused(R"({"weight_map":null})", {R"("weight_map" must be an object)", "null"});
  expect_refused(R"({"weight_map":{},"weight_map":{}})", {R"("weight_map" twice)"});
  expect_refused(R"({"weight_map":{"a":3}})", {R"("a" must be a string)", "a number"});
  expect_refused(R"({"weight_map":{"a":{"weight_map":"x"}}})", {R"("a" must be a string)", "an object"});
  expect_refused(R"({"weight_map":{"a":"x","a":"x"}})", {R"("a" twice)"});
  expect_refused(join({R"({"m":)", std::string(300, '[')}), {"nested deeper than 256"});
  for (const char* file :
       {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", "a\\\\b", "", ".", "..", "a\\u0000"}) {
    expect_refused(join({R"({"weight_map":{"a":")", file, "\"}}"}), {R"(tensor "a")", "in the same folder"});
  }
}

}  // namespace
}  // namespace shardpipe::checkpoint
