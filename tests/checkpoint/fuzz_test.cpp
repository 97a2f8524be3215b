// Random damage to valid files: the readers throw Error(input) or read consistently, and never crash.
// SHARDPIPE_FUZZ_SCALE multiplies the counts; a failure prints the seed of its file.
#include <ATen/ATen.h>

#include <fstream>
#include <random>

#include "checkpoint/folder.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_files.h"

namespace shardpipe::checkpoint {
namespace {

int scaled(int count) {
  const char* scale = std::getenv("SHARDPIPE_FUZZ_SCALE");
  return static_cast<int>(count * (scale == nullptr ? 1.0 : std::atof(scale)));
}

// One to three edits, mostly in the first `header` bytes: flipped, inserted, removed, repeated, or replaced by a piece
// that means something in the format.
std::string mutate(std::string bytes, size_t header, std::mt19937& random) {
  static const std::string pieces[] = {
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      "\"",
      "0",
      "-1",
      "1e9",
      "18446744073709551615",
      "9223372036854775808",
      "null",
      "\"shape\"",
      "\"data_offsets\"",
      "\"dtype\"",
      "\"__metadata__\"",
      "\"F64\"",
      "\"F4\"",
      "\"BOOL\"",
      "\\u0000",
      "\xFF"};
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n > 0 ? n - 1 : 0)(random); };
  const size_t edits = 1 + below(3);
  for (size_t i = 0; i < edits && !bytes.empty(); ++i) {
    const size_t at = below(below(3) > 0 ? std::min(header, bytes.size()) : bytes.size());
    switch (below(6)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(below(256));
        break;
      case 2:
        bytes.erase(at, 1 + below(8));
        break;
      case 3:
        bytes.insert(at, bytes.substr(below(bytes.size()), below(64)));
        break;
      case 4: {
        const std::string& piece = pieces[below(std::size(pieces))];
        bytes.replace(at, std::min(piece.size(), bytes.size() - at), piece);
        break;
      }
      default:
        bytes[at] = static_cast<char>('0' + below(10));
    }
  }
  if (bytes.size() >= 8 && below(2) == 0) {  // keep the length right, or most edits would end there
    const size_t end = bytes.rfind('}', std::min(bytes.size() - 1, header + 64));
    if (end != std::string::npos && end >= 8) {
      const uint64_t length = end - 7;
      std::memcpy(bytes.data(), &length, 8);
    }
  }
  return bytes;
}

TEST(Fuzz, DamagedFilesAreRefusedOrReadConsistently) {
  const TestFolder folder;
  write_safetensors(
      folder / "valid.safetensors",
      {{"model.embed", at::arange(12, at::kFloat).view({3, 4})},
       {"ids", at::arange(3)},
       {"mask", at::ones({2, 2}, at::kBool)},
       {"scale", at::ones({}, at::kHalf)},
       {"none", at::empty({0, 4}, at::kBFloat16)}},
      {{"format", "pt"}});
  const std::string valid = read_file(folder / "valid.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, valid.data(), 8);
  int accepted = 0;
  const int count = scaled(4000);
  for (int seed = 0; seed < count; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(static_cast<uint32_t>(seed));
    const std::string bytes = mutate(valid, 8 + length, random);
    std::ofstream(folder / "m.safetensors", std::ios::binary) << bytes;
    try {
      const auto file = SafetensorsFile::open(folder / "m.safetensors");
      std::vector<std::pair<std::string, at::Tensor>> tensors;
      uint64_t total = 0;
      for (const TensorInfo& info : file->tensors()) {
        ASSERT_LE(info.offset_bytes + info.size_bytes, bytes.size());
        total += info.size_bytes;
      }
      uint64_t header = 0;
      std::memcpy(&header, bytes.data(), 8);
      ASSERT_EQ(8 + header + total, bytes.size());
      for (const TensorInfo& info : file->tensors()) {
        const at::Tensor tensor = file->tensor(info.name);
        ASSERT_EQ(tensor.nbytes(), info.size_bytes);
        if (tensor.dim() > 0 && tensor.size(0) > 0) {
          const at::Tensor row = file->slice(info.name, 0, tensor.size(0) - 1, 1);
          ASSERT_TRUE(at::equal(row.view(at::kByte), tensor.narrow(0, tensor.size(0) - 1, 1).view(at::kByte)));
        }
        tensors.emplace_back(info.name, tensor);
      }
      if (accepted % 10 == 0) {  // each write waits for the disk
        write_safetensors(folder / "again.safetensors", tensors, file->metadata());
        const auto again = SafetensorsFile::open(folder / "again.safetensors");
        for (const auto& [name, tensor] : tensors) {
          const at::Tensor other = again->tensor(name);
          ASSERT_EQ(other.sizes(), tensor.sizes());
          ASSERT_EQ(other.scalar_type(), tensor.scalar_type());
          ASSERT_TRUE(
              tensor.nbytes() == 0 ||
              std::memcmp(other.const_data_ptr(), tensor.const_data_ptr(), other.nbytes()) == 0);
        }
        ASSERT_EQ(again->metadata(), file->metadata());
      }
      ++accepted;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::input) << error.what();
      ASSERT_NE(error.message().find("m.safetensors"), std::string::npos) << error.what();
    }
  }
  EXPECT_GT(accepted, count / 100);  // the fuzzer reaches behind the header's syntax
  EXPECT_LT(accepted, count);
}

TEST(Fuzz, DamagedIndexesAreRefusedOrReadConsistently) {
  const TestFolder folder;
  write_safetensors(folder / "a.safetensors", {{"x", at::ones({2})}});
  const std::string valid = R"({"metadata":{"total_size":8},"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})";
  for (int seed = 0; seed < scaled(2000); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::ofstream(folder / "model.safetensors.index.json", std::ios::binary) << mutate(valid, valid.size(), random);
    try {
      const auto checkpoint = Checkpoint::open_folder(folder.path());
      for (const std::string& name : checkpoint->names()) {
        ASSERT_EQ(checkpoint->info(name).name, "x");
      }
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::input) << error.what();
    }
  }
}

}  // namespace
}  // namespace shardpipe::checkpoint
