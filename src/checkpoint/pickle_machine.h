#pragma once

#include <unordered_map>
#include <utility>

#include "checkpoint/pickle.h"
#include "checkpoint/pickle_globals.h"

namespace shardpipe::checkpoint {

/// Runs the opcodes of one pickle; see parse_pickle.
class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> bytes, const std::string& where);
  Pickle run();

 private:
  using Id = Pickle::Id;
  using Kind = Pickle::Kind;

  // Reading: little-endian numbers of 1 to 8 bytes, pieces, lines. Each checks that the bytes are there.
  uint64_t number(size_t size);
  std::string_view piece(uint64_t size);
  std::string_view line();

  // The opcodes, by what they do. Each returns whether `opcode` was one of its kind.
  bool push_constant(uint8_t opcode);
  bool push_text(uint8_t opcode);
  bool make_container(uint8_t opcode);
  bool fill_container(uint8_t opcode);
  bool use_memo(uint8_t opcode);
  bool import_or_call(uint8_t opcode);

  void push_integer(uint64_t size);
  void push_global(std::string_view module, std::string_view name);
  void push_storage();
  void reduce();
  void build();
  Id call(Id function, std::span<const Id> arguments);
  Id make_tensor(PickleGlobal function, std::span<const Id> arguments);
  std::pair<bool, bool> lazy_bits(Id metadata);

  Id add(Kind kind, int64_t value = 0, uint32_t extra = 0);
  Id add_text(std::string_view text, Kind kind = Kind::text);
  Id add_container(Kind kind, std::span<const Id> items);
  void append(Id container, std::span<const Id> items);
  Id pop();
  Id top() const;
  std::vector<Id> pop_to_mark();
  Id need(Id id, Kind kind, const char* what) const;
  void memoize(uint64_t index);

  [[noreturn]] void damaged(const std::string& what) const;
  [[noreturn]] void refuse(const std::string& what) const;

  Pickle pickle_;
  std::span<const std::byte> bytes_;
  const std::string& where_;
  size_t at_ = 0;
  std::vector<Id> stack_;
  std::vector<size_t> marks_;
  std::vector<Id> memo_;                             // the usual indices, 0, 1, 2 …
  std::unordered_map<uint64_t, Id> scattered_memo_;  // others
};

/// Limit of PyTorch's operators on dimensions.
inline constexpr size_t kMaxPickledDims = 64;

}  // namespace shardpipe::checkpoint
