#include "text/vocabulary_files.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

// Calls `take` with each line, without its end.
template <typename Take>
void each_line(std::string_view text, Take take) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    take(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

std::string read_text(const std::filesystem::path& path) {
  std::string text = read_file(path);
  if (!is_valid_utf8(text)) {
    throw_input("{} is no UTF-8", path.string());
  }
  return text;
}

std::string_view trim_end(std::string_view line) {
  while (!line.empty() && is_whitespace(code_point_at(line, last_char(line, line.size())))) {
    line = line.substr(0, last_char(line, line.size()));
  }
  return line;
}

TokenizerFile read_word_piece(const std::filesystem::path& path) {
  TokenizerFile file;
  file.where = path.string();
  file.fields = {{"model", {{"type", "WordPiece"}}}};
  file.has_vocabulary = true;
  uint32_t id = 0;
  each_line(read_text(path), [&](std::string_view line) { file.vocabulary.add(trim_end(line), id++); });
  file.vocabulary.index();
  return file;
}

TokenizerFile read_bpe(const std::filesystem::path& vocabulary, const std::filesystem::path& merges) {
  const std::string where = vocabulary.string();
  TokenizerFile file = parse_tokenizer_file(R"({"model":{"type":"BPE","vocab":)" + read_text(vocabulary) + "}}", where);
  file.has_merges = true;
  size_t number = 0;
  each_line(read_text(merges), [&](std::string_view line) {
    ++number;
    if (line.starts_with("#version")) {
      return;
    }
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      throw_input("{} line {} is {:?}, must be two tokens and one space", merges.string(), number, line);
    }
    file.merges.add(line.substr(0, space), line.substr(space + 1));
  });
  return file;
}

}  // namespace

TokenizerFile read_vocabulary_files(const std::filesystem::path& folder) {
  const auto has = [&](const char* name) { return std::filesystem::exists(folder / name); };
  if (has("vocab.txt")) {
    return read_word_piece(folder / "vocab.txt");
  }
  if (has("vocab.json") && has("merges.txt")) {
    return read_bpe(folder / "vocab.json", folder / "merges.txt");
  }
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    if (has(name)) {
      throw Error(
          ErrorCode::usage, fmt::format("{} has {}, but no tokenizer.json", folder.string(), name),
          "save it once with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)");
    }
  }
  throw Error(
      ErrorCode::usage,
      fmt::format("{} has no tokenizer.json, nor vocab.txt, nor vocab.json with merges.txt", folder.string()),
      "give --tokenizer or --input-ids");
}

}  // namespace shardpipe::text
