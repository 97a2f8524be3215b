// Reads the files of torch_reference.py: every tensor as torch saved it, every refusal by its message.
// Argument: the folder that the script filled.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "base/json.h"
#include "checkpoint/folder.h"
#include "checkpoint/test_files.h"
#include "support/reference_main.h"

namespace shardpipe::checkpoint {
namespace {

std::filesystem::path reference_folder;

const Json& manifest() {
  static const Json parsed = read_json(reference_folder / "manifest.json");
  return parsed;
}

std::string hexadecimal(const at::Tensor& tensor) {
  const at::Tensor data = tensor.contiguous();
  const auto* bytes = static_cast<const unsigned char*>(data.const_data_ptr());
  std::string text;
  for (size_t i = 0; i < data.nbytes(); ++i) {
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

void expect_same(const Checkpoint& checkpoint, const Json& expected) {
  EXPECT_EQ(checkpoint.names().size(), expected.size());
  for (const auto& [name, described] : expected.items()) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(checkpoint.contains(name));
    const at::Tensor tensor = checkpoint.tensor(name);
    EXPECT_EQ(c10::getDtypeNames(tensor.scalar_type()).first, described["dtype"].get<std::string>());
    EXPECT_EQ(tensor.sizes().vec(), described["shape"].get<std::vector<int64_t>>());
    if (tensor.numel() > 0) {
      EXPECT_EQ(tensor.strides().vec(), described["strides"].get<std::vector<int64_t>>());
    }
    EXPECT_EQ(hexadecimal(tensor), described["data"].get<std::string>());
    const TensorInfo& info = checkpoint.info(name);
    EXPECT_EQ(info.shape, tensor.sizes().vec());
    EXPECT_EQ(info.dtype, tensor.scalar_type());
    EXPECT_EQ(info.size_bytes, static_cast<uint64_t>(tensor.numel()) * tensor.element_size());
    if (tensor.dim() > 0 && tensor.size(0) > 1) {
      const at::Tensor row = checkpoint.slice(name, 0, 1, 1);
      EXPECT_EQ(hexadecimal(row), hexadecimal(tensor.narrow(0, 1, 1)));
    }
  }
}

TEST(TorchReference, EveryTensor) {
  for (const auto& [file, expected] : manifest()["read"].items()) {
    SCOPED_TRACE(file);
    expect_same(*Checkpoint::open(reference_folder / "files" / file), expected);
  }
}

TEST(TorchReference, TensorsOfOneStorageShareItsBytes) {
  for (const auto& [file, groups] : manifest()["shared"].items()) {
    const auto checkpoint = Checkpoint::open(reference_folder / "files" / file);
    for (const auto& group : groups) {
      const at::Tensor first = checkpoint->tensor(group[0].get<std::string>());
      for (const auto& name : group) {
        EXPECT_EQ(checkpoint->tensor(name.get<std::string>()).const_data_ptr(), first.const_data_ptr());
      }
    }
  }
}

TEST(TorchReference, RefusalsNameWhatIsRefused) {
  for (const auto& entry : manifest()["refused"].items()) {
    const std::string& file = entry.key();
    SCOPED_TRACE(file);
    std::vector<std::string> expected = entry.value().get<std::vector<std::string>>();
    expected.push_back(file);
    expect_error(ErrorCode::input, expected, [&] { Checkpoint::open(reference_folder / "files" / file); });
  }
  EXPECT_FALSE(std::filesystem::exists("executed"));
}

TEST(TorchReference, ASliceOutsideIsRefused) {
  const auto checkpoint = Checkpoint::open(reference_folder / "files" / "tied_2.pt");
  expect_error(
      ErrorCode::input, {"cannot take 3 rows from row 4 of dimension 0 of tensor \"head\"", "tied_2.pt", "[6, 4]"},
      [&] { checkpoint->slice("head", 0, 4, 3); });
}

// Damage anywhere in real files: refused with the file's name, or tensors that can be read to their last byte.
TEST(TorchReference, RandomDamage) {
  const char* scale = std::getenv("SHARDPIPE_FUZZ_SCALE");
  const int count = static_cast<int>(600 * (scale == nullptr ? 1.0 : std::atof(scale)));
  const TestFolder folder;
  for (const char* name : {"module_2.pt", "containers_5.pt", "dtype_uint16_4.pt"}) {
    const std::string valid = read_file(reference_folder / "files" / name);
    for (int seed = 0; seed < count; ++seed) {
      SCOPED_TRACE(fmt::format("{} seed {}", name, seed));
      std::mt19937 random(static_cast<uint32_t>(seed));
      const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
      std::string bytes = valid;
      for (size_t edit = 0; edit < 1 + seed % 4U; ++edit) {
        // Mostly in the pickle, which comes first.
        bytes[below(below(4) > 0 ? std::min<size_t>(bytes.size(), 1200) : bytes.size())] =
            static_cast<char>(below(256));
      }
      if (below(8) == 0) {
        bytes.resize(below(bytes.size()));
      }
      std::ofstream(folder / "damaged.pt", std::ios::binary) << bytes;
      try {
        const auto checkpoint = Checkpoint::open(folder / "damaged.pt");
        for (const TensorInfo& info : checkpoint->tensors()) {
          EXPECT_EQ(checkpoint->tensor(info.name).contiguous().nbytes(), info.size_bytes);
        }
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::input) << error.what();
        ASSERT_NE(error.message().find("damaged.pt"), std::string::npos) << error.what();
      }
    }
  }
}

TEST(TorchReference, Folders) {
  for (const auto& [folder, expected] : manifest()["models"].items()) {
    SCOPED_TRACE(folder);
    expect_same(*Checkpoint::open(reference_folder / "models" / folder), expected);
  }
}

}  // namespace
}  // namespace shardpipe::checkpoint

int main(int argc, char** argv) {
  return shardpipe::test::reference_main(
      argc, argv, [](const std::filesystem::path& folder) { shardpipe::checkpoint::reference_folder = folder; });
}
