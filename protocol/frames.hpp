// SPDX-License-Identifier: Apache-2.0
// Frames of the exec protocol (msb_exec.h) as bytes: writing what the host sends, and taking apart
// what the guest sends. Pure; the guest's bytes are hostile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace msb::protocol {

// A frame, its payload borrowed from the decoder until the next call to it.
struct Frame {
  std::uint32_t type = 0;  // enum msb_frame_type
  std::span<const std::byte> payload;
};

// Takes a stream of the guest's bytes apart into frames.
class FrameDecoder {
 public:
  void feed(std::span<const std::byte> bytes);

  // The next complete frame, or nothing when more bytes are needed. Fails, from then on always,
  // when a header has a type that a guest does not send or announces a larger payload than its type
  // may have.
  Result<std::optional<Frame>> next();

 private:
  std::vector<std::byte> buffer_;
  std::size_t start_ = 0;  // of the first byte that is not yet taken
};

// Reads a payload structure of msb_exec.h from the start of a frame's payload; what follows it is
// `rest`.
template <typename T>
std::optional<T> payload_as(const Frame& frame, std::span<const std::byte>* rest = nullptr) {
  if (frame.payload.size() < sizeof(T)) {
    return std::nullopt;
  }
  T value;
  std::memcpy(&value, frame.payload.data(), sizeof value);
  if (rest != nullptr) {
    *rest = frame.payload.subspan(sizeof value);
  }
  return value;
}

// What START says.
struct ProcessSpec {
  std::vector<std::string> arguments;    // argv, at least one
  std::vector<std::string> environment;  // NAME=VALUE
  std::string directory = "/";           // absolute; created when missing
  std::uint32_t user = 0;
  std::uint32_t group = 0;
};

std::vector<std::byte> encode_frame(std::uint32_t type, std::span<const std::byte> payload);
// Fails when a string holds a NUL byte, the directory is not absolute, there is no argument, or all
// together is larger than MSB_MAX_START.
Result<std::vector<std::byte>> encode_start(const ProcessSpec& spec);
std::vector<std::byte> encode_signal(std::uint32_t process, std::uint32_t signal);

}  // namespace msb::protocol
