// SPDX-License-Identifier: Apache-2.0
// Frames of the exec protocol (msb_exec.h) as bytes: taking a guest's stream apart, and putting one
// frame together. Pure; the guest's bytes are hostile. What is inside the payloads is in
// guest_frames.hpp and host_frames.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb::protocol {

// What a connection is for, which decides the frames that a guest may send on it.
enum class Connection : std::uint8_t {
  kControl,
  kProcess,
  kRequest,
  kFiles,
  kTunnel,
  kAttached,  // of a supervisor: a host's program is on the other side of it
};
inline constexpr std::uint8_t kConnections = 6;

// A frame, its payload borrowed from the decoder until the next call to it.
struct Frame {
  std::uint32_t type = 0;  // enum msb_frame_type
  std::span<const std::byte> payload;
};

// Takes a stream of the guest's bytes apart into frames. Holds at most one frame and what was fed
// last.
class FrameDecoder {
 public:
  explicit FrameDecoder(Connection connection) : connection_(connection) {}

  void feed(std::span<const std::byte> bytes);
  // The same without a copy: where the next bytes of the stream may be read to, 32 KiB at least,
  // and how many of them were.
  std::span<std::byte> space();
  void filled(std::size_t count) { end_ += count; }

  // The next complete frame, or nothing when more bytes are needed. Fails, from then on always and
  // before the payload comes, when a header has a type that a guest does not send on this
  // connection, or a length that its type cannot have.
  Result<std::optional<Frame>> next();

  // Whether the stream may end here: nothing of a frame is waiting for its rest.
  [[nodiscard]] bool at_boundary() const { return start_ == end_; }

 private:
  void make_room(std::size_t least);

  Connection connection_;
  std::unique_ptr<std::byte[]> buffer_;  // its bytes are never set before they are written
  std::size_t capacity_ = 0;
  std::size_t start_ = 0;  // of the first byte that is not yet taken
  std::size_t end_ = 0;    // behind the last byte that has come
};

// The protocol's name of a type that a guest sends, for messages.
std::string_view frame_name(std::uint32_t type);

std::vector<std::byte> encode_frame(std::uint32_t type, std::span<const std::byte> payload);

}  // namespace msb::protocol
