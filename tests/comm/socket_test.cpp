#include "comm/socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/store.h"

namespace shardpipe::comm {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

template <typename Call>
std::string rank_error(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::rank);
    return error.what();
  }
  return "no error";
}

TEST(Socket, FreePortIsReached) {
  const Descriptor listening = listen_on("127.0.0.1", 0);
  EXPECT_GT(port_of(listening), 0);
  EXPECT_EQ(address_of(listening), "127.0.0.1");
  EXPECT_EQ(wait_for_listener("rank 1", "localhost", port_of(listening), milliseconds(1000)), "127.0.0.1");
  EXPECT_EQ(address_of(listen_on("some-host", 0)), "127.0.0.1") << "all addresses";
}

TEST(Socket, BusyPort) {
  const Descriptor listening = listen_on("127.0.0.1", 0);
  const int port = port_of(listening);
  EXPECT_THAT(
      rank_error([&] { listen_on("127.0.0.1", port); }),
      AllOf(
          HasSubstr("cannot listen on 127.0.0.1:" + std::to_string(port) + ": Address already in use"),
          HasSubstr("hint: ")));
  EXPECT_THAT(rank_error([&] { listen_on("some-host", port); }), HasSubstr("Address already in use"));
}

TEST(Socket, NobodyListens) {
  int port = 0;
  { port = port_of(listen_on("127.0.0.1", 0)); }
  EXPECT_THAT(
      rank_error([&] { wait_for_listener("rank 1", "127.0.0.1", port, milliseconds(300)); }),
      AllOf(
          HasSubstr("rank 1: cannot reach 127.0.0.1:" + std::to_string(port)), HasSubstr("within 0.3 s"),
          HasSubstr("Connection refused")));
  EXPECT_THAT(
      rank_error([&] { wait_for_listener("rank 1", "no-such-host.invalid", 1, milliseconds(300)); }),
      HasSubstr("cannot reach no-such-host.invalid:1"));
}

TEST(Store, WhatListensIsNoStore) {
  const Descriptor listening = listen_on("127.0.0.1", 0);  // accepts, never answers
  EXPECT_THAT(
      rank_error([&] { Store::connect("rank 1", "127.0.0.1", port_of(listening), milliseconds(500), "p"); }),
      AllOf(HasSubstr("rank 1: what listens at 127.0.0.1:"), HasSubstr("is not the store where the ranks meet")));
}

TEST(Store, KeysOfOneServer) {
  Store server = Store::serve(listen_on("127.0.0.1", 0), "job");
  Store client = Store::connect("rank 1", "localhost", server.port(), milliseconds(2000), "job");
  Store other = client.with_prefix("other");
  EXPECT_TRUE(server.is_server());
  EXPECT_FALSE(client.is_server());
  server.set("a", "1");
  EXPECT_EQ(server.find("a"), "1") << "setting does not wait for an answer, asking later does";
  EXPECT_EQ(client.find("a"), "1");
  EXPECT_EQ(other.find("a"), std::nullopt);
  EXPECT_FALSE(client.has({"a", "b"}));
  EXPECT_EQ(client.set_first("b", "mine"), "mine");
  EXPECT_EQ(server.set_first("b", "theirs"), "mine");
  EXPECT_TRUE(client.has({"a", "b"}));
  EXPECT_EQ(client.get({"b", "a"}), (std::vector<std::string>{"mine", "1"}));
  EXPECT_EQ(client.add("n", 2), 2);
  EXPECT_EQ(server.reconnect(milliseconds(2000)).add("n", 0), 2);
}

TEST(Socket, AddressTowardOthers) {
  // Toward this host itself: an interface that others can reach, or none.
  EXPECT_FALSE(is_loopback(address_toward("127.0.0.1")));
  EXPECT_TRUE(is_loopback("127.0.1.1"));
  EXPECT_TRUE(is_loopback("::1"));
  EXPECT_FALSE(is_loopback("10.0.0.1"));
}

}  // namespace
}  // namespace shardpipe::comm
