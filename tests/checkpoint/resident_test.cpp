// Loading touches the pages of what is asked for, and nothing else.
#include "checkpoint/resident.h"

#include <ATen/ATen.h>

#include "checkpoint/folder.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_files.h"

namespace shardpipe::checkpoint {
namespace {

constexpr size_t kMiB = 1 << 20;
// The kernel maps a touched page's neighbours along with it: up to 2 MiB at either end, where the page cache holds
// files in large folios.
constexpr size_t kSlack = 4 * kMiB + kMiB / 2;

// Four float32 tensors [8192, 1024] of 32 MiB.
class Resident : public ::testing::Test {
 protected:
  void SetUp() override {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (int i = 0; i < 4; ++i) {
      tensors.emplace_back(join({"t", std::to_string(i)}), at::full({8192, 1024}, i + 0.5));
    }
    write_safetensors(folder_ / "model.safetensors", tensors);
    checkpoint_ = Checkpoint::open_folder(folder_.path());
  }
  TestFolder folder_;
  std::shared_ptr<const Checkpoint> checkpoint_;
};

TEST_F(Resident, DescribingTouchesTheHeaderOnly) {
  EXPECT_EQ(checkpoint_->tensors().size(), 4u);
  for (const std::string& name : checkpoint_->names()) {
    checkpoint_->tensor(name);  // a view
  }
  EXPECT_GT(checkpoint_->resident_bytes(), 0u);
  EXPECT_LT(checkpoint_->resident_bytes(), kSlack);
}

TEST_F(Resident, ASliceTouchesItsPages) {
  const at::Tensor rows = checkpoint_->slice("t2", 0, 1024, 2048);  // 8 MiB
  EXPECT_LT(checkpoint_->resident_bytes(), kSlack);
  EXPECT_EQ(rows.sum().item<double>(), 2.5 * 2048 * 1024);
  EXPECT_GE(checkpoint_->resident_bytes(), 8 * kMiB);
  EXPECT_LT(checkpoint_->resident_bytes(), 8 * kMiB + kSlack);
}

TEST_F(Resident, EqualDtypeIsZeroCopy) {
  const at::Tensor whole = checkpoint_->load("t1", at::kFloat);
  EXPECT_LT(checkpoint_->resident_bytes(), kSlack);
  EXPECT_EQ(whole.const_data_ptr(), checkpoint_->tensor("t1").const_data_ptr());
}

TEST_F(Resident, ConversionGivesItsPagesBack) {
  EXPECT_TRUE(at::equal(checkpoint_->load("t3", at::kBFloat16), at::full({8192, 1024}, 3.5, at::kBFloat16)));
  EXPECT_LT(checkpoint_->resident_bytes(), kSlack);
  const at::Tensor rows = checkpoint_->load_slice("t3", 0, 0, 2048, at::kDouble);
  EXPECT_TRUE(at::equal(rows, at::full({2048, 1024}, 3.5, at::kDouble)));
  EXPECT_LT(checkpoint_->resident_bytes(), kSlack);
}

TEST_F(Resident, ReleasedPagesAreStillReadable) {
  const at::Tensor whole = checkpoint_->tensor("t0");
  EXPECT_EQ(whole.sum().item<double>(), 0.5 * 8192 * 1024);
  EXPECT_GE(checkpoint_->resident_bytes(), 32 * kMiB);
  const auto file = SafetensorsFile::open(folder_ / "model.safetensors");
  release_pages(*file->mapping(), whole.const_data_ptr(), whole.nbytes());  // another mapping: left alone
  EXPECT_GE(checkpoint_->resident_bytes(), 32 * kMiB);
  EXPECT_EQ(file->tensor("t1").sum().item<double>(), 1.5 * 8192 * 1024);
  EXPECT_GE(resident_bytes(*file->mapping()), 32 * kMiB);
  release_pages(*file->mapping(), file->mapping()->bytes().data(), file->mapping()->size_bytes());
  EXPECT_LT(resident_bytes(*file->mapping()), kSlack);
  EXPECT_EQ(file->tensor("t1").sum().item<double>(), 1.5 * 8192 * 1024);
}

}  // namespace
}  // namespace shardpipe::checkpoint
