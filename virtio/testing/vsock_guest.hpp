// SPDX-License-Identifier: Apache-2.0
// A guest in front of a vsock device, in plain memory: well-behaved by default, and as hostile as a
// test wants.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/fake_io.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_notifier.hpp"
#include "virtio/vsock/vsock_device.hpp"

namespace msb::virtio::testing {

class VsockGuest {
 public:
  static constexpr std::uint64_t kCid = 3;
  static constexpr std::uint32_t kPageBuffer = 4096;  // as Linux gives them
  static constexpr std::size_t kSlot = 64 * 1024;     // largest packet of send()

  // What a test looks at in a packet to the guest.
  struct Packet {
    VsockOp op{};
    std::uint32_t length = 0;
    std::uint32_t flags = 0;
    std::uint32_t host_port = 0;
    std::uint32_t guest_port = 0;
    std::uint32_t forward_count = 0;
    std::vector<std::byte> payload;
  };

  VsockGuest(AsyncIo& io, VsockDevice::Accept accept) : device(kCid, io, std::move(accept)) {
    for (std::uint16_t i = 0; i < 256; ++i) {
      free_receive_.push_back(kReceive + i * kSlot);
      free_send_.push_back(kSend + i * kSlot);
    }
    start();
  }

  void start() {
    device.activate(
        {receive_queue.device_side(), send_queue.device_side(), event_queue.device_side()},
        kFeatureVersion1, notifier);
  }
  // A reset by the driver, and what it forgets then.
  void restart() {
    receive_queue.restart();
    send_queue.restart();
    event_queue.restart();
    for (auto* slots : {&receive_slots_, &send_slots_}) {
      auto& free = slots == &receive_slots_ ? free_receive_ : free_send_;
      for (GuestAddress& slot : *slots) {
        if (slot != 0) {
          free.push_back(std::exchange(slot, 0));
        }
      }
    }
    start();
  }

  // Gives `count` receive buffers of `size` bytes and kicks.
  void give_buffers(std::size_t count, std::uint32_t size = kPageBuffer) {
    add_buffers(count, size);
    device.on_queue(kVsockRxQueue);
  }
  void add_buffers(std::size_t count, std::uint32_t size = kPageBuffer) {
    for (std::size_t i = 0; i < count; ++i) {
      const GuestAddress slot = free_receive_.back();
      free_receive_.pop_back();
      receive_slots_[receive_queue.add({{slot, size, true}})] = slot;
    }
  }

  [[nodiscard]] VsockHeader header_of(VsockOp op, VsockConnectionKey key, std::uint32_t length = 0,
                                      std::uint32_t flags = 0) const {
    return {.src_cid = kCid,
            .dst_cid = kVsockHostCid,
            .src_port = key.guest_port,
            .dst_port = key.host_port,
            .length = length,
            .type = kVsockTypeStream,
            .op = op,
            .flags = flags,
            .buffer_allocation = allocation,
            .forward_count = forwarded};
  }
  // Makes one packet available, in one descriptor or with descriptors of `pieces` bytes at its
  // front.
  void add_packet(const VsockHeader& packet, std::span<const std::byte> payload = {},
                  std::span<const std::uint32_t> pieces = {}) {
    const GuestAddress slot = free_send_.back();
    free_send_.pop_back();
    ram.put(slot, packet);
    ram.put_bytes(slot + sizeof packet, payload);
    std::vector<Buffer> buffers;
    std::uint32_t at = 0;
    const auto size = static_cast<std::uint32_t>(sizeof packet + payload.size());
    for (const std::uint32_t piece : pieces) {
      const std::uint32_t length = std::min(piece, size - at);
      buffers.push_back({slot + at, length, false});
      at += length;
    }
    if (at < size || buffers.empty()) {
      buffers.push_back({slot + at, size - at, false});
    }
    send_slots_[send_queue.add(buffers)] = slot;
  }
  void kick() {
    device.on_queue(kVsockTxQueue);
    reclaim();
  }
  // Packets that the device is done with; gives how many.
  std::size_t reclaim() {
    std::size_t count = 0;
    while (const auto used = send_queue.take_used()) {
      CHECK(used->length == 0);
      if (send_slots_[used->id] != 0) {
        free_send_.push_back(std::exchange(send_slots_[used->id], 0));
      }
      ++count;
    }
    return count;
  }
  void send(VsockOp op, VsockConnectionKey key, std::uint32_t flags = 0) {
    add_packet(header_of(op, key, 0, flags));
    kick();
  }
  void send_data(VsockConnectionKey key, std::span<const std::byte> data) {
    add_packet(header_of(VsockOp::kReadWrite, key, static_cast<std::uint32_t>(data.size())), data);
    kick();
  }
  void send_text(VsockConnectionKey key, std::string_view text) {
    send_data(key, std::as_bytes(std::span(text)));
  }

  // What has come since, in order. Buffers that came back empty are counted only.
  std::vector<Packet> receive() {
    std::vector<Packet> packets;
    while (const auto used = receive_queue.take_used()) {
      const GuestAddress slot = std::exchange(receive_slots_[used->id], 0);
      free_receive_.push_back(slot);
      if (used->length < sizeof(VsockHeader)) {
        ++empty_buffers;
        continue;
      }
      const auto header = ram.get<VsockHeader>(slot);
      CHECK(std::uint64_t{header.src_cid} == kVsockHostCid);
      CHECK(std::uint64_t{header.dst_cid} == kCid);
      CHECK(std::uint16_t{header.type} == kVsockTypeStream);
      CHECK(std::uint32_t{header.buffer_allocation} == VsockConnection::kBufferSize);
      CHECK(std::uint32_t{header.length} == used->length - sizeof header);
      Packet packet{header.op,
                    header.length,
                    header.flags,
                    header.src_port,
                    header.dst_port,
                    header.forward_count,
                    {}};
      if (packet.length <= kSlot) {  // a test's backend may claim more than a buffer holds
        packet.payload = ram.bytes(slot + sizeof header, packet.length);
      }
      packets.push_back(std::move(packet));
    }
    return packets;
  }
  // The only packet that has come.
  Packet receive_one(VsockOp op) {
    auto packets = receive();
    REQUIRE(packets.size() == 1);
    CHECK(packets[0].op == op);
    return std::move(packets[0]);
  }

 private:
  static constexpr GuestAddress kQueues = GuestRam::kStart;
  static constexpr GuestAddress kReceive = GuestRam::kStart + 16 * kPage;
  static constexpr GuestAddress kSend = kReceive + 256 * kSlot;

 public:
  GuestRam ram{kSend + 256 * kSlot - GuestRam::kStart};
  DriverQueue receive_queue{ram, kQueues, 256};
  DriverQueue send_queue{ram, kQueues + 4 * kPage, 256};
  DriverQueue event_queue{ram, kQueues + 8 * kPage, 16};
  RecordingNotifier notifier;
  VsockDevice device;

  std::uint32_t allocation = 1 << 20;
  std::uint32_t forwarded = 0;
  std::size_t empty_buffers = 0;

 private:
  std::vector<GuestAddress> free_receive_, free_send_;
  std::array<GuestAddress, 256> receive_slots_{}, send_slots_{};
};

// A guest, a fake backend and the host's programs, which listen on some ports.
class VsockWorld {
 public:
  static constexpr std::uint32_t kOpenPort = 1000;  // the host accepts this and the ports behind it
  static constexpr std::uint32_t kGuestPort = 5000;

  VsockWorld() {
    io.answer = [this](const FakeIo::Request& request) {
      return answer ? answer(request) : std::nullopt;
    };
  }
  ~VsockWorld() {
    io.hold = nullptr;
    io.answer = nullptr;
    io.drain();
  }
  VsockWorld(const VsockWorld&) = delete;
  VsockWorld& operator=(const VsockWorld&) = delete;

  static std::pair<Fd, Fd> make_pair() {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    REQUIRE(::fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
  }

  // Connects from the guest and takes the RESPONSE; gives the host's end.
  Fd open_from_guest(VsockConnectionKey key) {
    guest.give_buffers(1);
    guest.send(VsockOp::kRequest, key);
    guest.receive_one(VsockOp::kResponse);
    REQUIRE_FALSE(accepted.empty());
    Fd host = std::move(accepted.back());
    accepted.pop_back();
    return host;
  }
  // Connects from the host, the guest accepts, and the greeting is read; gives the host's end and
  // the key.
  std::pair<Fd, VsockConnectionKey> open_from_host(std::uint32_t guest_port = kGuestPort) {
    auto [device_end, host] = make_pair();
    guest.give_buffers(1);
    guest.device.connect(std::move(device_end), guest_port);
    const auto request = guest.receive_one(VsockOp::kRequest);
    const VsockConnectionKey key{request.host_port, request.guest_port};
    guest.send(VsockOp::kResponse, key);
    io.run();
    CHECK(read_all(host) == "OK " + std::to_string(key.host_port) + "\n");
    return {std::move(host), key};
  }

  // What can be read now.
  static std::string read_all(const Fd& fd) {
    std::string text;
    std::array<char, 65536> buffer;
    ssize_t got = 0;
    while ((got = ::read(fd.get(), buffer.data(), buffer.size())) > 0) {
      text.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return text;
  }
  static bool at_end(const Fd& fd) {
    char byte = 0;
    const ssize_t got = ::recv(fd.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    return got == 0 ||
           (got < 0 && errno == ECONNRESET);  // the latter when bytes of ours were left unread
  }
  static void write_text(const Fd& fd, std::string_view text) {
    REQUIRE(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(text.size()));
  }

  FakeIo io;
  std::function<std::optional<std::int32_t>(const FakeIo::Request&)> answer;
  std::vector<Fd> accepted;  // the host's ends
  bool listening = true;
  VsockGuest guest{io, [this](std::uint32_t port) -> std::optional<Fd> {
                     if (!listening || port < kOpenPort || port >= kOpenPort + 4096) {
                       return std::nullopt;
                     }
                     auto [device_end, host] = make_pair();
                     accepted.push_back(std::move(host));
                     return std::move(device_end);
                   }};
};

inline std::string text_of(const VsockGuest::Packet& packet) {
  return {reinterpret_cast<const char*>(packet.payload.data()), packet.payload.size()};
}

}  // namespace msb::virtio::testing
