// SPDX-License-Identifier: Apache-2.0
// The life of vsock connections between well-behaved sides.
#include "virtio/vsock/vsock_device.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "virtio/testing/vsock_guest.hpp"

namespace msb::virtio {
namespace {

using testing::FakeIo;
using testing::text_of;
using testing::VsockGuest;
using testing::VsockWorld;

constexpr VsockConnectionKey kKey{VsockWorld::kOpenPort, VsockWorld::kGuestPort};

TEST_CASE_FIXTURE(VsockWorld, "the configuration is the guest's CID") {
  CHECK(guest.device.type() == 19);
  CHECK(guest.device.features() == 0);
  REQUIRE(guest.device.config().size() == 8);
  std::uint64_t cid = 0;
  std::memcpy(&cid, guest.device.config().data(), sizeof cid);
  CHECK(cid == VsockGuest::kCid);
}

TEST_CASE_FIXTURE(VsockWorld, "a guest connects to a host port and both sides talk") {
  guest.give_buffers(1);
  guest.send(VsockOp::kRequest, kKey);
  const auto response = guest.receive_one(VsockOp::kResponse);
  CHECK(response.host_port == kKey.host_port);
  CHECK(response.guest_port == kKey.guest_port);
  CHECK(response.length == 0);
  CHECK(response.forward_count == 0);
  REQUIRE(accepted.size() == 1);
  const Fd host = std::move(accepted[0]);

  guest.send_text(kKey, "from the ");
  guest.send_text(kKey, "guest");
  io.run();
  CHECK(read_all(host) == "from the guest");
  CHECK_FALSE(at_end(host));

  write_text(host, "from the host");
  io.run();
  CHECK(guest.receive().empty());  // no buffer yet
  guest.give_buffers(2);
  io.run();
  const auto data = guest.receive_one(VsockOp::kReadWrite);
  CHECK(text_of(data) == "from the host");
  CHECK(data.forward_count == 14);
  CHECK(guest.notifier.interrupts > 0);
  CHECK(guest.notifier.resets_wanted == 0);
}

TEST_CASE_FIXTURE(VsockWorld, "a port where nobody listens is answered by a reset") {
  guest.give_buffers(2);
  guest.send(VsockOp::kRequest, {999, 1});
  const auto packet = guest.receive_one(VsockOp::kReset);
  CHECK(packet.host_port == 999);
  CHECK(packet.guest_port == 1);
  CHECK(accepted.empty());
}

TEST_CASE_FIXTURE(
    VsockWorld, "a host program connects to a guest port and is greeted before the guest's bytes") {
  auto [device_end, host] = make_pair();
  guest.device.connect(std::move(device_end), 77);
  guest.give_buffers(2);
  const auto request = guest.receive_one(VsockOp::kRequest);
  CHECK(request.guest_port == 77);
  CHECK(request.host_port >= 1U << 30);
  io.run();
  CHECK(read_all(host).empty());
  const VsockConnectionKey key{request.host_port, 77};
  guest.add_packet(guest.header_of(VsockOp::kResponse, key));
  guest.add_packet(guest.header_of(VsockOp::kReadWrite, key, 5),
                   std::as_bytes(std::span("hello", 5)));
  guest.kick();
  io.run();
  CHECK(read_all(host) == "OK " + std::to_string(key.host_port) + "\nhello");

  // The greeting is not the guest's: it has no part in the credit.
  guest.send(VsockOp::kCreditRequest, key);
  CHECK(guest.receive_one(VsockOp::kCreditUpdate).forward_count == 5);
}

TEST_CASE_FIXTURE(VsockWorld, "host connections have ports of their own") {
  auto [first, first_key] = open_from_host();
  auto [second, second_key] = open_from_host();
  CHECK(first_key != second_key);
  guest.send_text(second_key, "two");
  guest.send_text(first_key, "one");
  io.run();
  CHECK(read_all(first) == "one");
  CHECK(read_all(second) == "two");
}

TEST_CASE_FIXTURE(VsockWorld,
                  "a guest that refuses a host's connection closes its socket without a greeting") {
  auto [device_end, host] = make_pair();
  guest.give_buffers(1);
  guest.device.connect(std::move(device_end), 77);
  const auto request = guest.receive_one(VsockOp::kRequest);
  guest.send(VsockOp::kReset, {request.host_port, 77});
  io.run();
  CHECK(read_all(host).empty());
  CHECK(at_end(host));
  CHECK(io.pending() == 0);
}

TEST_CASE_FIXTURE(VsockWorld, "a connection without a driver is closed at once") {
  guest.device.reset([] {});
  auto [device_end, host] = make_pair();
  guest.device.connect(std::move(device_end), 77);
  CHECK(at_end(host));
}

TEST_CASE_FIXTURE(VsockWorld,
                  "the guest's end is the host's end of file, and the host still talks") {
  const Fd host = open_from_guest(kKey);
  guest.send_text(kKey, "last words");
  guest.send(VsockOp::kShutdown, kKey, kVsockShutdownSend);
  io.run();
  CHECK(read_all(host) == "last words");
  CHECK(at_end(host));
  write_text(host, "answer");
  guest.give_buffers(1);
  io.run();
  CHECK(text_of(guest.receive_one(VsockOp::kReadWrite)) == "answer");
}

// Found by this test: io_uring's POLLRDHUP was taken for the complete close, and the guest's answer
// was cut off.
TEST_CASE_FIXTURE(VsockWorld,
                  "the host's end is a SHUTDOWN, the guest still talks, and the close is a reset") {
  const Fd host = open_from_guest(kKey);
  write_text(host, "last words");
  ::shutdown(host.get(), SHUT_WR);
  guest.give_buffers(4);
  io.run();
  const auto packets = guest.receive();
  REQUIRE(packets.size() == 2);
  CHECK(text_of(packets[0]) == "last words");
  CHECK(packets[1].op == VsockOp::kShutdown);
  CHECK(packets[1].flags == kVsockShutdownSend);
  guest.send_text(kKey, "answer");
  io.run();
  CHECK(read_all(host) == "answer");
  CHECK(guest.receive().empty());
  // The guest ends too: nothing is left to be done.
  guest.send(VsockOp::kShutdown, kKey, kVsockShutdownSend);
  io.run();
  CHECK(at_end(host));
  CHECK(guest.receive_one(VsockOp::kReset).guest_port == kKey.guest_port);
  CHECK(io.pending() == 0);
}

TEST_CASE_FIXTURE(VsockWorld, "the guest's end and then the host's are the end of the connection") {
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(4);
  guest.send(VsockOp::kShutdown, kKey, kVsockShutdownSend);
  io.run();
  CHECK(guest.receive().empty());
  ::shutdown(host.get(), SHUT_WR);
  io.run();
  const auto packets = guest.receive();
  REQUIRE(packets.size() == 2);
  CHECK(packets[0].op == VsockOp::kShutdown);
  CHECK(packets[1].op == VsockOp::kReset);
  CHECK(io.pending() == 0);
}

TEST_CASE_FIXTURE(VsockWorld,
                  "a host that ends first and closes later resets the guest when it writes again") {
  Fd host = open_from_guest(kKey);
  guest.give_buffers(4);
  ::shutdown(host.get(), SHUT_WR);
  io.run();
  guest.receive_one(VsockOp::kShutdown);
  const std::size_t started = io.started();
  io.run();
  CHECK(io.started() == started);  // no polling in circles
  host.reset();
  io.run();
  guest.send_text(kKey, "anybody?");
  io.run();
  guest.receive_one(VsockOp::kReset);
  CHECK(io.pending() == 0);
}

TEST_CASE_FIXTURE(VsockWorld, "a host that closes leaves its last bytes, an end and a reset") {
  Fd host = open_from_guest(kKey);
  write_text(host, "last words");
  host.reset();
  guest.give_buffers(4);
  io.run();
  const auto packets = guest.receive();
  REQUIRE(packets.size() == 3);
  CHECK(text_of(packets[0]) == "last words");
  CHECK(packets[1].op == VsockOp::kShutdown);
  CHECK(packets[2].op == VsockOp::kReset);
  CHECK(io.pending() == 0);
}

TEST_CASE_FIXTURE(VsockWorld,
                  "a host that closes before the guest accepts leads to a reset once it does") {
  auto [device_end, host] = make_pair();
  guest.give_buffers(4);
  guest.device.connect(std::move(device_end), 77);
  const auto request = guest.receive_one(VsockOp::kRequest);
  host.reset();
  guest.send(VsockOp::kResponse, {request.host_port, 77});
  io.run();
  const auto packets = guest.receive();
  REQUIRE_FALSE(packets.empty());
  CHECK(packets.back().op == VsockOp::kReset);
  CHECK(io.pending() == 0);
}

TEST_CASE_FIXTURE(
    VsockWorld, "a shutdown of both directions is answered by a reset when all bytes are written") {
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(2);
  io.hold = [](const FakeIo::Request& request) { return request.kind == FakeIo::Kind::kWrite; };
  guest.send_text(kKey, "first");
  guest.send_text(kKey, "second");
  guest.send(VsockOp::kShutdown, kKey, kVsockShutdownSend | kVsockShutdownReceive);
  io.run();
  CHECK(guest.receive().empty());
  io.hold = nullptr;
  io.run();
  CHECK(read_all(host) == "firstsecond");
  CHECK(at_end(host));
  guest.receive_one(VsockOp::kReset);
  CHECK(io.pending() == 0);
}

TEST_CASE_FIXTURE(VsockWorld, "the flags of two SHUTDOWN packets add up") {
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(2);
  guest.send(VsockOp::kShutdown, kKey, kVsockShutdownReceive);
  io.run();
  CHECK(guest.receive().empty());
  guest.send(VsockOp::kShutdown, kKey, kVsockShutdownSend);
  io.run();
  guest.receive_one(VsockOp::kReset);
  CHECK(at_end(host));
}

TEST_CASE_FIXTURE(VsockWorld, "what a guest sent before its reset still reaches a slow host") {
  const Fd host = open_from_guest(kKey);
  io.hold = [](const FakeIo::Request& request) { return request.kind == FakeIo::Kind::kWrite; };
  guest.send_text(kKey, "before ");
  guest.send_text(kKey, "the end");
  guest.send(VsockOp::kReset, kKey);
  guest.send(VsockOp::kReset, kKey);
  io.run();
  CHECK_FALSE(at_end(host));
  io.hold = nullptr;
  io.run();
  CHECK(read_all(host) == "before the end");
  CHECK(at_end(host));
  CHECK(io.pending() == 0);
}

TEST_CASE_FIXTURE(VsockWorld, "a host that reads no more is no end for what it sends") {
  const Fd host = open_from_guest(kKey);
  guest.give_buffers(4);
  ::shutdown(host.get(), SHUT_RD);
  guest.send_text(kKey, "nobody listens");
  io.run();
  guest.receive();
  write_text(host, "but I talk");
  io.run();
  CHECK(text_of(guest.receive_one(VsockOp::kReadWrite)) == "but I talk");
}

TEST_CASE_FIXTURE(VsockWorld, "packets may be split over descriptors at any byte") {
  const Fd host = open_from_guest(kKey);
  const std::string text = "0123456789";
  for (std::uint32_t split = 0; split <= sizeof(VsockHeader) + text.size(); ++split) {
    const std::uint32_t pieces[] = {split};
    guest.add_packet(guest.header_of(VsockOp::kReadWrite, kKey, 10), std::as_bytes(std::span(text)),
                     pieces);
    guest.kick();
    io.run();
    CHECK(read_all(host) == text);
  }
  const std::vector<std::uint32_t> bytes(sizeof(VsockHeader) + text.size(), 1);
  guest.add_packet(guest.header_of(VsockOp::kReadWrite, kKey, 10), std::as_bytes(std::span(text)),
                   bytes);
  guest.kick();
  io.run();
  CHECK(read_all(host) == text);
}

TEST_CASE_FIXTURE(VsockWorld,
                  "receive buffers may be split at any byte, as Linux does behind the header") {
  const Fd host = open_from_guest(kKey);
  const GuestAddress at = testing::GuestRam::kStart + 12 * testing::kPage;
  const std::string text = "0123456789";
  for (std::uint32_t split = 0; split <= sizeof(VsockHeader) + text.size(); ++split) {
    const auto size = static_cast<std::uint32_t>(sizeof(VsockHeader) + text.size());
    guest.receive_queue.add({{at, split, true}, {at + split, size - split, true}});
    write_text(host, text);
    guest.device.on_queue(kVsockRxQueue);
    io.run();
    const auto used = guest.receive_queue.take_used();
    REQUIRE(used);
    CHECK(used->length == size);
    const auto payload = guest.ram.bytes(at + sizeof(VsockHeader), text.size());
    CHECK(std::memcmp(payload.data(), text.data(), text.size()) == 0);
  }
}

TEST_CASE_FIXTURE(VsockWorld, "senders take turns for the guest's buffers") {
  const Fd first = open_from_guest({kKey.host_port, 1});
  const Fd second = open_from_guest({kKey.host_port, 2});
  const std::string text(20'000, 'x');
  write_text(first, text);
  write_text(second, text);
  std::vector<std::uint32_t> order;
  for (int i = 0; i < 8; ++i) {
    guest.give_buffers(1);
    io.run();
    order.push_back(guest.receive_one(VsockOp::kReadWrite).guest_port);
  }
  for (std::size_t i = 1; i < order.size(); ++i) {
    CHECK(order[i] != order[i - 1]);
  }
}

TEST_CASE_FIXTURE(VsockWorld, "the event queue is left alone") {
  guest.event_queue.add({{testing::GuestRam::kStart + 12 * testing::kPage, 4, true}});
  guest.device.on_queue(kVsockEventQueue);
  CHECK(guest.event_queue.used_index() == 0);
}

TEST_CASE_FIXTURE(VsockWorld,
                  "a paused device reads nothing from the host and gives the guest nothing") {
  const VsockConnectionKey key{kOpenPort, kGuestPort};
  const Fd host = open_from_guest(key);
  guest.give_buffers(4);
  io.run();
  io.hold = [](const FakeIo::Request& request) { return request.kind == FakeIo::Kind::kRead; };
  write_text(host, "first");
  io.run();
  CHECK(io.pending(FakeIo::Kind::kRead) == 1);
  bool quiet = false;
  guest.device.pause([&] { quiet = true; });
  CHECK_FALSE(quiet);  // a buffer of the guest is still being filled
  io.hold = nullptr;
  io.run();
  CHECK(quiet);
  CHECK(text_of(guest.receive_one(VsockOp::kReadWrite)) == "first");
  write_text(host, "second");
  auto [device_end, other] = make_pair();
  guest.device.connect(std::move(device_end), kGuestPort);
  const auto before = guest.ram.snapshot();
  io.run();
  CHECK(guest.ram.snapshot() == before);
  guest.device.resume();
  guest.device.on_queue(kVsockRxQueue);
  io.run();
  const auto packets = guest.receive();
  REQUIRE(packets.size() == 2);
  const bool data_first = packets[0].op == VsockOp::kReadWrite;
  CHECK(text_of(packets[data_first ? 0 : 1]) == "second");
  CHECK(packets[data_first ? 1 : 0].op == VsockOp::kRequest);
}

}  // namespace
}  // namespace msb::virtio
