#include "kernels/choice.h"

#include <cstdlib>

#include "base/file.h"
#include "each_simd_level.h"

namespace shardpipe::kernels {
namespace {

namespace fs = std::filesystem;

class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) {
      old_ = old;
    }
    set(value);
  }
  ~Environment() { set(old_ ? old_->c_str() : nullptr); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  void set(const char* value) {
    if (value == nullptr) {
      unsetenv(name_);
    } else {
      setenv(name_, value, 1);
    }
  }
  const char* name_;
  std::optional<std::string> old_;
};

class ChoiceTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::path(testing::TempDir()) /
           fmt::format("choice_{}", testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(dir_)) {
      found.push_back(entry.path());
    }
    return found;
  }
  fs::path dir_;
  Environment measuring_{"SHARDPIPE_MEASURE", nullptr};
};

void expect_valid(const KernelChoice& choice) {
  EXPECT_GE(choice.few_rows_f32, 0);
  EXPECT_LE(choice.few_rows_f32, 16);
  EXPECT_LE(choice.few_rows_bf16, 16);
  EXPECT_TRUE(choice.many_f32 == "onednn" || choice.many_f32 == "aten");
  EXPECT_TRUE(choice.many_bf16 == "onednn" || choice.many_bf16 == "aten");
}

TEST_F(ChoiceTest, MeasuresOnceAndKeepsIt) {
  const KernelChoice measured = load_or_measure(1, dir_);
  expect_valid(measured);
  ASSERT_EQ(files().size(), 1U);
  // What is read back is what the file says, so a changed file shows that it was read.
  Json json = read_json(files()[0]);
  json["choice"]["few_rows_f32"] = 5;
  write_file(files()[0], json.dump());
  EXPECT_EQ(load_or_measure(1, dir_).few_rows_f32, 5);
  load_or_measure(2, dir_);
  EXPECT_EQ(files().size(), 2U) << "another number of threads has another file";
}

TEST_F(ChoiceTest, ThreadsAreRestored) {
  const int before = at::get_num_threads();
  measure(before + 1);
  EXPECT_EQ(at::get_num_threads(), before);
}

TEST_F(ChoiceTest, DamagedFileIsMeasuredAgain) {
  load_or_measure(1, dir_);
  for (const char* content : {"", "{", "[]", R"({"key": 1, "choice": {}})"}) {
    write_file(files()[0], content);
    expect_valid(load_or_measure(1, dir_));
    EXPECT_TRUE(read_json(files()[0]).contains("choice"));
  }
  Json json = read_json(files()[0]);
  json["choice"].erase("many_f32");
  write_file(files()[0], json.dump());
  expect_valid(load_or_measure(1, dir_));
}

TEST_F(ChoiceTest, FolderThatCannotExistIsNoError) {
  fs::create_directories(dir_);
  write_file(dir_ / "file", "");
  expect_valid(load_or_measure(1, dir_ / "file" / "below"));
  expect_valid(load_or_measure(1, {}));
}

TEST_F(ChoiceTest, MeasuringCanBeSwitchedOff) {
  const Environment off("SHARDPIPE_MEASURE", "0");
  EXPECT_EQ(load_or_measure(1, dir_), default_choice());
  EXPECT_FALSE(fs::exists(dir_));
}

TEST(Choice, CacheFolderFollowsTheEnvironment) {
  const Environment own("SHARDPIPE_CACHE_DIR", nullptr);
  const Environment xdg("XDG_CACHE_HOME", nullptr);
  const Environment home("HOME", "/users/someone");
  EXPECT_EQ(default_cache_dir(), "/users/someone/.cache/shardpipe");
  const Environment with_xdg("XDG_CACHE_HOME", "/xdg");
  EXPECT_EQ(default_cache_dir(), "/xdg/shardpipe");
  const Environment with_own("SHARDPIPE_CACHE_DIR", "/own");
  EXPECT_EQ(default_cache_dir(), "/own");
}

TEST(Choice, NoFolderWithoutHome) {
  const Environment own("SHARDPIPE_CACHE_DIR", nullptr);
  const Environment xdg("XDG_CACHE_HOME", nullptr);
  const Environment home("HOME", nullptr);
  EXPECT_TRUE(default_cache_dir().empty());
}

TEST(Choice, JsonRoundTrip) {
  const KernelChoice choice{3, 7, "aten", "onednn"};
  EXPECT_EQ(KernelChoice::from_json(choice.to_json(), "test"), choice);
}

TEST(Choice, JsonErrorsNameTheKey) {
  const auto expect_error = [](const Json& json, const std::string& key) {
    try {
      KernelChoice::from_json(json, "plan.json");
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::input);
      EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("plan.json"), testing::HasSubstr(key)));
    }
  };
  for (const char* key : {"few_rows_f32", "few_rows_bf16", "many_f32", "many_bf16"}) {
    Json json = KernelChoice().to_json();
    json[key] = "other";
    expect_error(json, key);
    json.erase(key);
    expect_error(json, key);
  }
  Json json = KernelChoice().to_json();
  json["few_rows_f32"] = -1;
  expect_error(json, "few_rows_f32");
  expect_error(Json::array(), "few_rows_f32");
}

}  // namespace
}  // namespace shardpipe::kernels
