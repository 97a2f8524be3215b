// Hand-made pickles: what each opcode means, and every refusal. Files of torch.save: torch_reference.cpp; random
// damage: tests/fuzz.
#include "checkpoint/pickle.h"

#include "checkpoint/test_files.h"

namespace shardpipe::checkpoint {
namespace {

using namespace std::string_literals;
using Kind = Pickle::Kind;

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string text(const std::string& value) {
  return "\x8C"s + static_cast<char>(value.size()) + value;
}

std::string global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}

// ("storage", torch.FloatStorage, "0", "cpu", 6) as a persistent id.
std::string storage() {
  return "(" + text("storage") + global("torch", "FloatStorage") + text("0") + text("cpu") + "K\6tQ";
}

std::string tensor(const std::string& shape = "K\2K\3\x86", const std::string& strides = "K\3K\1\x86") {
  return global("torch._utils", "_rebuild_tensor_v2") + "(" + storage() + "K\0"s + shape + strides + "\x89}tR";
}

std::string whole(const std::string& body) {
  return "\x80\2" + body + ".";
}

TEST(Pickle, Values) {
  const std::string bytes = whole(
      "(N\x88\x89"s + "K\xFF" + "M\xFF\xFF" + "J\xFE\xFF\xFF\xFF" + "\x8A\2\0\xFF"s + "\x8A\0"s +
      "\x8A\x09\0\0\0\0\0\0\0\0\1"s + "\x8B\1\0\0\0\x80"s + "G\xBF\xF8\0\0\0\0\0\0"s + text("abc") + "X\1\0\0\0z"s +
      "\x8D\1\0\0\0\0\0\0\0y"s + "U\1p" + "T\1\0\0\0q"s + "C\1b" + "(K\1K\2l(K\1K\2d(K\1\x91t");
  const Pickle pickle = parse_pickle(as_bytes(bytes), "here");
  const auto items = pickle.items(pickle.root());
  ASSERT_EQ(items.size(), 20U);
  const std::vector<Kind> kinds = {Kind::none,    Kind::boolean, Kind::boolean, Kind::integer, Kind::integer,
                                   Kind::integer, Kind::integer, Kind::integer, Kind::opaque,  Kind::integer,
                                   Kind::real,    Kind::text,    Kind::text,    Kind::text,    Kind::text,
                                   Kind::text,    Kind::opaque,  Kind::list,    Kind::dict,    Kind::set};
  for (size_t i = 0; i < kinds.size(); ++i) {
    EXPECT_EQ(pickle.kind(items[i]), kinds[i]) << i;
  }
  EXPECT_EQ(pickle.text(items[11]), "abc");
  EXPECT_EQ(pickle.text(items[13]), "y");
  EXPECT_EQ(pickle.items(items[17]).size(), 2U);
}

TEST(Pickle, StackAndMemo) {
  // A value numbered late and out of order, taken twice; POP of a value and of a mark, POP_MARK, DUP.
  const std::string bytes = whole(
      "("s + text("a") + "q\5" + text("b") + "r\0\0\0\0"s + "h\5j\0\0\0\0"s + "N0" + "(0" + "(NN1" + "2" + "\x94" +
      "t");
  const Pickle pickle = parse_pickle(as_bytes(bytes), "here");
  std::string joined;
  for (const Pickle::Id id : pickle.items(pickle.root())) {
    joined += pickle.text(id);
  }
  EXPECT_EQ(joined, "ababb");
}

TEST(Pickle, Tensor) {
  const std::string bytes = whole(tensor());
  const Pickle pickle = parse_pickle(as_bytes(bytes), "here");
  ASSERT_EQ(pickle.kind(pickle.root()), Kind::tensor);
  const PickledTensor described = pickle.tensor(pickle.root(), "a");
  EXPECT_EQ(described.storage, "0");
  EXPECT_EQ(described.dtype, ElementType::float32);
  EXPECT_EQ(described.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(described.strides, (std::vector<int64_t>{3, 1}));
  EXPECT_FALSE(described.conjugate);
}

TEST(Pickle, DamageIsNamed) {
  const std::string v2 = global("torch._utils", "_rebuild_tensor_v2");
  const std::string dict = global("collections", "OrderedDict");
  const std::string from_type = global("torch._tensor", "_rebuild_from_type_v2");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "it ends, where 1 more bytes are expected"},
      {whole(""), "nothing is on the stack"},
      {whole("(."), "nothing is on the stack"},
      {whole("N(0s"), "nothing is on the stack"},
      {whole("t"), "no mark is on the stack"},
      {whole("]q\1h\2"), "value 2, which the pickle has not numbered"},
      {whole("X\xFF\xFF\xFF\x7F"), "it ends, where 2147483647 more bytes are expected"},
      {whole("\x8D\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), "it ends, where 18446744073709551615 more bytes"},
      {"\x80\2cos", "a name without an end"},
      {"N.", "no protocol from 2 to 5"},
      {"\x80\6N.", "has protocol 6; 2 to 5 are read"},
      {"\x80\1N.", "has protocol 1; 2 to 5 are read"},
      {whole("I5\n"), "opcode 0x49, which protocols 2 to 5 of torch.save do not use, at byte 2"},
      {whole("}Na"), "APPEND to a value of the wrong type"},
      {whole("}(Ne"), "APPENDS to a value of the wrong type"},
      {whole("}(N\x90"), "ADDITEMS to a value of the wrong type"},
      {whole("]NNs"), "SETITEM in a value of the wrong type"},
      {whole("](NNu"), "SETITEMS in a value of the wrong type"},
      {whole("}(Nu"), "a key without a value"},
      {whole("NN\x93"), "a global's name of the wrong type"},
      {whole("N" + text("a") + "\x93"), "a global's module of the wrong type"},
      {whole("NQ"), "a persistent id of the wrong type"},
      {whole(")Q"), "a persistent id that is no storage"},
      {whole("(" + text("storage") + dict + text("0") + text("cpu") + "K\6tQ"), "a storage without a type"},
      {whole("N)R"), "what is called of the wrong type"},
      {whole(dict + "NR"), "the arguments of a call of the wrong type"},
      {whole(dict + "]\x85R"), "an OrderedDict with arguments"},
      {whole(global("torch", "Size") + "N\x85R"), "a container of what is none"},
      {whole(global("torch._utils", "_rebuild_parameter") + ")R"), "a parameter without a tensor"},
      {whole(global("torch._utils", "_rebuild_parameter") + "N\x85R"), "a parameter's tensor of the wrong type"},
      {whole(from_type + ")R"), "a tensor's subclass that cannot be rebuilt"},
      {whole(from_type + "(" + from_type + global("torch", "Tensor") + ")NtR"), "subclass that cannot be rebuilt"},
      {whole(from_type + "(" + v2 + dict + ")NtR"), "subclass that cannot be rebuilt"},
      {whole(v2 + ")R"), "a tensor of 0 arguments"},
      {whole(v2 + "(NK\0))\x89}tR"s), "a tensor's storage of the wrong type"},
      {whole(v2 + "(" + storage() + "N))\x89}tR"), "a tensor's offset of the wrong type"},
      {whole(tensor("N")), "a tensor's shape of the wrong type"},
      {whole(tensor(")", "N")), "a tensor's strides of the wrong type"},
      {whole(global("torch._utils", "_rebuild_tensor_v3") + "(" + storage() + "K\0))\x89}NtR"s),
       "a dtype of the wrong type"},
      {whole(v2 + "(" + storage() + "K\0))\x89}K\1tR"s), "a tensor's metadata of the wrong type"},
      {whole(v2 + "(" + storage() + "K\0))\x89}}NNstR"s), "a key of a tensor's metadata of the wrong type"},
      {whole(v2 + "(" + storage() + "K\0))\x89}}"s + text("conj") + "NstR"), "a tensor's metadata of the wrong type"},
      {whole(v2 + "(" + storage() + "K\0))\x89}}(N\x88N\x88N\x88utR"s), "a tensor's metadata of 3 entries"},
  };
  for (const auto& [bytes, message] : cases) {
    expect_error(ErrorCode::input, {"in the file", message}, [&] { parse_pickle(as_bytes(bytes), "the file"); });
  }
}

TEST(Pickle, WhatIsNoDataIsRefused) {
  const std::string v2 = global("torch._utils", "_rebuild_tensor_v2");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {global("os", "system"), "\"os.system\""},
      {global("builtins", "exec\x1B[2J"), "\"builtins.exec\\u001b[2J\""},
      {global("torch", "QInt8Storage"), "\"torch.QInt8Storage\""},
      {global("torch", ""), "\"torch.\""},
      {text("os") + text("system") + "\x93", "\"os.system\""},
      {"(ios\nsystem\n", "\"os.system\""},
      {"Pabc\n", "a persistent id \"abc\""},
      {")\x81", "an object of a class"},
      {")}\x92", "an object of a class"},
      {"(o", "an object of a class"},
      {"\x82\1", "an extension code"},
      {"\x83\1\1", "an extension code"},
      {"\x84\1\1\1\1", "an extension code"},
      {"\x97", "an out-of-band buffer"},
      {"\x98", "an out-of-band buffer"},
      {"]Nb", "an object with attributes"},
      {global("torch", "FloatStorage") + ")R", "a call of a type"},
      {v2 + "(" + storage() + "K\0))\x89}}"s + text("packed") + "\x88stR", "a tensor with the metadata \"packed\""},
  };
  for (const auto& [body, message] : cases) {
    expect_error(ErrorCode::input, {"the file holds", message, "refused", "nothing is executed"}, [&] {
      parse_pickle(as_bytes(whole(body)), "the file");
    });
  }
}

TEST(Pickle, ImpossibleShapes) {
  const auto read = [](const std::string& bytes) {
    const Pickle pickle = parse_pickle(as_bytes(bytes), "the file");
    pickle.tensor(pickle.root(), "w");
  };
  const auto refused = [&](const std::string& bytes, const std::string& message) {
    expect_error(ErrorCode::input, {"\"w\" in the file", message}, [&] { read(bytes); });
  };
  const std::string minus = "J\xFF\xFF\xFF\xFF";
  refused(whole(tensor(minus + "\x85", "K\1\x85")), "an extent that is no number from 0 on");
  refused(whole(tensor("K\1\x85", minus + "\x85")), "a stride that is no number from 0 on");
  refused(whole(tensor("N\x85", "K\1\x85")), "an extent that is no number");
  refused(whole(tensor("K\1\x85", ")")), "1 extents and 0 strides");
  std::string many = "(";
  for (int i = 0; i < 65; ++i) {
    many += "K\1";
  }
  refused(whole(tensor(many + "t", many + "t")), "65 extents and 65 strides");
  const std::string v2 = global("torch._utils", "_rebuild_tensor_v2");
  const std::string key = "X\1\x20\0\0"s + std::string(0x2001, 'k');
  const std::string far = "(" + text("storage") + global("torch", "FloatStorage") + key + text("cpu") + "K\6tQ";
  refused(whole(v2 + "(" + far + "K\0))\x89}tR"s), "a storage whose name has 8193 bytes; at most 4096");
  refused(whole(v2 + "(" + storage() + minus + "))\x89}tR"), "offset -1");
}

TEST(Pickle, Limits) {
  const auto nested = [](int levels) {
    return whole(std::string(static_cast<size_t>(levels), ']') + std::string(static_cast<size_t>(levels - 1), 'a'));
  };
  parse_pickle(as_bytes(nested(kMaxPickleDepth)), "the file");
  for (const int levels : {kMaxPickleDepth + 2, 100'000}) {
    expect_error(ErrorCode::input, {"the file is nested deeper than 256 levels"}, [&] {
      parse_pickle(as_bytes(nested(levels)), "the file");
    });
  }
  // A list inside itself is no depth that anything follows.
  parse_pickle(as_bytes(whole("]q\0h\0ah\0a"s)), "the file");
  const std::unique_ptr<void, void (*)(void*)> zeros(std::calloc(kMaxPickleBytes + 1, 1), std::free);
  const std::span<const std::byte> large(static_cast<const std::byte*>(zeros.get()), kMaxPickleBytes + 1);
  expect_error(ErrorCode::input, {"has 134217729 bytes; at most 134217728"}, [&] { parse_pickle(large, "the file"); });
}

}  // namespace
}  // namespace shardpipe::checkpoint
