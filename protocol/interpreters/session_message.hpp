// SPDX-License-Identifier: Apache-2.0
// What an interpreter's driver says to the host over the channel: docs/interpreters.md. Code of the
// session can write there too, so nothing is taken on trust: what comes is bounded, and becomes
// known fields or an error. No I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb::protocol {

inline constexpr std::size_t kMaxSessionMessage = std::size_t{32} << 20;  // bytes of JSON
inline constexpr std::uint32_t kMaxSessionId = 0x7fffffff;  // drivers keep ids in 32 bits, signed
inline constexpr std::size_t kMaxRepresentations = 64;      // of one value
inline constexpr std::size_t kMaxTracebackLines = 65536;

struct SessionMessage {
  enum class Operation { kReady, kStarted, kDisplay, kResult, kError, kDone };

  Operation operation = Operation::kReady;
  std::uint32_t id = 0;  // of the request it answers; 0 in what no request caused
  // kReady
  std::string language;
  std::string version;
  // kDisplay, kResult: by MIME type. Binary ones are in base64, application/json is JSON.
  std::map<std::string, std::string, std::less<>> data;
  // By MIME type the length that a representation had before it was cut, or left out of `data`.
  std::map<std::string, std::uint64_t, std::less<>> cut;
  // kError
  std::string name;
  std::string message;
  std::vector<std::string> traceback;  // lines, each with its end
  // kDone of a shell: exit status, 0 to 255
  std::optional<std::uint32_t> status;
  // kError, kDone: the code asked to exit with this status, 0 to 255
  std::optional<std::uint32_t> exit;
};

// One message's JSON. Empty for an operation that this version does not know; an error when it is
// no JSON, is not UTF-8, or has another shape than docs/interpreters.md gives.
Result<std::optional<SessionMessage>> parse_session_message(std::string_view json);

// Cuts a stream of bytes into messages. Holds at most one message.
class SessionMessageDecoder {
 public:
  // Passes over everything before the answer `ready` to the request `id`: a stream that is taken up
  // in its middle may begin in the middle of a message.
  void seek_ready(std::uint32_t id);

  // Takes bytes from the front of `bytes`, up to the end of the next known message, and gives that;
  // empty when all were taken. After an error nothing can be decoded any more.
  Result<std::optional<SessionMessage>> next(std::span<const std::byte>& bytes);

 private:
  bool seek(std::span<const std::byte>& bytes);
  bool fill(std::size_t size, std::span<const std::byte>& bytes);

  std::string sought_;  // how the JSON begins that seek_ready() waits for; empty: not seeking
  std::string buffer_;  // the message so far, with its length
};

}  // namespace msb::protocol
