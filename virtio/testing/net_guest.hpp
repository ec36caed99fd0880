// SPDX-License-Identifier: Apache-2.0
// A guest in front of a network device, in plain memory, and the other end of the device's backend.
#pragma once

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "virtio/net/net_device.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/fake_io.hpp"
#include "virtio/testing/frames.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_notifier.hpp"

namespace msb::virtio::testing {

// A pair of sockets in the place of a backend: packets for a tap device, which has one frame with
// its header in each read and write, or a stream.
struct BackendPair {
  static BackendPair create(bool tap) {
    std::array<int, 2> ends{};
    require(
        ::socketpair(AF_UNIX, (tap ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK,
                     0, ends.data()) == 0,
        "the host has socket pairs");
    BackendPair pair;
    pair.ours = Fd(ends[1]);
    if (tap) {
      pair.backend = std::make_unique<TapBackend>(Fd(ends[0]));
    } else {
      pair.backend = std::make_unique<StreamBackend>(Fd(ends[0]));
    }
    return pair;
  }
  Fd ours;
  std::unique_ptr<NetBackend> backend;
};

class NetGuest {
 public:
  static constexpr std::uint16_t kSize = 64;
  static constexpr std::size_t kSlot = 80 * 1024;
  static constexpr std::uint64_t kFeatures =
      kFeatureVersion1 | kNetFeatureMac | kNetFeatureMtu | kNetFeatureMergeableBuffers |
      kNetFeatureChecksum | kNetFeatureGuestChecksum | kNetFeatureGuestTso4 | kNetFeatureGuestTso6 |
      kNetFeatureHostTso4 | kNetFeatureHostTso6;

  explicit NetGuest(bool tap, std::vector<NetworkRule> rules = everything(),
                    std::uint64_t receive_rate = 0, std::uint64_t send_rate = 0)
      : tap_(tap), pair_(BackendPair::create(tap)) {
    NetOptions options;
    options.mac = kGuestMac;
    options.mtu = 1500;
    options.receive_rate = receive_rate;
    options.send_rate = send_rate;
    options.clock = [this] { return now; };
    options.denied = [this](const NetworkDenial& denial, std::uint32_t number) {
      denials.emplace_back(denial, number);
    };
    options.lost = [this] { ++lost; };
    device = std::make_unique<NetDevice>(
        std::move(options), std::move(pair_.backend),
        FrameFilter({.mac = kGuestMac,
                     .addresses = {prefix("10.0.2.15", 24), prefix("fd00::15", 64)},
                     .rules = std::move(rules),
                     .host = {},
                     .proxied = false}),
        io);
  }

  NetGuest(const NetGuest&) = delete;
  NetGuest& operator=(const NetGuest&) = delete;
  ~NetGuest() { io.drain(); }

  static std::vector<NetworkRule> everything() {
    NetworkRule four;
    four.allow = true;
    four.destination = prefix("0.0.0.0", 0);
    NetworkRule six = four;
    six.destination = prefix("::", 0);
    return {four, six};
  }

  void start(std::uint64_t features = kFeatures) {
    device->activate({receive_queue.device_side(features), send_queue.device_side(features)},
                     features & (device->features() | kFeatureVersion1), notifier);
  }
  void restart() {
    receive_queue.restart();
    send_queue.restart();
    receive_slots_.clear();
    start();
  }
  void replace_backend() {
    pair_ = BackendPair::create(tap_);
    device->replace(std::move(pair_.backend));
  }

  // --- what the guest sends ---

  // One descriptor, or some of `pieces` bytes in front.
  void add_frame(const Frame& frame, const NetHeader& header = {},
                 std::span<const std::uint32_t> pieces = {}) {
    Frame bytes;
    append(bytes, std::as_bytes(std::span(&header, 1)));
    append(bytes, frame);
    add_bytes(bytes, pieces);
  }
  void add_bytes(const Frame& bytes, std::span<const std::uint32_t> pieces = {}) {
    const GuestAddress slot = kSend + (sent_++ % kSize) * kSlot;
    ram.put_bytes(slot, bytes);
    std::vector<Buffer> buffers;
    std::uint32_t at = 0;
    const auto size = static_cast<std::uint32_t>(bytes.size());
    for (const std::uint32_t piece : pieces) {
      const std::uint32_t length = std::min(piece, size - at);
      buffers.push_back({slot + at, length, false});
      at += length;
    }
    if (at < size || buffers.empty()) {
      buffers.push_back({slot + at, size - at, false});
    }
    send_queue.add(buffers);
  }
  void kick() { device->on_queue(kNetTransmitQueue); }
  void send(const Frame& frame, const NetHeader& header = {}) {
    add_frame(frame, header);
    kick();
  }
  std::size_t reclaim() {
    std::size_t count = 0;
    while (send_queue.take_used()) {
      ++count;
    }
    return count;
  }
  // What came out of the backend next, without its header or length.
  std::optional<Frame> taken() {
    if (tap_) {
      Frame frame(kSlot);
      const ssize_t size = ::recv(pair_.ours.get(), frame.data(), frame.size(), MSG_DONTWAIT);
      if (size < static_cast<ssize_t>(sizeof(NetHeader))) {
        return std::nullopt;
      }
      frame.resize(static_cast<std::size_t>(size));
      frame.erase(frame.begin(), frame.begin() + sizeof(NetHeader));
      return frame;
    }
    Frame more(kSlot);
    const ssize_t size = ::recv(pair_.ours.get(), more.data(), more.size(), MSG_DONTWAIT);
    stream_.insert(stream_.end(), more.begin(), more.begin() + std::max<ssize_t>(size, 0));
    if (stream_.size() < 4 || stream_.size() < 4 + load32(stream_, 0)) {
      return std::nullopt;
    }
    const auto end = stream_.begin() + 4 + load32(stream_, 0);
    Frame frame(stream_.begin() + 4, end);
    stream_.erase(stream_.begin(), end);
    return frame;
  }

  // --- what it receives ---

  void add_buffers(std::size_t count, std::uint32_t size) {
    for (std::size_t i = 0; i < count; ++i) {
      const GuestAddress slot = kReceive + (given_++ % kSize) * kSlot;
      receive_slots_.emplace_back(receive_queue.add({{slot, size, true}}), slot);
    }
  }
  void give_buffers(std::size_t count, std::uint32_t size) {
    add_buffers(count, size);
    device->on_queue(kNetReceiveQueue);
  }
  struct Received {
    NetHeader header{};
    Frame frame;
  };
  // The next frame, over as many buffers as its header says.
  std::optional<Received> receive() {
    std::optional<Received> received;
    int left = 1;
    while (left > 0) {
      const auto used = receive_queue.take_used();
      if (!used) {
        require(!received, "a frame has all of its buffers");
        return std::nullopt;
      }
      const auto slot = std::ranges::find(
          receive_slots_, used->id, [](const auto& each) { return std::uint32_t{each.first}; });
      require(slot != receive_slots_.end(), "a buffer comes back once");
      const Frame bytes = ram.bytes(slot->second, used->length);
      receive_slots_.erase(slot);
      if (!received) {
        received.emplace();
        require(bytes.size() >= sizeof(NetHeader), "the first buffer has the header");
        std::memcpy(&received->header, bytes.data(), sizeof(NetHeader));
        left = received->header.buffers;
        require(left > 0, "a frame has a buffer");
        received->frame.assign(bytes.begin() + sizeof(NetHeader), bytes.end());
      } else {
        append(received->frame, bytes);
      }
      --left;
    }
    return received;
  }
  // Puts a frame into the backend.
  void arrive(const Frame& frame, NetHeader header = {}) {
    Frame bytes;
    if (tap_) {
      append(bytes, std::as_bytes(std::span(&header, 1)));
    } else {
      append32(bytes, static_cast<std::uint32_t>(frame.size()));
    }
    append(bytes, frame);
    arrive_bytes(bytes);
  }
  void arrive_bytes(const Frame& bytes) {
    require(::send(pair_.ours.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) ==
                static_cast<ssize_t>(bytes.size()),
            "the backend takes a frame");
  }
  // What has come out of a stream backend and was not taken.
  [[nodiscard]] int waiting_bytes() const {
    int bytes = 0;
    ::ioctl(pair_.ours.get(), FIONREAD, &bytes);
    return bytes;
  }
  void take_bytes(std::size_t size) {
    Frame ignored(size);
    [[maybe_unused]] const ssize_t got =
        ::recv(pair_.ours.get(), ignored.data(), ignored.size(), MSG_DONTWAIT);
  }
  void hang_up() { pair_.ours.reset(); }

  static constexpr GuestAddress kQueues = GuestRam::kStart;
  static constexpr GuestAddress kReceive = kQueues + 16 * kPage;
  static constexpr GuestAddress kSend = kReceive + kSize * kSlot;

  GuestRam ram{16 * kPage + 2 * kSize * kSlot};
  FakeIo io;
  RecordingNotifier notifier;
  DriverQueue receive_queue{ram, kQueues, kSize};
  DriverQueue send_queue{ram, kQueues + 8 * kPage, kSize};
  std::uint64_t now = 1'000'000'000'000;
  std::vector<std::pair<NetworkDenial, std::uint32_t>> denials;
  int lost = 0;
  std::unique_ptr<NetDevice> device;

 private:
  const bool tap_;
  BackendPair pair_;
  Frame stream_;
  std::size_t sent_ = 0;
  std::size_t given_ = 0;
  std::vector<std::pair<std::uint16_t, GuestAddress>> receive_slots_;
};

}  // namespace msb::virtio::testing
