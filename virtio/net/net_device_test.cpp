// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/net_device.hpp"

#include <doctest/doctest.h>

#include "virtio/testing/net_guest.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

Frame to_guest(std::size_t payload, std::uint8_t value = 0x77) {
  return ethernet(kEtherTypeIpv4,
                  ipv4({.source = "192.0.2.1", .destination = "10.0.2.15", .protocol = kIpUdp},
                       udp(53, 9, bytes(payload, value))),
                  kGatewayMac, kGuestMac);
}

Frame from_guest(std::size_t payload, std::string_view destination = "192.0.2.1") {
  return ethernet(kEtherTypeIpv4, ipv4({.destination = destination, .protocol = kIpUdp},
                                       udp(9, 53, bytes(payload))));
}

TEST_CASE("the configuration space has the MAC address and the MTU") {
  const NetGuest guest(true);
  NetConfig config{};
  REQUIRE(guest.device->config().size() == sizeof config);
  std::memcpy(&config, guest.device->config().data(), sizeof config);
  CHECK(std::ranges::equal(config.mac, kGuestMac));
  CHECK(std::uint16_t{config.mtu} == 1500);
  CHECK((guest.device->features() & kNetFeatureHostTso4) != 0);
  CHECK((NetGuest(false).device->features() & kNetFeatureHostTso4) == 0);
}

TEST_CASE("frames of the guest reach the backend whole, however their descriptors are cut") {
  for (const bool tap : {true, false}) {
    CAPTURE(tap);
    NetGuest guest(tap);
    guest.start();
    for (const std::size_t payload : {0UL, 1UL, 300UL, 1472UL, 60'000UL}) {
      const Frame frame = from_guest(payload);
      const auto whole = static_cast<std::uint32_t>(frame.size() + sizeof(NetHeader));
      for (std::uint32_t cut = 1; cut < std::min(whole, 80U); cut += payload > 1000 ? 11 : 1) {
        const std::array<std::uint32_t, 3> pieces{cut, 1, 7};
        guest.add_frame(frame, {}, pieces);
        guest.kick();
        CHECK(guest.reclaim() == 1);
        REQUIRE(guest.taken() == frame);
      }
    }
    CHECK(guest.device->report().dropped == 0);
    CHECK(guest.notifier.interrupts > 0);
  }
}

TEST_CASE("frames that are none go back, are counted, and hold up no others") {
  NetGuest guest(false);
  guest.start();
  for (std::size_t size = 0; size < sizeof(NetHeader) + kEthernetHeader; ++size) {
    guest.add_bytes(bytes(size, 0));
    guest.kick();
  }
  guest.add_bytes(bytes(sizeof(NetHeader) + kMaxFrame + 1, 0));
  guest.kick();
  CHECK(guest.reclaim() == 27);
  CHECK(guest.device->report().malformed == 27);
  guest.send(from_guest(10));
  CHECK(guest.taken() == from_guest(10));
}

TEST_CASE("frames for the guest take as many buffers as they need, and say how many") {
  for (const bool tap : {true, false}) {
    for (const std::uint32_t size : {12U, 13U, 100U, 1526U, 4096U, 70'000U}) {
      CAPTURE(tap);
      CAPTURE(size);
      NetGuest guest(tap);
      guest.start();
      guest.give_buffers(60, size);
      const std::size_t payload = size < 100 ? 400 : 1400;
      guest.arrive(to_guest(payload));
      guest.io.run();
      const auto received = guest.receive();
      REQUIRE(received);
      CHECK(received->frame == to_guest(payload));
      CHECK(received->header.buffers ==
            (to_guest(payload).size() + sizeof(NetHeader) + size - 1) / size);
      CHECK((received->header.flags == kNetHeaderDataValid) == !tap);
      CHECK(guest.device->report().received == 1);
    }
  }
}

TEST_CASE("of a backend's header the driver gets what it asked for, and its own count of buffers") {
  for (const bool tap : {true, false}) {
    for (const std::uint64_t left_out : {std::uint64_t{0}, kNetFeatureGuestChecksum}) {
      CAPTURE(tap);
      CAPTURE(left_out);
      NetGuest guest(tap);
      guest.start(NetGuest::kFeatures & ~left_out);
      guest.give_buffers(4, 2000);
      guest.arrive(to_guest(100), {.flags = kNetHeaderDataValid,
                                   .gso_type = kNetGsoNone,
                                   .header_length = 0,
                                   .gso_size = 0,
                                   .checksum_start = 0,
                                   .checksum_offset = 0,
                                   .buffers = 1});
      guest.io.run();
      const auto received = guest.receive();
      REQUIRE(received);
      CHECK(received->frame == to_guest(100));
      CHECK(received->header.buffers == 1);
      CHECK(received->header.flags == (left_out == 0 ? kNetHeaderDataValid : 0));
    }
  }
}

TEST_CASE("a burst that finds too few buffers waits, and goes on where it stopped") {
  for (const bool tap : {true, false}) {
    CAPTURE(tap);
    NetGuest guest(tap);
    guest.start();
    for (std::uint8_t i = 0; i < 20; ++i) {
      guest.arrive(to_guest(1000, i));
    }
    guest.give_buffers(1, 500);  // not enough for one
    guest.io.run();
    CHECK_FALSE(guest.receive());
    std::uint8_t next = 0;
    while (next < 20) {
      guest.give_buffers(1, 500);
      guest.io.run();
      while (const auto received = guest.receive()) {
        CHECK(received->frame == to_guest(1000, next++));
      }
    }
    CHECK(guest.device->report().dropped == 0);
  }
}

TEST_CASE(
    "a frame that a full ring of tiny buffers cannot hold is dropped, and the next one arrives") {
  for (const bool tap : {true, false}) {
    CAPTURE(tap);
    NetGuest guest(tap);
    guest.start();
    guest.arrive(to_guest(5000));
    guest.arrive(to_guest(100));
    guest.give_buffers(NetGuest::kSize, 20);
    guest.io.run();
    const auto received = guest.receive();
    REQUIRE(received);
    CHECK(received->frame == to_guest(100));
    CHECK(guest.device->report().dropped == 1);
  }
}

TEST_CASE("without mergeable buffers a frame takes one, or is dropped") {
  NetGuest guest(false);
  guest.start(NetGuest::kFeatures & ~kNetFeatureMergeableBuffers);
  guest.give_buffers(2, 200);
  guest.arrive(to_guest(1000));
  guest.arrive(to_guest(100));
  guest.io.run();
  const auto received = guest.receive();
  REQUIRE(received);
  CHECK(received->frame == to_guest(100));
  CHECK(received->header.buffers == 1);
  CHECK(guest.device->report().dropped == 1);
}

TEST_CASE("buffers too small for a header come back unused") {
  NetGuest guest(false);
  guest.start();
  guest.give_buffers(3, 11);
  guest.arrive(to_guest(1));
  guest.io.run();
  for (int i = 0; i < 3; ++i) {
    const auto used = guest.receive_queue.take_used();
    REQUIRE(used);
    CHECK(used->length == 0);
  }
}

TEST_CASE("a stream may come in any pieces") {
  NetGuest guest(false);
  guest.start();
  guest.give_buffers(10, 2000);
  Frame all;
  for (const std::size_t payload : {1UL, 500UL, 1400UL}) {
    append32(all, static_cast<std::uint32_t>(to_guest(payload).size()));
    append(all, to_guest(payload));
  }
  for (const std::byte byte : all) {
    guest.arrive_bytes({byte});
    guest.io.run();
  }
  for (const std::size_t payload : {1UL, 500UL, 1400UL}) {
    const auto received = guest.receive();
    REQUIRE(received);
    CHECK(received->frame == to_guest(payload));
  }
}

TEST_CASE("a backend that takes no more holds the guest's frames up, and loses none") {
  for (const bool tap : {true, false}) {
    CAPTURE(tap);
    NetGuest guest(tap);
    guest.start();
    std::size_t sent = 0;
    while (guest.send_queue.free() > 0) {
      guest.send(from_guest(9000));
      ++sent;
      guest.io.run();
      guest.reclaim();
      if (guest.io.pending(FakeIo::Kind::kPoll) > 0) {
        break;  // it polls for room
      }
    }
    for (int i = 0; i < 10; ++i) {
      guest.add_frame(from_guest(9000));
      ++sent;
    }
    guest.kick();
    std::size_t taken = 0;
    for (int round = 0; round < 1000 && taken < sent; ++round) {
      if (const auto frame = guest.taken()) {
        REQUIRE(*frame == from_guest(9000));
        ++taken;
      }
      guest.io.run();
    }
    CHECK(taken == sent);
  }
}

TEST_CASE("a stream gets frames whole, and never more than a megabyte before it was empty") {
  // passt loses its place in the stream where a read of it ends in the middle of a frame.
  NetGuest guest(false);
  guest.start();
  guest.io.hold = [](const FakeIo::Request& request) {
    return request.kind == FakeIo::Kind::kTimeout;
  };
  const Frame frame = from_guest(1000);
  std::size_t sent = 0;
  while (guest.io.pending(FakeIo::Kind::kTimeout) == 0 && sent < 4 << 20) {
    if (guest.io.pending(FakeIo::Kind::kPoll) > 0) {
      // Some of what there is is read, so that there is room, and it is not empty.
      guest.take_bytes(static_cast<std::size_t>(guest.waiting_bytes()) * 3 / 4);
      guest.io.run();
    } else {
      guest.send(frame);
      sent += frame.size() + 4;
    }
    guest.reclaim();
  }
  CHECK(guest.io.pending(FakeIo::Kind::kTimeout) == 1);
  CHECK(sent <= 1 << 20);
  CHECK(sent >= 500'000);
  // Once all was read it goes on.
  while (guest.waiting_bytes() > 0) {
    guest.take_bytes(100'000);
  }
  guest.io.hold = nullptr;
  guest.io.run();
  guest.send(frame);
  CHECK(guest.taken() == frame);  // the one that waited
  CHECK(guest.taken() == frame);
  CHECK(guest.lost == 0);
}

TEST_CASE("a frame that is too large for the stream's other side is lost, and no other") {
  NetGuest guest(false);
  guest.start();
  guest.add_bytes(bytes(sizeof(NetHeader), 0) +
                  ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1", .protocol = kIpUdp},
                                                udp(1, 2, bytes(65'507)))));
  guest.kick();
  guest.send(from_guest(1));
  CHECK(guest.taken() == from_guest(1));
  CHECK(guest.device->report().dropped == 1);
}

TEST_CASE("receive buffers that are of no use do not keep the device for ever") {
  NetGuest guest(false);
  guest.start();
  guest.give_buffers(NetGuest::kSize, 4);
  CHECK(guest.notifier.kicked_again == std::vector<std::uint16_t>{kNetReceiveQueue});
}

TEST_CASE("the buffers of a frame are used all at once") {
  NetGuest guest(false);
  guest.start();
  guest.give_buffers(40, 100);
  guest.arrive(to_guest(1400));
  std::vector<std::uint16_t> seen;
  guest.notifier.on_used_buffers = [&] { seen.push_back(guest.receive_queue.used_index()); };
  guest.io.run();
  CHECK(seen == std::vector<std::uint16_t>{15});
  REQUIRE(guest.receive());
}

TEST_CASE("a card that is closed takes nothing from its backend") {
  NetGuest guest(true, {});
  guest.start();
  guest.give_buffers(10, 70'000);
  const auto before = guest.ram.snapshot();
  guest.arrive(to_guest(3000));
  guest.io.run();
  CHECK(guest.ram.snapshot() == before);
  CHECK(guest.device->report().received == 0);
}

TEST_CASE("flags that mean nothing here are no reason to refuse a frame") {
  NetGuest guest(true);
  guest.start();
  NetHeader header{};
  header.flags = 0xfe;
  guest.send(from_guest(10), header);
  CHECK(guest.taken() == from_guest(10));
}

TEST_CASE("a denied connection is told, and answered when that was taken notice of or soon") {
  NetGuest guest(false, {});
  guest.start();
  guest.give_buffers(10, 2000);
  const Frame syn =
      ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1"}, tcp(40000, 443, kTcpSyn)));
  guest.send(syn);
  REQUIRE(guest.denials.size() == 1);
  CHECK(guest.denials[0].first.destination_port == 443);
  CHECK_FALSE(guest.receive());
  CHECK_FALSE(guest.taken());
  SUBCASE("released") {
    guest.device->release(guest.denials[0].second + 1);  // no such
    CHECK_FALSE(guest.receive());
    guest.device->release(guest.denials[0].second);
    CHECK(guest.receive());
    guest.now += 1'000'000'000;
    guest.io.run();
    CHECK_FALSE(guest.receive());
  }
  SUBCASE("left alone") {
    guest.now += 1'000'000'000;
    guest.io.run();
    CHECK(guest.receive());
  }
  SUBCASE("datagrams at once") {
    guest.send(from_guest(10));
    REQUIRE(guest.denials.size() == 2);
    CHECK(guest.denials[1].second == 0);
    CHECK(guest.receive());
  }
  SUBCASE("a flood is told in part, and answered in bounded memory") {
    for (int i = 0; i < 2000; ++i) {
      guest.send(from_guest(10));
      guest.reclaim();
    }
    CHECK(guest.denials.size() < 300);
    CHECK(guest.device->report().denied == 2001);
    guest.now += 1'000'000'000;
    guest.io.run();
    guest.give_buffers(40, 2000);
    std::size_t answers = 0;
    while (guest.receive()) {
      ++answers;
    }
    CHECK(answers == 50);  // as many as there were buffers, the others wait
  }
}

TEST_CASE("rates hold frames back in both directions, and lose none") {
  NetGuest guest(false, NetGuest::everything(), 100'000, 100'000);
  guest.start();
  guest.give_buffers(60, 2000);
  std::size_t sent = 0;
  std::size_t received = 0;
  int arrived = 0;
  for (int step = 0; step < 100; ++step) {  // of 10 ms: one second
    if (guest.send_queue.free() > 4) {
      guest.send(from_guest(1400));
    }
    if (arrived < 90) {
      guest.arrive(to_guest(1400));
      ++arrived;
    }
    guest.now += 10'000'000;
    guest.io.run_once();
    guest.reclaim();
    while (guest.taken()) {
      ++sent;
    }
    while (guest.receive()) {
      ++received;
      guest.give_buffers(1, 2000);
    }
  }
  // A second of it, and the burst.
  CHECK(sent * 1442 <= 100'000 + 66'000);
  CHECK(sent * 1442 >= 100'000);
  CHECK(received * 1442 <= 100'000 + 66'000);
  CHECK(received * 1442 >= 100'000);
  CHECK(guest.device->report().dropped == 0);
}

TEST_CASE("a backend that goes is told of once; frames are dropped until there is another one") {
  NetGuest guest(false);
  guest.start();
  guest.give_buffers(10, 2000);
  guest.hang_up();
  guest.io.run();
  CHECK(guest.lost == 1);
  for (int i = 0; i < 100; ++i) {
    guest.send(from_guest(10));
    CHECK(guest.reclaim() == 1);
    guest.io.run();
  }
  CHECK(guest.lost == 1);
  CHECK(guest.device->report().dropped == 100);
  guest.replace_backend();
  guest.send(from_guest(10));
  CHECK(guest.taken() == from_guest(10));
  guest.arrive(to_guest(10));
  guest.io.run();
  CHECK(guest.receive());
  SUBCASE("also in the place of one that is still there") {
    guest.replace_backend();
    guest.io.run();
    guest.send(from_guest(11));
    CHECK(guest.taken() == from_guest(11));
    guest.arrive(to_guest(11));
    guest.io.run();
    CHECK(guest.receive()->frame == to_guest(11));
    CHECK(guest.lost == 1);
  }
}

TEST_CASE("a backend that is replaced lives as long as it is polled, however often that happens") {
  NetGuest guest(false);
  guest.start();
  guest.give_buffers(1, 2000);
  REQUIRE(guest.io.pending(FakeIo::Kind::kPoll) == 1);
  guest.io.hold = [](const FakeIo::Request&) { return true; };
  const int polled = guest.io.requests()[0].fd;
  guest.replace_backend();
  guest.replace_backend();
  CHECK(::fcntl(polled, F_GETFD) >= 0);
  guest.io.hold = nullptr;
  guest.io.run();
  CHECK(::fcntl(polled, F_GETFD) < 0);
  guest.arrive(bytes(100));
  guest.io.run();
  CHECK(guest.receive());
}

TEST_CASE("a stream that is none ends the backend") {
  for (const std::uint32_t length :
       {0U, 13U, static_cast<std::uint32_t>(kMaxFrame + 1), 0xffffffffU}) {
    CAPTURE(length);
    NetGuest guest(false);
    guest.start();
    guest.give_buffers(10, 2000);
    Frame bytes;
    append32(bytes, length);
    append(bytes, to_guest(10));
    guest.arrive_bytes(bytes);
    guest.io.run();
    CHECK(guest.lost == 1);
    CHECK_FALSE(guest.receive());
  }
}

TEST_CASE("a paused device moves nothing, and goes on at resume") {
  NetGuest guest(true);
  guest.start();
  guest.give_buffers(10, 2000);
  bool rested = false;
  guest.device->pause([&] { rested = true; });
  CHECK(rested);
  guest.arrive(to_guest(10));
  guest.add_frame(from_guest(10));
  guest.io.run();
  CHECK_FALSE(guest.receive());
  CHECK_FALSE(guest.taken());
  guest.device->resume();
  guest.device->on_queue(kNetReceiveQueue);
  guest.device->on_queue(kNetTransmitQueue);
  guest.io.run();
  CHECK(guest.receive());
  CHECK(guest.taken());
}

TEST_CASE("after a reset the next driver has a working device, whatever was under way") {
  for (const bool tap : {true, false}) {
    CAPTURE(tap);
    NetGuest guest(tap, {}, 1000, 1000);
    guest.start();
    guest.give_buffers(3, 30);
    guest.arrive(to_guest(1000));
    guest.send(ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.1"}, tcp(1, 443, kTcpSyn))));
    guest.io.run_once();
    bool done = false;
    guest.device->reset([&] { done = true; });
    CHECK(done);
    guest.now += 100'000'000'000;
    guest.io.run();
    guest.restart();
    guest.give_buffers(10, 2000);
    guest.send(ethernet(kEtherTypeIpv4,
                        ipv4({.destination = "192.0.2.1", .protocol = kIpUdp}, udp(1, 2))));
    CHECK(guest.receive());  // the refusal
  }
}

TEST_CASE("a driver that breaks a ring is told, and does no harm") {
  for (const std::uint16_t queue : {kNetReceiveQueue, kNetTransmitQueue}) {
    NetGuest guest(true);
    guest.start();
    DriverQueue& broken = queue == kNetReceiveQueue ? guest.receive_queue : guest.send_queue;
    broken.set_available_index(NetGuest::kSize + 1);
    guest.device->on_queue(queue);
    CHECK(guest.notifier.resets_wanted > 0);
    guest.arrive(to_guest(10));
    guest.io.run();
    CHECK_FALSE(guest.receive());
  }
}

TEST_CASE(
    "what a header asks of the tap device reaches it, the guest's count of buffers does not") {
  NetGuest guest(true);
  guest.start();
  const NetHeader header{.flags = kNetHeaderNeedsChecksum,
                         .gso_type = kNetGsoNone,
                         .header_length = 42,
                         .gso_size = 0,
                         .checksum_start = 34,
                         .checksum_offset = 6,
                         .buffers = 0x5555};
  guest.send(from_guest(10), header);
  CHECK(guest.taken() == from_guest(10));
  CHECK(guest.device->report().malformed == 0);
}

}  // namespace
}  // namespace msb::virtio
