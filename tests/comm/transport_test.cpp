// A group of one rank, and what every transport refuses. Messages between processes: messages_test.cpp.
#include "comm/transport.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace shardpipe::comm {
namespace {

using testing::HasSubstr;

template <typename Call>
std::string internal_error(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::internal);
    return error.message();
  }
  return "no error";
}

TEST(Transport, GroupOfOne) {
  const Transport transport;
  EXPECT_EQ(transport.size(), 1);
  EXPECT_EQ(transport.rank(), 0);
  const at::Tensor sent = at::arange(10);
  at::Tensor first = at::zeros({10}, at::kLong);
  at::Tensor second = at::zeros({10}, at::kLong);
  // Receive first, then send first; tags keep messages apart, equal tags their order.
  MessageHandle early = transport.irecv(first, 0, 3);
  EXPECT_FALSE(early.done());
  transport.isend(sent + 1, 0, 4);
  transport.isend(sent, 0, 3).wait();
  EXPECT_TRUE(early.done());
  early.wait();
  EXPECT_TRUE(at::equal(first, sent));
  transport.isend(sent + 2, 0, 4);
  transport.irecv(first, 0, 4).wait();
  transport.irecv(second, 0, 4).wait();
  EXPECT_TRUE(at::equal(first, sent + 1));
  EXPECT_TRUE(at::equal(second, sent + 2));
  EXPECT_EQ(transport.statistics()[0].messages_sent, 3);
  EXPECT_EQ(transport.statistics()[0].bytes_received, 240);
}

TEST(Transport, EmptyTensorsAndHandles) {
  const Transport transport;
  transport.isend(at::empty({0}), 0);
  at::Tensor out = at::empty({0});
  transport.irecv(out, 0).wait();
  MessageHandle none;
  EXPECT_TRUE(none.done());
  none.wait();
}

TEST(Transport, RefusesWhatItCannotSend) {
  const Transport transport;
  const at::Tensor good = at::zeros({4});
  EXPECT_THAT(
      internal_error([&] {
        transport.isend(at::zeros({4, 4}).t(), 0);
      }),
      HasSubstr("isend needs a contiguous tensor, this one is not contiguous"));
  EXPECT_THAT(
      internal_error([&] { transport.irecv(at::Tensor(), 0); }),
      HasSubstr("irecv needs a contiguous tensor, this one is undefined"));
  EXPECT_THAT(internal_error([&] { transport.isend(at::empty({4}, at::device(at::kMeta)), 0); }), HasSubstr("on meta"));
  EXPECT_THAT(
      internal_error([&] { transport.isend(good, 1); }), HasSubstr("isend names rank 1, the group has ranks 0 to 0"));
  EXPECT_THAT(
      internal_error([&] { transport.isend(good, 0, -1); }), HasSubstr("isend has tag -1, must be 0 to 16777215"));
  EXPECT_THAT(internal_error([&] { transport.irecv(good, 0, 1 << 24); }), HasSubstr("irecv has tag 16777216"));
}

TEST(Transport, MessagesToItselfThatCannotArrive) {
  const Transport transport;
  at::Tensor out = at::zeros({4});
  EXPECT_THAT(
      internal_error([&] { transport.irecv(out, 0, 7).wait(); }),
      HasSubstr("waits for a message to itself (tag 7) whose send was not posted"));
  const Transport other;
  EXPECT_THAT(
      internal_error([&] { other.isend(out, 0, 7).wait(); }),
      HasSubstr("waits for a message to itself (tag 7) whose receive was not posted"));
  EXPECT_THAT(
      internal_error([&] { other.irecv(at::zeros({5}), 0, 7); }),
      HasSubstr("a message to itself (tag 7) has 16 bytes, its receive 20"));
}

TEST(ControlRecord, RoundTrip) {
  ControlRecord record;
  record.step = 3;
  record.lane = 1;
  record.count = 5;
  record.values[11] = -9;
  const ControlRecord back = control_record(to_tensor(record));
  EXPECT_EQ(back.step, 3);
  EXPECT_EQ(back.lane, 1);
  EXPECT_EQ(back.count, 5);
  EXPECT_EQ(back.values, record.values);
  EXPECT_EQ(empty_control_record().nbytes(), sizeof(ControlRecord));
  EXPECT_THAT(
      internal_error([] { control_record(at::zeros({3}, at::kLong)); }),
      HasSubstr("a control record has 128 bytes, this tensor 24"));
  EXPECT_THAT(
      internal_error([] { control_record(at::zeros({16}, at::kLong)); }), HasSubstr("a control record was expected"));
}

}  // namespace
}  // namespace shardpipe::comm
