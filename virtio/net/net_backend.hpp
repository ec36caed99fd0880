// SPDX-License-Identifier: Apache-2.0
// Where a network device's frames go to and come from.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

// The largest frame: an IP packet of 65,535 bytes and its Ethernet header.
inline constexpr std::size_t kMaxFrame = 14 + 65535;

// Nothing here waits.
class NetBackend {
 public:
  virtual ~NetBackend() = default;

  // To be polled: readable when receive() may give a frame, writable when send() may take one.
  [[nodiscard]] virtual int descriptor() const = 0;
  // Those of the offloading features that it can do, before it is first used.
  [[nodiscard]] virtual std::uint64_t features() const = 0;
  // What the driver accepted.
  virtual void set_features(std::uint64_t features) = 0;

  enum class Sent : std::uint8_t { kDone, kFull, kBusy, kLost, kGone };
  // Sends a frame: a NetHeader, which is pieces[0], and what follows. kFull: nothing was sent, to
  // be tried again once it is writable; kBusy: likewise in a moment; kLost: it cannot be sent,
  // others can; kGone: nothing will be any more.
  virtual Sent send(std::span<const iovec> pieces) = 0;

  enum class Outcome : std::uint8_t { kFrame, kNothing, kGone };
  struct Received {
    Outcome outcome = Outcome::kNothing;
    NetHeader header{};
    std::span<const std::byte> frame;  // valid until the next call
  };
  virtual Received receive() = 0;
  // Receives a frame straight to where it is to be: a NetHeader and the frame, as they fit into
  // `pieces`. Gives the bytes, or nothing. Only if receives_in_place().
  struct InPlace {
    Outcome outcome = Outcome::kNothing;
    std::size_t size = 0;
  };
  [[nodiscard]] virtual bool receives_in_place() const { return false; }
  virtual InPlace receive_in_place(std::span<const iovec> /*pieces*/) { return {}; }
};

// A tap device (Linux, Documentation/networking/tuntap.rst) with IFF_VNET_HDR, a header of 12
// bytes, and O_NONBLOCK.
class TapBackend final : public NetBackend {
 public:
  explicit TapBackend(Fd tap) : tap_(std::move(tap)) {}

  [[nodiscard]] int descriptor() const override { return tap_.get(); }
  [[nodiscard]] std::uint64_t features() const override;
  void set_features(std::uint64_t features) override;
  Sent send(std::span<const iovec> pieces) override;
  Received receive() override;
  [[nodiscard]] bool receives_in_place() const override { return true; }
  InPlace receive_in_place(std::span<const iovec> pieces) override;

 private:
  Fd tap_;
  std::vector<std::byte> frame_;  // of receive()
};

// A stream socket on which every frame has its length in front, 4 bytes in network byte order, as
// passt(1) and QEMU's "stream" have it. There is no header: frames are whole and of the link's MTU.
//
// passt takes what there is in one read of up to 8,323,069 bytes, and loses its place in the stream
// when that ends in the middle of a length, or the rest of a frame comes in two pieces: then it
// takes for a length what the guest wrote. So a frame is sent whole or not at all, in a system call
// of its own, and so much fewer bytes are sent before the socket was seen empty that no read gets
// so far.
class StreamBackend final : public NetBackend {
 public:
  explicit StreamBackend(Fd socket);

  [[nodiscard]] int descriptor() const override { return socket_.get(); }
  [[nodiscard]] std::uint64_t features() const override;
  void set_features(std::uint64_t /*features*/) override {}
  Sent send(std::span<const iovec> pieces) override;
  Received receive() override;

 private:
  void count_room();
  [[nodiscard]] std::span<const std::byte> unread() const {
    return std::span(input_).subspan(begin_, end_ - begin_);
  }

  Fd socket_;
  bool gone_ = false;
  std::size_t capacity_ = 0;     // bytes that the socket keeps, with what the kernel adds to each
  std::size_t room_ = 0;         // of it, as of the last count
  std::size_t since_empty_ = 0;  // bytes sent
  std::vector<std::byte> input_;
  std::size_t begin_ = 0;  // of what is in it and was not given yet
  std::size_t end_ = 0;
  std::vector<iovec> pieces_;  // of send(), kept for its memory
};

}  // namespace msb::virtio
