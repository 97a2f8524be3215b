#include "checkpoint/header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "checkpoint/header_json.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "the format's bytes are mapped as they are");
constexpr uint64_t kLengthBytes = 8;

// The header's text, its length checked.
std::string_view header_text(std::span<const std::byte> file, const std::string& where) {
  if (file.size() < kLengthBytes) {
    throw_input(
        "{} is not a safetensors file: it has {} bytes, the header's length alone takes {}", where, file.size(),
        kLengthBytes);
  }
  const auto* text = reinterpret_cast<const char*>(file.data());
  uint64_t length = 0;
  std::memcpy(&length, text, kLengthBytes);
  if (std::string_view(text, kLengthBytes) == "version ") {
    throw Error(
        ErrorCode::input, fmt::format("{} is not a safetensors file: it is a Git LFS pointer", where),
        "fetch the file itself with 'git lfs pull'");
  }
  if (length > kMaxHeaderBytes) {
    throw_input(
        "{} is not a safetensors file: its header's length is {} bytes, the limit {}", where, length, kMaxHeaderBytes);
  }
  if (length > file.size() - kLengthBytes) {
    throw_input(
        "{} is truncated: its header ends at byte {}, the file has {}", where, kLengthBytes + length, file.size());
  }
  if (length == 0) {
    throw_input("{} is not a safetensors file: its header's length is 0", where);
  }
  return {text + kLengthBytes, length};
}

// The product of shape and element size in bytes.
uint64_t expected_bytes(const HeaderEntry& entry, const std::string& where) {
  uint64_t bits = static_cast<uint64_t>(entry.dtype->bits);
  uint64_t elements = 1;
  bool overflow = false;
  for (const int64_t extent : entry.shape) {
    overflow = overflow || __builtin_mul_overflow(elements, static_cast<uint64_t>(extent), &elements);
  }
  if (overflow || __builtin_mul_overflow(elements, bits, &bits)) {
    throw_input(
        "tensor {} in {}: the size of shape {} in dtype {} is above 2^64 bits", in_quotes(entry.name), where,
        shape_text(entry.shape), entry.dtype->safetensors);
  }
  if (bits % 8 != 0) {
    throw_input(
        "tensor {} in {}: {} elements of {} bits are no whole number of bytes", in_quotes(entry.name), where, elements,
        entry.dtype->bits);
  }
  return bits / 8;
}

HeaderTensor check_entry(HeaderEntry&& entry, uint64_t data_bytes, const std::string& where) {
  const uint64_t begin = entry.offsets[0];
  const uint64_t end = entry.offsets[1];
  if (end < begin) {
    throw_input(
        "tensor {} in {}: its data ends at {} before it begins at {}", in_quotes(entry.name), where, end, begin);
  }
  if (end > data_bytes) {
    throw_input(
        "tensor {} in {}: its data ends at {}, the file has {} bytes of data (is it truncated?)", in_quotes(entry.name),
        where, end, data_bytes);
  }
  const uint64_t expected = expected_bytes(entry, where);
  if (end - begin != expected) {
    throw_input(
        "tensor {} in {}: shape {} in dtype {} takes {} bytes, its data_offsets [{}, {}] hold {}",
        in_quotes(entry.name), where, shape_text(entry.shape), entry.dtype->safetensors, expected, begin, end,
        end - begin);
  }
  return {std::move(entry.name), entry.dtype, std::move(entry.shape), begin, expected};
}

// The data must be covered without holes, as the reference asks: bytes that no tensor owns could hide anything.
// Offsets count from the end of the header.
void check_coverage(const std::vector<HeaderTensor>& tensors, uint64_t data_bytes, const std::string& where) {
  std::vector<const HeaderTensor*> by_offset;
  by_offset.reserve(tensors.size());
  for (const HeaderTensor& tensor : tensors) {
    by_offset.push_back(&tensor);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](const HeaderTensor* a, const HeaderTensor* b) {
    return std::pair(a->offset_bytes, a->size_bytes) < std::pair(b->offset_bytes, b->size_bytes);
  });
  uint64_t covered = 0;
  const HeaderTensor* previous = nullptr;
  for (const HeaderTensor* tensor : by_offset) {
    if (tensor->offset_bytes < covered) {
      throw_input(
          "tensors {} and {} in {} overlap: the one ends at {}, the other begins at {}", in_quotes(previous->name),
          in_quotes(tensor->name), where, covered, tensor->offset_bytes);
    }
    if (tensor->offset_bytes > covered) {
      throw_input(
          "{} has a hole: no tensor owns the data from {} to {}, where {} begins", where, covered, tensor->offset_bytes,
          in_quotes(tensor->name));
    }
    covered += tensor->size_bytes;
    previous = tensor;
  }
  if (covered != data_bytes) {
    throw_input("{} has trailing bytes: its tensors end at {}, its data at {}", where, covered, data_bytes);
  }
}

}  // namespace

Header parse_header(std::span<const std::byte> file, const std::filesystem::path& path) {
  const std::string where = path.string();
  const std::string_view text = header_text(file, where);
  const uint64_t data_start = kLengthBytes + text.size();
  const uint64_t data_bytes = file.size() - data_start;
  HeaderJson json = parse_header_json(text, where);
  Header header{{}, std::move(json.metadata)};
  header.tensors.reserve(json.entries.size());
  for (HeaderEntry& entry : json.entries) {
    header.tensors.push_back(check_entry(std::move(entry), data_bytes, where));
  }
  check_coverage(header.tensors, data_bytes, where);
  for (HeaderTensor& tensor : header.tensors) {
    tensor.offset_bytes += data_start;
  }
  return header;
}

}  // namespace shardpipe::checkpoint
