#include "checkpoint/pickle_machine.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {

PickleMachine::PickleMachine(std::span<const std::byte> bytes, const std::string& where)
    : bytes_(bytes), where_(where) {
  pickle_.bytes_ = bytes;
  pickle_.where_ = where;
}

void PickleMachine::damaged(const std::string& what) const {
  throw_input("the pickle in {} is damaged: {} at byte {}", where_, what, at_);
}

void PickleMachine::refuse(const std::string& what) const {
  throw Error(
      ErrorCode::input,
      fmt::format(
          "{} holds {}, which is refused (byte {} of its pickle): only tensors and plain containers are read, and "
          "nothing is executed",
          where_, what, at_),
      "save the state dictionary alone: torch.save(model.state_dict(), FILE)");
}

uint64_t PickleMachine::number(size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, piece(size).data(), size);
  return value;
}

std::string_view PickleMachine::piece(uint64_t size) {
  if (size > bytes_.size() - at_) {
    damaged(fmt::format("it ends, where {} more bytes are expected,", size));
  }
  const std::string_view result(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
  at_ += size;
  return result;
}

std::string_view PickleMachine::line() {
  const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_, bytes_.size() - at_);
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos) {
    damaged("a name without an end");
  }
  at_ += end + 1;
  return rest.substr(0, end);
}

Pickle::Id PickleMachine::add(Kind kind, int64_t value, uint32_t extra) {
  pickle_.values_.push_back({kind, 0, extra, value});
  return static_cast<Id>(pickle_.values_.size() - 1);
}

Pickle::Id PickleMachine::add_text(std::string_view text, Kind kind) {
  const auto offset = text.data() - reinterpret_cast<const char*>(bytes_.data());
  return add(kind, offset, static_cast<uint32_t>(text.size()));
}

void PickleMachine::append(Id container, std::span<const Id> items) {
  if (items.empty()) {
    return;
  }
  Pickle::Value& value = pickle_.values_[container];
  if (value.extra == 0) {
    pickle_.containers_.emplace_back();
    value.extra = static_cast<uint32_t>(pickle_.containers_.size());
  }
  std::vector<Id>& members = pickle_.containers_[value.extra - 1];
  members.insert(members.end(), items.begin(), items.end());
  for (const Id item : items) {
    const int depth = pickle_.values_[item].depth + 1;
    if (depth > kMaxPickleDepth) {
      throw_input("the pickle in {} is nested deeper than {} levels", where_, kMaxPickleDepth);
    }
    value.depth = std::max(value.depth, static_cast<uint16_t>(depth));
  }
}

Pickle::Id PickleMachine::add_container(Kind kind, std::span<const Id> items) {
  const Id id = add(kind);
  append(id, items);
  return id;
}

Pickle::Id PickleMachine::top() const {
  // What lies below the last mark belongs to who set it.
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) {
    damaged("nothing is on the stack");
  }
  return stack_.back();
}

Pickle::Id PickleMachine::pop() {
  const Id id = top();
  stack_.pop_back();
  return id;
}

std::vector<Pickle::Id> PickleMachine::pop_to_mark() {
  if (marks_.empty()) {
    damaged("no mark is on the stack");
  }
  std::vector<Id> result(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
  stack_.resize(marks_.back());
  marks_.pop_back();
  return result;
}

Pickle::Id PickleMachine::need(Id id, Kind kind, const char* what) const {
  if (pickle_.kind(id) != kind) {
    damaged(fmt::format("{} of the wrong type", what));
  }
  return id;
}

void PickleMachine::memoize(uint64_t index) {
  const Id id = top();
  if (index < memo_.size()) {
    memo_[index] = id;
  } else if (index == memo_.size()) {
    memo_.push_back(id);
  } else {
    scattered_memo_[index] = id;
  }
}

void PickleMachine::push_integer(uint64_t size) {
  const std::string_view digits = piece(size);
  if (size > sizeof(int64_t)) {
    stack_.push_back(add_text(digits, Kind::opaque));
    return;
  }
  const bool negative = size > 0 && (static_cast<unsigned char>(digits.back()) & 0x80) != 0;
  uint64_t value = negative ? ~uint64_t{0} : 0;  // two's complement, sign extended
  std::memcpy(&value, digits.data(), size);
  stack_.push_back(add(Kind::integer, static_cast<int64_t>(value)));
}

bool PickleMachine::push_constant(uint8_t opcode) {
  switch (opcode) {
    case 'N':
      stack_.push_back(add(Kind::none));
      return true;
    case 0x88:  // NEWTRUE
    case 0x89:  // NEWFALSE
      stack_.push_back(add(Kind::boolean, opcode == 0x88 ? 1 : 0));
      return true;
    case 'J':  // BININT, signed
      push_integer(4);
      return true;
    case 'K':  // BININT1
      stack_.push_back(add(Kind::integer, static_cast<int64_t>(number(1))));
      return true;
    case 'M':  // BININT2
      stack_.push_back(add(Kind::integer, static_cast<int64_t>(number(2))));
      return true;
    case 0x8A:  // LONG1
      push_integer(number(1));
      return true;
    case 0x8B:  // LONG4
      push_integer(number(4));
      return true;
    case 'G':  // BINFLOAT, big-endian
      stack_.push_back(add(Kind::real, static_cast<int64_t>(__builtin_bswap64(number(8)))));
      return true;
    default:
      return false;
  }
}

bool PickleMachine::push_text(uint8_t opcode) {
  switch (opcode) {
    case 0x8C:  // SHORT_BINUNICODE
    case 'U':   // SHORT_BINSTRING, Python 2's text
      stack_.push_back(add_text(piece(number(1))));
      return true;
    case 'X':  // BINUNICODE
    case 'T':  // BINSTRING
      stack_.push_back(add_text(piece(number(4))));
      return true;
    case 0x8D:  // BINUNICODE8
      stack_.push_back(add_text(piece(number(8))));
      return true;
    case 'C':  // SHORT_BINBYTES
      stack_.push_back(add_text(piece(number(1)), Kind::opaque));
      return true;
    case 'B':  // BINBYTES
      stack_.push_back(add_text(piece(number(4)), Kind::opaque));
      return true;
    case 0x8E:  // BINBYTES8
    case 0x96:  // BYTEARRAY8
      stack_.push_back(add_text(piece(number(8)), Kind::opaque));
      return true;
    default:
      return false;
  }
}

bool PickleMachine::make_container(uint8_t opcode) {
  switch (opcode) {
    case '(':
      marks_.push_back(stack_.size());
      return true;
    case ']':
      stack_.push_back(add(Kind::list));
      return true;
    case '}':
      stack_.push_back(add(Kind::dict));
      return true;
    case ')':
      stack_.push_back(add(Kind::tuple));
      return true;
    case 0x8F:  // EMPTY_SET
      stack_.push_back(add(Kind::set));
      return true;
    case 't':
      stack_.push_back(add_container(Kind::tuple, pop_to_mark()));
      return true;
    case 'l':
      stack_.push_back(add_container(Kind::list, pop_to_mark()));
      return true;
    case 0x91:  // FROZENSET
      stack_.push_back(add_container(Kind::set, pop_to_mark()));
      return true;
    case 0x85:  // TUPLE1
    case 0x86:  // TUPLE2
    case 0x87: {
      std::vector<Id> items(static_cast<size_t>(opcode - 0x84));
      for (size_t i = items.size(); i-- > 0;) {
        items[i] = pop();
      }
      stack_.push_back(add_container(Kind::tuple, items));
      return true;
    }
    default:
      return false;
  }
}

bool PickleMachine::fill_container(uint8_t opcode) {
  switch (opcode) {
    case 'a': {  // APPEND
      const Id item = pop();
      append(need(top(), Kind::list, "APPEND to a value"), std::span(&item, 1));
      return true;
    }
    case 'e': {  // APPENDS
      const std::vector<Id> items = pop_to_mark();
      append(need(top(), Kind::list, "APPENDS to a value"), items);
      return true;
    }
    case 0x90: {  // ADDITEMS
      const std::vector<Id> items = pop_to_mark();
      append(need(top(), Kind::set, "ADDITEMS to a value"), items);
      return true;
    }
    case 's': {  // SETITEM
      const Id value = pop();
      const std::array<Id, 2> pair = {pop(), value};
      append(need(top(), Kind::dict, "SETITEM in a value"), pair);
      return true;
    }
    case 'd':    // DICT
    case 'u': {  // SETITEMS
      const std::vector<Id> items = pop_to_mark();
      if (items.size() % 2 != 0) {
        damaged("a key without a value");
      }
      if (opcode == 'd') {
        stack_.push_back(add(Kind::dict));
      }
      append(need(top(), Kind::dict, "SETITEMS in a value"), items);
      return true;
    }
    default:
      return false;
  }
}

bool PickleMachine::use_memo(uint8_t opcode) {
  switch (opcode) {
    case 'q':  // BINPUT
      memoize(number(1));
      return true;
    case 'r':  // LONG_BINPUT
      memoize(number(4));
      return true;
    case 0x94:  // MEMOIZE
      memoize(memo_.size() + scattered_memo_.size());
      return true;
    case 'h':    // BINGET
    case 'j': {  // LONG_BINGET
      const uint64_t index = number(opcode == 'h' ? 1 : 4);
      if (index < memo_.size()) {
        stack_.push_back(memo_[index]);
        return true;
      }
      const auto found = scattered_memo_.find(index);
      if (found == scattered_memo_.end()) {
        damaged(fmt::format("value {}, which the pickle has not numbered,", index));
      }
      stack_.push_back(found->second);
      return true;
    }
    case '0':  // POP: a value or a mark
      if (!marks_.empty() && marks_.back() == stack_.size()) {
        marks_.pop_back();
      } else {
        pop();
      }
      return true;
    case '1':  // POP_MARK
      pop_to_mark();
      return true;
    case '2':  // DUP
      stack_.push_back(top());
      return true;
    default:
      return false;
  }
}

Pickle PickleMachine::run() {
  if (bytes_.size() > kMaxPickleBytes) {
    throw_input("the pickle in {} has {} bytes; at most {} are read", where_, bytes_.size(), kMaxPickleBytes);
  }
  if (number(1) != 0x80) {
    damaged("no protocol from 2 to 5");
  }
  if (const uint64_t protocol = number(1); protocol < 2 || protocol > 5) {
    throw_input("the pickle in {} has protocol {}; 2 to 5 are read", where_, protocol);
  }
  while (true) {
    const auto opcode = static_cast<uint8_t>(number(1));
    if (opcode == '.') {
      pickle_.root_ = pop();
      return std::move(pickle_);
    }
    if (opcode == 0x95) {  // FRAME: how many bytes to read at once
      number(8);
      continue;
    }
    if (!push_constant(opcode) && !push_text(opcode) && !make_container(opcode) && !fill_container(opcode) &&
        !use_memo(opcode) && !import_or_call(opcode)) {
      --at_;
      damaged(fmt::format("opcode 0x{:02X}, which protocols 2 to 5 of torch.save do not use,", opcode));
    }
  }
}

}  // namespace shardpipe::checkpoint
