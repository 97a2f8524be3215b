// Takes libFuzzer's place where the compiler has none: changes inputs at random, keeps those that reach new code, and
// writes down the one that ends the program. Understands the options of libFuzzer that run.py gives.
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Clock = std::chrono::steady_clock;

// One bit a call site that was reached, by a hash of its address.
std::array<uint8_t, 1 << 16> reached;
size_t count_reached = 0;

const std::string* current = nullptr;
std::string artifact_prefix;

uint64_t hash_of(const std::string& text) {
  uint64_t hash = 14695981039346656037U;  // FNV-1a
  for (const char c : text) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211U;
  }
  return hash;
}

std::string name_of(const std::string& input) {
  char name[17];
  std::snprintf(name, sizeof(name), "%016llx", static_cast<unsigned long long>(hash_of(input)));
  return name;
}

void write(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::string read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void save_artifact(const char* kind) {
  if (current != nullptr) {
    const std::string path = artifact_prefix + kind + "-" + name_of(*current);
    write(path, *current);
    std::fprintf(stderr, "Test unit written to %s\n", path.c_str());
    current = nullptr;
  }
}

void on_death() {
  save_artifact("crash");
}

void on_signal(int number) {
  save_artifact(number == SIGALRM ? "timeout" : "crash");
  ::_exit(number == SIGALRM ? 70 : 77);
}

// "\x41\"" of a dictionary's line `name="..."`; empty for a comment.
std::string dictionary_word(const std::string& line) {
  const size_t begin = line.find('"');
  const size_t end = line.rfind('"');
  std::string word;
  if (line.empty() || line[0] == '#' || begin == std::string::npos || end <= begin) {
    return word;
  }
  for (size_t i = begin + 1; i < end; ++i) {
    if (line[i] == '\\' && i + 3 < end && line[i + 1] == 'x') {
      word += static_cast<char>(std::stoi(line.substr(i + 2, 2), nullptr, 16));
      i += 3;
    } else {
      i += line[i] == '\\' ? 1 : 0;
      word += line[i];
    }
  }
  return word;
}

class Driver {
 public:
  explicit Driver(std::map<std::string, std::string> options) : options_(std::move(options)) {}

  void load(const std::vector<std::filesystem::path>& paths) {
    std::ifstream dictionary(options_["dict"]);
    for (std::string line; std::getline(dictionary, line);) {
      words_.push_back(dictionary_word(line));
    }
    for (const auto& path : paths) {
      if (!std::filesystem::is_directory(path)) {
        run(read(path));
        continue;
      }
      for (const auto& entry : std::filesystem::directory_iterator(path)) {
        corpus_.push_back(read(entry.path()));
        largest_ = std::max(largest_, corpus_.back().size());
      }
    }
    for (const std::string& input : corpus_) {
      run(input);
    }
  }

  void fuzz(const std::filesystem::path& kept) {
    const auto end = Clock::now() + std::chrono::seconds(std::stoi(options_["max_total_time"]));
    if (corpus_.empty()) {
      corpus_.emplace_back();
    }
    while (Clock::now() < end) {
      std::string input = changed(corpus_[draw(corpus_.size())]);
      const size_t before = count_reached;
      run(input);
      if (count_reached > before) {
        write(kept / name_of(input), input);
        corpus_.push_back(std::move(input));
      }
    }
  }

  size_t runs() const { return runs_; }

 private:
  size_t draw(size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  void run(const std::string& input) {
    // A copy of exactly its size, so that a byte too far is seen.
    const std::vector<uint8_t> bytes(input.begin(), input.end());
    current = &input;
    ::alarm(static_cast<unsigned>(std::stoi(options_["timeout"])));
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    ::alarm(0);
    current = nullptr;
    ++runs_;
  }

  std::string changed(std::string input) {
    for (size_t edits = 1 + draw(4); edits-- > 0;) {
      const size_t at = draw(input.size() + 1);
      const std::string& other = corpus_[draw(corpus_.size())];
      switch (draw(words_.empty() ? 6 : 8)) {
        case 0:
          input.insert(at, 1 + draw(4), static_cast<char>(draw(256)));
          break;
        case 1:
          input.erase(at, 1 + draw(draw(8) == 0 ? 256 : 8));
          break;
        case 2:
          input.insert(at, other.substr(draw(other.size()), draw(64)));
          break;
        case 3:
          input.replace(at, draw(64), other.substr(draw(other.size()), draw(64)));
          break;
        case 4:
        case 5:
          if (at < input.size()) {
            input[at] = static_cast<char>(draw(2) == 0 ? input[at] ^ (1 << draw(8)) : static_cast<int>(draw(256)));
          }
          break;
        default: {
          const std::string& word = words_[draw(words_.size())];
          input.replace(at, draw(2) == 0 ? word.size() : 0, word);
        }
      }
    }
    input.resize(std::min(input.size(), largest_));
    return input;
  }

  std::map<std::string, std::string> options_;
  std::vector<std::string> words_;
  std::vector<std::string> corpus_;
  size_t largest_ = 4096;
  size_t runs_ = 0;
  std::mt19937_64 random_{std::random_device()()};
};

}  // namespace

extern "C" void __sanitizer_cov_trace_pc() {
  const auto address = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  uint8_t& place = reached[(address ^ (address >> 16)) % reached.size()];
  count_reached += place == 0 ? 1 : 0;
  place = 1;
}

int main(int argc, char** argv) {
  std::map<std::string, std::string> options = {{"max_total_time", "0"}, {"timeout", "1200"}};
  std::vector<std::filesystem::path> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (argument[0] == '-' && equals != std::string::npos) {
      options[argument.substr(1, equals - 1)] = argument.substr(equals + 1);
    } else {
      paths.emplace_back(argument);
    }
  }
  artifact_prefix = options["artifact_prefix"];
  __sanitizer_set_death_callback(on_death);
  ::signal(SIGALRM, on_signal);
  ::signal(SIGABRT, on_signal);
  const auto begin = Clock::now();
  Driver driver(options);
  driver.load(paths);
  if (!paths.empty() && std::filesystem::is_directory(paths[0])) {
    driver.fuzz(paths[0]);
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - begin).count();
  std::fprintf(stderr, "Done %zu runs in %lld second(s)\n", driver.runs(), static_cast<long long>(seconds));
  return 0;
}
