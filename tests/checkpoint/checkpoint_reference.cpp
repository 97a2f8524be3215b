// Compares the readers with the Python packages on the files of safetensors_reference.py: the same decision, the same
// bytes, the same tensors of real checkpoints. Argument: the folder that `safetensors_reference.py make` filled.
// Writes what it read to FOLDER/written, which `safetensors_reference.py check` reads.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/names.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_files.h"
#include "support/reference_main.h"

namespace shardpipe::checkpoint {
namespace {

std::filesystem::path reference_folder;

// Python's name of a torch type: "float32".
std::string python_name(c10::ScalarType dtype) {
  return std::string(c10::getDtypeNames(dtype).first);
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

void expect_tensor(const Json& expected, const at::Tensor& actual) {
  EXPECT_EQ(python_name(actual.scalar_type()), expected["dtype"].get<std::string>());
  EXPECT_EQ(actual.sizes().vec(), expected["shape"].get<std::vector<int64_t>>());
  EXPECT_EQ(hexadecimal(actual), expected["data"].get<std::string>());
}

const Json& manifest() {
  static const Json parsed = read_json(reference_folder / "manifest.json");
  return parsed;
}

TEST(Reference, SameDecisionAndBytesAsThePackage) {
  int accepted = 0;
  int refused = 0;
  for (const auto& [name, expected] : manifest()["files"].items()) {
    SCOPED_TRACE(name);
    const auto path = reference_folder / "files" / (name + ".safetensors");
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    std::shared_ptr<const SafetensorsFile> file;
    try {
      file = SafetensorsFile::open(path);
      for (const TensorInfo& info : file->tensors()) {
        tensors.emplace_back(info.name, file->tensor(info.name));
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::input);
      if (!expected["stricter"].is_null()) {
        EXPECT_FALSE(expected["read"].is_null());
        EXPECT_NE(error.message().find(expected["stricter"].get<std::string>()), std::string::npos) << error.what();
      } else {
        EXPECT_TRUE(expected["read"].is_null()) << error.what();
      }
      ++refused;
      continue;
    }
    EXPECT_TRUE(expected["stricter"].is_null());
    ASSERT_FALSE(expected["read"].is_null()) << "the package refuses it";
    const Json& read = expected["read"];
    EXPECT_EQ(tensors.size(), read["tensors"].size());
    for (const auto& [tensor_name, tensor] : tensors) {
      SCOPED_TRACE(tensor_name);
      ASSERT_TRUE(read["tensors"].contains(tensor_name));
      Json data = read["tensors"][tensor_name];
      if (name == "bool_other_bytes") {
        data["data"] = "00010101";  // ours become 0 and 1
      }
      expect_tensor(data, tensor);
    }
    EXPECT_EQ(file->metadata(), (read["metadata"].get<std::map<std::string, std::string>>()));
    write_safetensors(reference_folder / "written" / (name + ".safetensors"), tensors, file->metadata());
    ++accepted;
  }
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 100);
}

TEST(Reference, SameTensorsAsTransformers) {
  ASSERT_GT(manifest()["models"].size(), 10u);
  for (const auto& [name, expected] : manifest()["models"].items()) {
    SCOPED_TRACE(name);
    const auto checkpoint = Checkpoint::open(reference_folder / "models" / name);
    std::vector<WantedTensor> wanted;
    for (const auto& [tensor, description] : expected["wanted"].items()) {
      wanted.push_back({tensor, description["shape"].get<std::vector<int64_t>>()});
    }
    NameRules rules;
    rules.tied = expected["tied"].get<std::vector<std::vector<std::string>>>();
    rules.ignored = expected["ignored"].get<std::vector<std::string>>();
    rules.tied = tied_by_content(*checkpoint, rules);
    EXPECT_EQ(rules.tied, (expected["tied_by_content"].get<std::vector<std::vector<std::string>>>()));
    const Resolution resolution = resolve_names(*checkpoint, wanted, rules);
    EXPECT_EQ(resolution.surplus, expected["surplus"].get<std::vector<std::string>>());
    const auto dtype = expected["dtype"] == "float16" ? at::kHalf : at::kFloat;
    for (const WantedTensor& tensor : wanted) {
      SCOPED_TRACE(tensor.name);
      expect_tensor(expected["wanted"][tensor.name], checkpoint->load(resolution.source.at(tensor.name), dtype));
    }
  }
}

// Without tied_by_content, config.json decides as in transformers 4: the embedding serves both.
TEST(Reference, TheEmbeddingServesADifferingHead) {
  const auto checkpoint = Checkpoint::open(reference_folder / "models" / "llama_twice_differing");
  NameRules rules;
  rules.tied = {{"model.embed_tokens.weight", "lm_head.weight"}};
  const auto resolution =
      resolve_names(*checkpoint, {{"lm_head.weight", {32, 8}}, {"model.embed_tokens.weight", {32, 8}}}, rules);
  EXPECT_EQ(resolution.source.at("lm_head.weight"), "model.embed_tokens.weight");
}

}  // namespace
}  // namespace shardpipe::checkpoint

int main(int argc, char** argv) {
  return shardpipe::test::reference_main(
      argc, argv, [](const std::filesystem::path& folder) { shardpipe::checkpoint::reference_folder = folder; });
}
