// SPDX-License-Identifier: Apache-2.0
// One vsock stream: credit (virtio 1.2 section 5.10.6.3), half-close, and the bytes under way in
// both directions.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "virtio/queue.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

class VsockConnection;

struct VsockConnectionKey {
  std::uint32_t host_port;
  std::uint32_t guest_port;
  auto operator<=>(const VsockConnectionKey&) const = default;
};

// The fields of a packet to the guest that a connection decides.
struct VsockPacket {
  VsockOp op{};
  std::uint32_t length = 0;  // payload bytes, already in the buffer behind the header
  std::uint32_t flags = 0;
  std::uint32_t forward_count = 0;
};

// What a connection needs of its device.
class VsockConnectionOwner {
 public:
  virtual ~VsockConnectionOwner() = default;
  virtual AsyncIo& io() = 0;
  // The connection has a packet for the guest; use_buffer() will be called when there is a buffer
  // for it.
  virtual void want_buffer(VsockConnection& connection) = 0;
  // Gives back a buffer that was not used after all. It goes to whoever wants one, or is forgotten
  // after a reset.
  virtual void give_buffer(DescriptorChain buffer) = 0;
  // Writes the packet's header in front of its payload and hands it to the guest.
  virtual void send(DescriptorChain buffer, VsockConnectionKey key, VsockPacket packet) = 0;
  virtual void send_reset(VsockConnectionKey key) = 0;
  // Takes the connection out of the device. It stays alive until the device runs next.
  virtual void leave(VsockConnectionKey key) = 0;
  // A connection has one operation less under way: it reads into no buffer any more, or has left
  // and is idle.
  virtual void on_rest() = 0;
};

class VsockConnection {
 public:
  // How many bytes the guest may have under way to a host socket that does not take them.
  static constexpr std::uint32_t kBufferSize = 128 * 1024;

  // `socket`: stream, blocking mode. `owner` must outlive the connection.
  VsockConnection(VsockConnectionOwner& owner, Fd socket, VsockConnectionKey key);

  [[nodiscard]] VsockConnectionKey key() const { return key_; }

  // Opens it from the host: REQUEST to the guest, then its answer.
  void request();
  // Opens it from the guest, whose REQUEST this is.
  void accept(const VsockHeader& request);
  // A later packet of the guest. The payload follows the header in `chain`.
  void handle(const VsockHeader& packet, const DescriptorChain& chain);

  [[nodiscard]] bool wants_buffer() const;
  // Sends one packet in `buffer`, or starts reading the host's bytes into it. Only when
  // wants_buffer().
  void use_buffer(DescriptorChain buffer);

  // Ends it towards the host and cancels what is pending. Called by the device when it takes the
  // connection out.
  void close();
  [[nodiscard]] bool idle() const {
    return !poll_.pending() && !read_.pending() && !write_.pending();
  }

  // Whether the host's bytes are being read into a buffer of the guest.
  [[nodiscard]] bool reading() const { return reading_.has_value(); }

  bool waiting = false;  // for the device: stands in its list of senders

 private:
  enum class State { kRequested, kEstablished, kClosed };

  void update_credit(const VsockHeader& packet);
  [[nodiscard]] std::uint32_t credit() const;  // bytes that the guest still takes
  [[nodiscard]] bool can_read() const;
  void take_payload(const VsockHeader& packet, const DescriptorChain& chain);
  void write_more();
  void count_forwarded(std::size_t bytes);
  void stop_writing();
  void watch();
  void on_poll(std::int32_t result);
  void on_read(std::int32_t result);
  void on_read_into(DescriptorChain buffer, std::int32_t result);
  void on_write(std::int32_t result);
  bool left();
  void end();   // tells the guest by RST, and leaves
  void wake();  // asks for a buffer if one is wanted

  VsockConnectionOwner& owner_;
  Fd socket_;
  const VsockConnectionKey key_;
  State state_ = State::kRequested;
  bool left_ = false;  // taken out of the device

  // To the guest.
  bool send_request_ = false;
  bool send_response_ = false;
  bool send_credit_ = false;
  bool readable_ = false;    // the host socket has bytes or its end
  bool host_ended_ = false;  // the host has sent its last byte
  bool guest_deaf_ = false;  // the guest takes no more bytes
  std::uint32_t peer_allocation_ = 0;
  std::uint32_t peer_forwarded_ = 0;
  std::uint32_t sent_ = 0;                  // bytes modulo 2^32, as all counters of the protocol
  std::optional<DescriptorChain> reading_;  // the buffer that read_ fills
  std::vector<iovec> read_iovecs_;

  // To the host.
  std::vector<std::byte> incoming_;  // came from the guest, waits for writing_
  std::vector<std::byte> writing_;
  std::size_t written_ = 0;   // of writing_
  std::size_t greeting_ = 0;  // bytes at the front that are ours and not the guest's
  bool guest_ended_ = false;  // the guest has sent its last byte
  bool host_deaf_ = false;    // nobody reads on the host: what comes is dropped
  std::uint32_t forwarded_ = 0;
  std::uint32_t advertised_ = 0;  // forwarded_ as the guest last heard it
  iovec write_iovec_{};

  Operation poll_;
  Operation read_;
  Operation write_;
};

}  // namespace msb::virtio
