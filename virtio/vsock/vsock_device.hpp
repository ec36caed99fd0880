// SPDX-License-Identifier: Apache-2.0
// The virtio socket device (virtio 1.2 section 5.10): stream connections between the guest and Unix
// stream sockets on the host.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "virtio/device.hpp"
#include "virtio/spec.hpp"
#include "virtio/vsock/connection.hpp"

namespace msb::virtio {

class VsockDevice final : public Device, private VsockConnectionOwner {
 public:
  // Asked when the guest connects to a host port: gives the connection's socket (stream, blocking
  // mode), or nothing to refuse it.
  using Accept = std::function<std::optional<Fd>(std::uint32_t host_port)>;

  // The largest number of connections at a time; more are refused with a reset.
  static constexpr std::size_t kMaxConnections = 2048;

  // `io` must outlive the device, and be drained before the device is destroyed.
  VsockDevice(std::uint64_t guest_cid, AsyncIo& io, Accept accept);

  // Connects `socket` (stream, blocking mode) to `guest_port`. When the guest accepts, "OK <host
  // port>\n" is written to it before the guest's bytes; when it refuses or has no driver, the
  // socket is closed.
  void connect(Fd socket, std::uint32_t guest_port);

  [[nodiscard]] std::uint32_t type() const override { return kDeviceVsock; }
  [[nodiscard]] std::uint64_t features() const override { return 0; }
  [[nodiscard]] std::span<const std::uint16_t> max_queue_sizes() const override;
  [[nodiscard]] std::span<const std::byte> config() const override { return config_; }
  void activate(std::vector<Queue> queues, std::uint64_t features, DriverNotifier& driver) override;
  void on_queue(std::uint16_t index) override;
  void reset(std::function<void()> done) override;
  void pause(std::function<void()> done) override;
  void resume() override { paused_ = false; }

 private:
  using Key = VsockConnectionKey;

  // VsockConnectionOwner
  AsyncIo& io() override { return io_; }
  void want_buffer(VsockConnection& connection) override;
  void give_buffer(DescriptorChain buffer) override;
  void send(DescriptorChain buffer, Key key, VsockPacket packet) override;
  void send_reset(Key key) override;
  void leave(Key key) override;
  void on_rest() override;

  void take_packets();
  void handle(const VsockHeader& header, const DescriptorChain& chain);
  void accept(const VsockHeader& header);
  [[nodiscard]] bool full() const;
  void send_packets();
  std::optional<DescriptorChain> next_buffer();
  void broken();
  void discard_left();

  AsyncIo& io_;
  const std::uint64_t guest_cid_;
  Accept accept_;
  std::array<std::byte, 8> config_;  // 5.10.4: guest_cid
  std::vector<Queue> queues_;        // empty while idle
  DriverNotifier* driver_ = nullptr;

  std::map<Key, std::shared_ptr<VsockConnection>> connections_;
  // Connections that left, kept until no operation of theirs is pending. Emptied by discard_left(),
  // never from inside a call that a connection made.
  std::vector<std::shared_ptr<VsockConnection>> left_;
  std::deque<VsockConnection*>
      senders_;             // of connections_: those that want a receive buffer, in turn
  std::deque<Key> resets_;  // RST packets to send, bounded: see take_packets()
  std::vector<DescriptorChain> spare_buffers_;  // receive buffers taken and not used
  bool sending_ = false;
  std::uint32_t next_host_port_ =
      1U << 30;  // for connect(); away from the ports that the host listens on
  std::function<void()> reset_done_;
  std::function<void()> pause_done_;
  bool paused_ = false;
};

}  // namespace msb::virtio
