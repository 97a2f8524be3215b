// What a pickle imports and calls: the few functions that torch.save writes.
#include <algorithm>
#include <array>

#include "base/error.h"
#include "checkpoint/pickle_machine.h"
#include "checkpoint/text.h"

namespace shardpipe::checkpoint {

bool PickleMachine::import_or_call(uint8_t opcode) {
  switch (opcode) {
    case 'c': {  // GLOBAL
      const std::string_view module = line();
      push_global(module, line());
      return true;
    }
    case 0x93: {  // STACK_GLOBAL
      const Id name = need(pop(), Kind::text, "a global's name");
      const Id module = need(pop(), Kind::text, "a global's module");
      push_global(pickle_.text(module), pickle_.text(name));
      return true;
    }
    case 'Q':  // BINPERSID
      push_storage();
      return true;
    case 'R':
      reduce();
      return true;
    case 'b':
      build();
      return true;
    case 0x81:  // NEWOBJ
    case 0x92:  // NEWOBJ_EX
    case 'o':   // OBJ
      refuse("an object of a class");
    case 'i': {  // INST
      const std::string_view module = line();
      refuse(in_quotes(fmt::format("{}.{}", module, line())));
    }
    case 'P':  // PERSID
      refuse("a persistent id " + in_quotes(line()));
    case 0x82:  // EXT1
    case 0x83:  // EXT2
    case 0x84:  // EXT4
      refuse("an extension code");
    case 0x97:  // NEXT_BUFFER
    case 0x98:  // READONLY_BUFFER
      refuse("an out-of-band buffer");
    default:
      return false;
  }
}

void PickleMachine::push_global(std::string_view module, std::string_view name) {
  const std::optional<KnownGlobal> known = find_global(module, name);
  if (!known) {
    refuse(in_quotes(fmt::format("{}.{}", module, name)));
  }
  const Kind kind = known->meaning == PickleGlobal::dtype ? Kind::dtype : Kind::function;
  stack_.push_back(add(kind, static_cast<int64_t>(known->meaning), static_cast<uint32_t>(known->dtype)));
}

// ("storage", class, key, location, elements): bytes are in the archive's record data/<key>, wherever they were once.
void PickleMachine::push_storage() {
  const Id id = need(pop(), Kind::tuple, "a persistent id");
  const std::span<const Id> items = pickle_.items(id);
  if (items.size() != 5 || pickle_.kind(items[0]) != Kind::text || pickle_.text(items[0]) != "storage" ||
      pickle_.kind(items[1]) != Kind::function || pickle_.kind(items[2]) != Kind::text) {
    damaged("a persistent id that is no storage");
  }
  const Pickle::Value& type = pickle_.values_[items[1]];
  if (static_cast<PickleGlobal>(type.number) != PickleGlobal::storage) {
    damaged("a storage without a type");
  }
  pickle_.storages_.push_back({items[2], static_cast<ElementType>(type.extra)});
  stack_.push_back(add(Kind::storage, static_cast<int64_t>(pickle_.storages_.size() - 1)));
}

void PickleMachine::reduce() {
  const Id arguments = need(pop(), Kind::tuple, "the arguments of a call");
  const Id function = need(pop(), Kind::function, "what is called");
  stack_.push_back(call(function, pickle_.items(arguments)));
}

Pickle::Id PickleMachine::call(Id function, std::span<const Id> arguments) {
  const auto meaning = static_cast<PickleGlobal>(pickle_.values_[function].number);
  switch (meaning) {
    case PickleGlobal::rebuild_tensor:
    case PickleGlobal::rebuild_tensor_v2:
    case PickleGlobal::rebuild_tensor_v3:
      return make_tensor(meaning, arguments);
    case PickleGlobal::rebuild_parameter:
    case PickleGlobal::rebuild_parameter_with_state:
      if (arguments.empty()) {
        damaged("a parameter without a tensor");
      }
      return need(arguments[0], Kind::tensor, "a parameter's tensor");
    case PickleGlobal::rebuild_from_type: {
      const bool whole = arguments.size() == 4 && pickle_.kind(arguments[0]) == Kind::function &&
                         pickle_.kind(arguments[1]) == Kind::function && pickle_.kind(arguments[2]) == Kind::tuple;
      const auto called = [&](size_t i) { return static_cast<PickleGlobal>(pickle_.values_[arguments[i]].number); };
      // One level: a file may not make us call ourselves at will.
      if (!whole || called(1) != PickleGlobal::tensor_class || called(0) == PickleGlobal::rebuild_from_type) {
        damaged("a tensor's subclass that cannot be rebuilt");
      }
      return call(arguments[0], pickle_.items(arguments[2]));
    }
    case PickleGlobal::ordered_dict:
      if (!arguments.empty()) {
        damaged("an OrderedDict with arguments");
      }
      return add(Kind::dict);
    case PickleGlobal::container: {
      if (arguments.empty()) {
        return add(Kind::tuple);
      }
      const Kind kind = pickle_.kind(arguments[0]);
      if (arguments.size() > 1 || (kind != Kind::list && kind != Kind::tuple && kind != Kind::set)) {
        damaged("a container of what is none");
      }
      return arguments[0];
    }
    case PickleGlobal::opaque:
      return add(Kind::opaque);
    default:
      refuse("a call of a type");
  }
}

Pickle::Id PickleMachine::make_tensor(PickleGlobal function, std::span<const Id> arguments) {
  const size_t least = function == PickleGlobal::rebuild_tensor      ? 4
                       : function == PickleGlobal::rebuild_tensor_v2 ? 6
                                                                     : 7;
  if (arguments.size() < least || arguments.size() > least + (least == 4 ? 0 : 1)) {
    damaged(fmt::format("a tensor of {} arguments", arguments.size()));
  }
  Pickle::Tensor tensor{};
  tensor.storage = need(arguments[0], Kind::storage, "a tensor's storage");
  tensor.offset = need(arguments[1], Kind::integer, "a tensor's offset");
  tensor.shape = need(arguments[2], Kind::tuple, "a tensor's shape");
  tensor.strides = need(arguments[3], Kind::tuple, "a tensor's strides");
  tensor.dtype = pickle_.storages_[static_cast<size_t>(pickle_.values_[tensor.storage].number)].dtype;
  if (function == PickleGlobal::rebuild_tensor_v3) {
    tensor.dtype = static_cast<ElementType>(pickle_.values_[need(arguments[6], Kind::dtype, "a dtype")].extra);
  }
  if (arguments.size() > least) {
    std::tie(tensor.conjugate, tensor.negative) = lazy_bits(arguments[least]);
  }
  pickle_.tensors_.push_back(tensor);
  return add(Kind::tensor, static_cast<int64_t>(pickle_.tensors_.size() - 1));
}

// A tensor's metadata, {"conj": True, "neg": True} or None.
std::pair<bool, bool> PickleMachine::lazy_bits(Id metadata) {
  std::pair<bool, bool> bits = {false, false};
  if (pickle_.kind(metadata) == Kind::none) {
    return bits;
  }
  const std::span<const Id> items = pickle_.items(need(metadata, Kind::dict, "a tensor's metadata"));
  if (items.size() > 4) {  // many tensors may have one and the same
    damaged(fmt::format("a tensor's metadata of {} entries", items.size() / 2));
  }
  for (size_t i = 0; i < items.size(); i += 2) {
    const std::string_view key = pickle_.text(need(items[i], Kind::text, "a key of a tensor's metadata"));
    const bool value = pickle_.values_[need(items[i + 1], Kind::boolean, "a tensor's metadata")].number != 0;
    if (key == "conj") {
      bits.first = value;
    } else if (key == "neg") {
      bits.second = value;
    } else {
      refuse("a tensor with the metadata " + in_quotes(key));
    }
  }
  return bits;
}

// Attributes: those of a state dictionary (_metadata, the modules' versions) say nothing of its tensors.
void PickleMachine::build() {
  pop();
  if (const Kind kind = pickle_.kind(top()); kind != Kind::dict && kind != Kind::tensor) {
    refuse("an object with attributes");
  }
}

}  // namespace shardpipe::checkpoint
