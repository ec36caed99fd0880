// SPDX-License-Identifier: Apache-2.0
#include "base/control.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace msb {
namespace {

TEST_CASE("a message arrives with its number, text and descriptors") {
  auto pair = make_control_pair();
  REQUIRE(pair);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int descriptors[] = {null.get(), null.get()};
  REQUIRE(send_control(pair->ours.get(), ControlKind::kVsockConnect, 1025, "text", descriptors));
  auto message = receive_control(pair->theirs.get());
  REQUIRE(message);
  CHECK(message->kind == ControlKind::kVsockConnect);
  CHECK(message->value == 1025);
  CHECK(message->text == "text");
  REQUIRE(message->descriptors.size() == 2);
  CHECK((::fcntl(message->descriptors[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("receiving from an empty socket says EAGAIN and from a closed one that it was closed") {
  auto pair = make_control_pair();
  REQUIRE(pair);
  auto none = receive_control(pair->theirs.get());
  REQUIRE_FALSE(none);
  CHECK(none.error().code == EAGAIN);
  pair->ours.reset();
  auto closed = receive_control(pair->theirs.get());
  REQUIRE_FALSE(closed);
  CHECK(closed.error().code == 0);
  CHECK(closed.error().message == kControlClosed);
}

TEST_CASE("a message shorter than its header is refused and its descriptors are closed") {
  auto pair = make_control_pair();
  REQUIRE(pair);
  REQUIRE(::send(pair->ours.get(), "abc", 3, 0) == 3);
  auto message = receive_control(pair->theirs.get());
  REQUIRE_FALSE(message);
  CHECK(message.error().message == "a control message of 3 bytes is malformed");
}

TEST_CASE("a text beyond the limit is refused by the sender") {
  auto pair = make_control_pair();
  REQUIRE(pair);
  CHECK_FALSE(
      send_control(pair->ours.get(), ControlKind::kError, 0, std::string(kMaxControlMessage, 'x')));
}

TEST_CASE("sending to a closed socket is an error and no signal") {
  auto pair = make_control_pair();
  REQUIRE(pair);
  pair->theirs.reset();
  auto sent = send_control(pair->ours.get(), ControlKind::kProbe, 0);
  REQUIRE_FALSE(sent);
  CHECK(sent.error().code == EPIPE);
}

}  // namespace
}  // namespace msb
