// SPDX-License-Identifier: Apache-2.0
// Who may send how much (virtio 1.2 section 5.10.6.3; hostile-input.md 17, 18).
#include <doctest/doctest.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "virtio/testing/vsock_guest.hpp"

namespace msb::virtio {
namespace {

using testing::FakeIo;
using testing::GuestRam;
using testing::text_of;
using testing::VsockGuest;
using testing::VsockWorld;

constexpr VsockConnectionKey kKey{VsockWorld::kOpenPort, VsockWorld::kGuestPort};
constexpr std::uint32_t kLimit = VsockConnection::kBufferSize;

bool is_write(const FakeIo::Request& request) {
  return request.kind == FakeIo::Kind::kWrite;
}

std::size_t bytes_in(const std::vector<VsockGuest::Packet>& packets) {
  std::size_t bytes = 0;
  for (const auto& packet : packets) {
    bytes += packet.op == VsockOp::kReadWrite ? packet.length : 0;
  }
  return bytes;
}

TEST_CASE_FIXTURE(VsockWorld, "the host sends no more than the guest has room for") {
  guest.allocation = 10;
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(8);
  write_text(host, "0123456789abcdefghij");
  io.run();
  CHECK(text_of(guest.receive_one(VsockOp::kReadWrite)) == "0123456789");
  guest.forwarded = 3;
  guest.send(VsockOp::kCreditUpdate, kKey);
  io.run();
  CHECK(text_of(guest.receive_one(VsockOp::kReadWrite)) == "abc");
  guest.forwarded = 13;
  guest.allocation = 4;
  guest.send(VsockOp::kCreditUpdate, kKey);
  io.run();
  CHECK(text_of(guest.receive_one(VsockOp::kReadWrite)) == "defg");
  CHECK(io.pending(FakeIo::Kind::kRead) == 0);
}

TEST_CASE_FIXTURE(VsockWorld, "a guest whose room shrinks below what is under way gets nothing") {
  guest.allocation = 10;
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(8);
  write_text(host, std::string(100, 'x'));
  io.run();
  CHECK(bytes_in(guest.receive()) == 10);
  for (const std::uint32_t allocation : {0U, 1U, 9U, 10U}) {
    guest.allocation = allocation;
    guest.send(VsockOp::kCreditUpdate, kKey);
    io.run();
    CHECK(guest.receive().empty());
  }
  guest.allocation = 11;
  guest.send(VsockOp::kCreditUpdate, kKey);
  io.run();
  CHECK(bytes_in(guest.receive()) == 1);
}

TEST_CASE_FIXTURE(VsockWorld, "a guest that claims to have taken more than it got has no room") {
  guest.allocation = 10;
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(8);
  for (const std::uint32_t forwarded : {1U, 10U, 0x7fff'ffffU, 0x8000'0000U, 0xffff'fff0U}) {
    guest.forwarded = forwarded;
    guest.send(VsockOp::kCreditUpdate, kKey);
    write_text(host, "x");
    io.run();
    if (forwarded < 0xffff'fff0U) {
      CHECK(guest.receive().empty());
    }
  }
  guest.forwarded = 0;
  guest.send(VsockOp::kCreditUpdate, kKey);
  io.run();
  CHECK(bytes_in(guest.receive()) == 5);
}

TEST_CASE_FIXTURE(
    VsockWorld,
    "a guest without room does not keep the loop busy, and sees the host's end once it has") {
  guest.allocation = 0;
  Fd host = open_from_guest(kKey);
  guest.give_buffers(8);
  write_text(host, "data");
  host.reset();
  io.run();
  const std::size_t started = io.started();
  for (int i = 0; i < 100; ++i) {
    io.run_once();
    guest.device.on_queue(kVsockRxQueue);
  }
  CHECK(io.started() == started);
  CHECK(guest.receive().empty());
  guest.allocation = 100;
  guest.send(VsockOp::kCreditUpdate, kKey);
  io.run();
  const auto packets = guest.receive();
  REQUIRE(packets.size() == 3);
  CHECK(text_of(packets[0]) == "data");
}

TEST_CASE_FIXTURE(VsockWorld, "the host's counter of bytes wraps at 2^32") {
  // A backend that claims 1 GiB for each read; the guest keeps up.
  guest.allocation = 0xffff'ffff;
  const Fd host = open_from_guest(kKey);
  constexpr std::int32_t kStep = 1 << 30;
  std::uint32_t sent = 0;
  answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    return request.kind == FakeIo::Kind::kRead ? std::optional(kStep) : std::nullopt;
  };
  write_text(host, "always readable");
  for (int i = 0; i < 9; ++i) {
    guest.give_buffers(1);
    io.run();
    CHECK(guest.receive_one(VsockOp::kReadWrite).length == kStep);
    sent += kStep;
    guest.forwarded = sent;
    guest.send(VsockOp::kCreditUpdate, kKey);
  }
  // From here on real bytes, across the wrapped counters: 10 of room are 10 bytes.
  answer = nullptr;
  guest.allocation = 10;
  guest.send(VsockOp::kCreditUpdate, kKey);
  guest.give_buffers(2);
  io.run();
  CHECK(text_of(guest.receive_one(VsockOp::kReadWrite)) == "always rea");
}

TEST_CASE_FIXTURE(VsockWorld, "the guest's counter of bytes wraps at 2^32") {
  const Fd host = open_from_guest(kKey);
  ::shutdown(host.get(), SHUT_RD);  // a host that takes nothing: the bytes are counted and dropped
  guest.give_buffers(8);
  guest.send_text(kKey, "x");
  io.run();
  guest.receive();
  const GuestAddress at = GuestRam::kStart + 12 * testing::kPage;
  guest.ram.put(at, guest.header_of(VsockOp::kReadWrite, kKey, kLimit));
  std::uint32_t forwarded = 1;
  for (std::uint64_t total = 0; total < (std::uint64_t{1} << 32) + 8 * kLimit; total += kLimit) {
    guest.send_queue.add({{at, sizeof(VsockHeader), false}, {GuestRam::kStart, kLimit, false}});
    guest.kick();
    guest.give_buffers(1);
    forwarded += kLimit;
    const auto packets = guest.receive();
    if (packets.size() != 1 || packets[0].op != VsockOp::kCreditUpdate ||
        packets[0].forward_count != forwarded) {
      FAIL("after ", total, " bytes the credit did not come back");
    }
  }
  CHECK(forwarded == 8 * kLimit + 1);
}

TEST_CASE_FIXTURE(
    VsockWorld, "the guest's credit comes back as the host takes its bytes, and is told in time") {
  const Fd host = open_from_guest(kKey);
  const std::vector<std::byte> data(16 * 1024, std::byte{'x'});
  guest.give_buffers(64);
  std::uint64_t sent = 0;
  std::uint32_t told = 0;
  for (int i = 0; i < 200; ++i) {
    REQUIRE(sent - told + data.size() <= kLimit);  // it never has to wait
    guest.send_data(kKey, data);
    sent += data.size();
    io.run();
    for (const auto& packet : guest.receive()) {
      CHECK(packet.op == VsockOp::kCreditUpdate);
      told = packet.forward_count;
      CHECK(told <= sent);
    }
    read_all(host);
    io.run();
    guest.give_buffers(guest.receive_queue.free());
  }
  CHECK(told > 190 * data.size());
}

TEST_CASE_FIXTURE(VsockWorld, "a guest that uses exactly its credit is served") {
  const Fd host = open_from_guest(kKey);
  io.hold = is_write;
  const std::vector<std::byte> data(kLimit / 4, std::byte{'x'});
  for (int i = 0; i < 4; ++i) {
    guest.send_data(kKey, data);
  }
  guest.send_data(kKey, {});
  io.run();
  guest.give_buffers(2);
  CHECK(guest.receive().empty());
  io.hold = nullptr;
  std::size_t got = 0;
  for (int i = 0; i < 100 && got < kLimit; ++i) {
    io.run();
    got += read_all(host).size();
  }
  CHECK(got == kLimit);
}

TEST_CASE_FIXTURE(VsockWorld, "a guest that overruns its credit by one byte is reset") {
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(2);
  io.hold = is_write;
  const std::vector<std::byte> data(kLimit / 4, std::byte{'x'});
  for (int i = 0; i < 4; ++i) {
    guest.send_data(kKey, data);
  }
  guest.send_text(kKey, "y");
  guest.receive_one(VsockOp::kReset);
  io.hold = nullptr;
  io.run();
  CHECK(at_end(host));
  CHECK(io.pending() == 0);
  guest.send_text(kKey, "y");  // the connection is no more
  guest.receive_one(VsockOp::kReset);
}

TEST_CASE_FIXTURE(VsockWorld, "the greeting is no part of the guest's credit") {
  auto [device_end, host] = make_pair();
  guest.give_buffers(4);
  guest.device.connect(std::move(device_end), 77);
  const VsockConnectionKey key{guest.receive_one(VsockOp::kRequest).host_port, 77};
  io.hold = is_write;
  guest.send(VsockOp::kResponse, key);
  const std::vector<std::byte> data(kLimit / 4, std::byte{'x'});
  for (int i = 0; i < 4; ++i) {
    guest.send_data(key, data);
  }
  CHECK(guest.receive().empty());
  // The host takes the greeting in two parts: half of it says nothing about the guest's bytes.
  int turn = 0;
  io.hold = nullptr;
  answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    if (!is_write(request) || turn++ >= 2) {
      return std::nullopt;
    }
    return static_cast<std::int32_t>(
        ::send(request.fd, request.buffers[0].iov_base, 5, MSG_NOSIGNAL));
  };
  std::string got;
  for (int i = 0; i < 100; ++i) {
    io.run();
    got += read_all(host);
  }
  CHECK(got == "OK " + std::to_string(key.host_port) + "\n" + std::string(kLimit, 'x'));
  guest.receive();
  guest.send(VsockOp::kCreditRequest, key);
  CHECK(guest.receive_one(VsockOp::kCreditUpdate).forward_count == kLimit);
}

TEST_CASE_FIXTURE(
    VsockWorld,
    "a host that closed its end takes the guest's bytes no more, and the credit still comes back") {
  const Fd host = open_from_guest(kKey);
  ::shutdown(host.get(), SHUT_RD);
  guest.give_buffers(64);
  const std::vector<std::byte> data(16 * 1024, std::byte{'x'});
  for (int i = 0; i < 50; ++i) {
    guest.send_data(kKey, data);
    io.run();
  }
  std::uint32_t told = 0;
  for (const auto& packet : guest.receive()) {
    CHECK(packet.op == VsockOp::kCreditUpdate);
    told = packet.forward_count;
  }
  CHECK(told > 45 * data.size());
}

// Found by this test: the guest was never told, and could go on writing into nothing.
TEST_CASE_FIXTURE(VsockWorld, "a connection in which neither side takes bytes any more ends") {
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(4);
  ::shutdown(host.get(), SHUT_RD);
  guest.send(VsockOp::kShutdown, kKey, kVsockShutdownReceive);
  io.run();
  CHECK(guest.receive().empty());
  guest.send_text(kKey, "into nothing");
  io.run();
  guest.receive_one(VsockOp::kReset);
  CHECK(io.pending() == 0);
}

// Found by this test: the reset that answers the shutdown was forgotten when the last write failed.
TEST_CASE_FIXTURE(
    VsockWorld,
    "a shutdown of both directions is answered by a reset also when the host takes no more") {
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(4);
  io.hold = is_write;
  guest.send_text(kKey, "last words");
  guest.send(VsockOp::kShutdown, kKey, kVsockShutdownReceive | kVsockShutdownSend);
  io.run();
  CHECK(guest.receive().empty());
  ::shutdown(host.get(), SHUT_RD);
  io.hold = nullptr;
  io.run();
  guest.receive_one(VsockOp::kReset);
  CHECK(io.pending() == 0);
}

}  // namespace
}  // namespace msb::virtio
