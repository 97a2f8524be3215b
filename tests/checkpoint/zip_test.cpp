#include "checkpoint/zip.h"

#include <fstream>

#include "checkpoint/test_files.h"
#include "checkpoint/zip_builder.h"

namespace shardpipe::checkpoint {
namespace {

using test::ZipBuilder;

const std::vector<std::pair<std::string, std::string>> kRecords = {
    {"my.model.v1/models/model.json", "{}"},
    {"my.model.v1/data/weights/weight_0", std::string(100, 'w')},
    {"my.model.v1/empty", ""},
    {"my.model.v1/.data/version", "6\n"}};

std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

void expect_records(const std::string& bytes) {
  const std::vector<ZipEntry> entries = parse_zip(as_bytes(bytes), "m.pt2");
  ASSERT_EQ(entries.size(), kRecords.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(entries[i].name, kRecords[i].first);
    EXPECT_EQ(bytes.substr(entries[i].offset_bytes, entries[i].size_bytes), kRecords[i].second);
    EXPECT_EQ(entries[i].offset_bytes % 64, 0u);
    EXPECT_TRUE(entries[i].stored);
  }
}

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(Zip, ReadsRecordsWhereTheDirectorySaysTheyAre) {
  expect_records(ZipBuilder{}.build(kRecords));
  expect_records(ZipBuilder{.zip64 = true}.build(kRecords));
  expect_records(ZipBuilder{.local_size = 12345}.build(kRecords));
  // A comment may hold what looks like an end record.
  expect_records(ZipBuilder{.comment = "PK\5\6 of the comment"}.build(kRecords));
  EXPECT_TRUE(parse_zip(as_bytes(ZipBuilder{}.build({})), "m.pt2").empty());
}

TEST(Zip, FileServesRecordsWithoutTheirRoot) {
  const TestFolder folder;
  write(folder / "m.pt2", ZipBuilder{.zip64 = true}.build(kRecords));
  const auto file = ZipFile::open(folder / "m.pt2");
  EXPECT_EQ(file->root(), "my.model.v1/");
  EXPECT_EQ(file->text("models/model.json"), "{}");
  EXPECT_EQ(file->text("empty"), "");
  EXPECT_NE(file->find(".data/version"), nullptr);
  EXPECT_EQ(file->find("my.model.v1/empty"), nullptr);
  expect_error(
      ErrorCode::input, {"m.pt2", "has no record \"models/other.json\""}, [&] { file->text("models/other.json"); });
  write(folder / "flat.zip", ZipBuilder{}.build({{"a", "1"}, {"b/c", "2"}}));
  const auto flat = ZipFile::open(folder / "flat.zip");
  EXPECT_EQ(flat->root(), "");
  EXPECT_EQ(flat->text("b/c"), "2");
}

TEST(Zip, WrittenBytesStayInTheProcess) {
  const TestFolder folder;
  write(folder / "m.pt2", ZipBuilder{}.build(kRecords));
  const auto file = ZipFile::open(folder / "m.pt2");
  const auto data = file->bytes("data/weights/weight_0");
  const_cast<std::byte&>(data[0]) = std::byte{'x'};
  EXPECT_EQ(file->text("data/weights/weight_0")[0], 'x');
  EXPECT_EQ(ZipFile::open(folder / "m.pt2")->text("data/weights/weight_0")[0], 'w');
}

TEST(Zip, RefusesWhatItCannotRead) {
  const TestFolder folder;
  write(folder / "m.pt2", ZipBuilder{.method = 8}.build(kRecords));
  const auto file = ZipFile::open(folder / "m.pt2");
  expect_error(ErrorCode::input, {"models/model.json", "m.pt2", "compressed or encrypted", "zip with -0"}, [&] {
    file->text("models/model.json");
  });
  const auto refused = [](const std::string& bytes, const std::string& part) {
    expect_error(ErrorCode::input, {"m.pt2", part}, [&] { parse_zip(as_bytes(bytes), "m.pt2"); });
  };
  refused("", "(0 bytes) is no zip archive");
  refused(std::string(100'000, 'x'), "is no zip archive");
  const std::string good = ZipBuilder{}.build(kRecords);
  const size_t directory = good.find("PK\1\2");
  refused(good.substr(0, good.size() - 30), "it may be incomplete");
  refused(good.substr(200), "is damaged");
  const auto with = [](std::string bytes, size_t at, const std::string& part) {
    return bytes.replace(at, part.size(), part);
  };
  refused(with(good, directory, "PX"), "no zip directory entry at byte");
  refused(with(good, directory + 20, "\xf0\xff\xff\x7f"), "has 2147483632 bytes");
  refused(with(good, directory + 42, "\xf0\xff\xff\x7f"), "no header of the zip record");
  refused(with(good, directory + 28, "\xff\xff"), "is cut off");
  refused(with(good, good.size() - 12, "\xff\x7f"), "claims 32767 records");
  refused(with(good, good.size() - 6, "\xff\xff\xff\x7f"), "its zip directory is at byte 2147483647");
  const std::string wide = ZipBuilder{.zip64 = true}.build(kRecords);
  const size_t end64 = wide.find("PK\6\6");
  refused(with(wide, end64, "PX"), "no zip64 end record");
  refused(
      with(wide, end64 + 32, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f")), "claims 9223372036854775807 records");
  refused(with(wide, end64 + 48, std::string("\xff\xff\xff\xff\xff\xff\xff\xff")), "its zip directory is at byte");
  refused(ZipBuilder{}.build({{"a/b", "1"}, {"a/b", "2"}}), "\"a/b\" is there twice");
  // A directory entry whose zip64 field reaches behind the file.
  std::string behind = ZipBuilder{}.build({});
  behind.insert(0, std::string("PK\1\2") + std::string(40, '\0'));
  behind = with(behind, behind.size() - 12, std::string("\1\0", 2));
  refused(behind, "");
}

}  // namespace
}  // namespace shardpipe::checkpoint
