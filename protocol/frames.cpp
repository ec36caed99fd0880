// SPDX-License-Identifier: Apache-2.0
#include "protocol/frames.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "protocol/msb_exec.h"

namespace msb::protocol {

namespace {

constexpr std::uint32_t on(Connection connection) {
  return 1U << static_cast<unsigned>(connection);
}

constexpr std::uint32_t kControl = on(Connection::kControl);
constexpr std::uint32_t kProcess = on(Connection::kProcess);
constexpr std::uint32_t kRequest = on(Connection::kRequest);
constexpr std::uint32_t kFiles = on(Connection::kFiles);
constexpr std::uint32_t kTunnel = on(Connection::kTunnel);
constexpr std::uint32_t kAttached = on(Connection::kAttached);

constexpr std::uint32_t kMaxProgramName = 15;  // TASK_COMM_LEN of Linux, without its 0 byte

// What a guest sends: docs/exec-protocol.md, "Frames".
struct GuestFrame {
  std::uint32_t type;
  std::string_view name;
  std::uint32_t connections;
  std::uint32_t min;  // of the payload, in bytes
  std::uint32_t max;
};

constexpr GuestFrame kGuestFrames[] = {
    {MSB_HELLO, "HELLO", kControl, sizeof(msb_hello), sizeof(msb_hello)},
    {MSB_FAILED, "FAILED", kControl, sizeof(msb_failure), MSB_MAX_SMALL},
    {MSB_BYE, "BYE", kControl, sizeof(msb_bye), sizeof(msb_bye)},
    {MSB_STARTED, "STARTED", kProcess, sizeof(msb_started), sizeof(msb_started)},
    {MSB_REFUSED, "REFUSED", kProcess | kRequest | kFiles | kTunnel, sizeof(msb_failure),
     MSB_MAX_SMALL},
    {MSB_STDOUT, "STDOUT", kProcess, 1, MSB_MAX_DATA},
    {MSB_STDERR, "STDERR", kProcess, 1, MSB_MAX_DATA},
    {MSB_EXITED, "EXITED", kProcess | kRequest, sizeof(msb_exited), MSB_MAX_SMALL},
    {MSB_CHANNEL, "CHANNEL", kProcess, 1, MSB_MAX_DATA},
    {MSB_ATTACHED, "ATTACHED", kProcess, sizeof(msb_attached), sizeof(msb_attached)},
    {MSB_DETACHED, "DETACHED", kProcess, 0, 0},
    {MSB_DONE, "DONE", kRequest | kFiles | kTunnel, sizeof(msb_done), sizeof(msb_done)},
    {MSB_PONG, "PONG", kRequest, 0, MSB_MAX_SMALL},
    {MSB_PROCESS, "PROCESS", kRequest, sizeof(msb_process) + 2, MSB_MAX_SMALL},
    {MSB_MEASURED, "MEASURED", kRequest, sizeof(msb_metrics), sizeof(msb_metrics)},
    {MSB_LISTENER, "LISTENER", kRequest, sizeof(msb_listener), sizeof(msb_listener)},
    {MSB_OWNER, "OWNER", kRequest, sizeof(msb_owner), sizeof(msb_owner) + kMaxProgramName},
    {MSB_FILE_DATA, "FILE_DATA", kFiles, 1, MSB_MAX_DATA},
    {MSB_FILE_ENTRY, "FILE_ENTRY", kFiles, sizeof(msb_file_entry) + 2, MSB_MAX_REQUEST},
    // And what a host's program sends to a supervisor that stands in for the agent.
    {MSB_ATTACH, "ATTACH", kAttached, sizeof(msb_attach), sizeof(msb_attach)},
    {MSB_STDIN, "STDIN", kAttached, 0, MSB_MAX_DATA},
};

constexpr std::size_t kLargestFrame = sizeof(msb_frame_header) + MSB_MAX_DATA;
constexpr std::size_t kLeastRoom = std::size_t{32} << 10;  // to read into

const GuestFrame* find(std::uint32_t type) {
  const auto* const found = std::ranges::find(kGuestFrames, type, &GuestFrame::type);
  return found != std::end(kGuestFrames) ? found : nullptr;
}

}  // namespace

void FrameDecoder::make_room(std::size_t least) {
  const std::span<const std::byte> rest(buffer_.get() + start_, end_ - start_);
  if (capacity_ - rest.size() < least) {
    capacity_ = std::max(rest.size() + least, kLargestFrame + kLeastRoom);
    auto larger = std::make_unique_for_overwrite<std::byte[]>(capacity_);
    std::ranges::copy(rest, larger.get());
    buffer_ = std::move(larger);
  } else {
    std::ranges::copy(rest, buffer_.get());
  }
  start_ = 0;
  end_ = rest.size();
}

void FrameDecoder::feed(std::span<const std::byte> bytes) {
  make_room(bytes.size());
  std::ranges::copy(bytes, buffer_.get() + end_);
  end_ += bytes.size();
}

std::span<std::byte> FrameDecoder::space() {
  make_room(kLeastRoom);
  return std::span(buffer_.get(), capacity_).subspan(end_);
}

Result<std::optional<Frame>> FrameDecoder::next() {
  const auto bytes = std::span<const std::byte>(buffer_.get(), end_).subspan(start_);
  msb_frame_header header{};
  if (bytes.size() < sizeof header) {
    return std::nullopt;
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  const GuestFrame* known = find(header.type);
  if (known == nullptr || (known->connections & on(connection_)) == 0) {
    return fail("the guest sent a frame of type {}, which has no place on this connection",
                header.type);
  }
  if (header.length < known->min || header.length > known->max) {
    return fail("the guest sent a {} of {} bytes, which is outside {} to {}", known->name,
                header.length, known->min, known->max);
  }
  if (bytes.size() - sizeof header < header.length) {
    return std::nullopt;
  }
  start_ += sizeof header + header.length;
  return Frame{header.type, bytes.subspan(sizeof header, header.length)};
}

std::string_view frame_name(std::uint32_t type) {
  const GuestFrame* known = find(type);
  return known != nullptr ? known->name : "frame of an unknown type";
}

std::vector<std::byte> encode_frame(std::uint32_t type, std::span<const std::byte> payload) {
  const msb_frame_header header{type, static_cast<std::uint32_t>(payload.size())};
  const auto head = std::as_bytes(std::span(&header, 1));
  std::vector<std::byte> frame;
  frame.reserve(head.size() + payload.size());
  frame.insert(frame.end(), head.begin(), head.end());
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

}  // namespace msb::protocol
