// SPDX-License-Identifier: Apache-2.0
#include "protocol/guest_frames.hpp"

#include <sys/stat.h>

#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "protocol/quote.hpp"

namespace msb::protocol {

namespace {

constexpr std::uint32_t kMaxErrno = 4095;  // MAX_ERRNO of Linux
constexpr std::uint32_t kMaxStatus = 255;
constexpr std::uint32_t kMaxSignal = 64;
constexpr std::uint32_t kMaxPort = 65'535;
constexpr std::size_t kMaxName = 255;  // of PROCESS's strings

constexpr std::uint32_t kStartFlags = MSB_START_CREATE_DIRECTORY | MSB_START_KEEP |
                                      MSB_START_TERMINAL | MSB_START_CHANNEL | MSB_START_NO_STDIN;
constexpr std::uint32_t kExitedFlags =
    MSB_EXITED_OUT_OF_MEMORY | MSB_EXITED_CORE_DUMPED | MSB_EXITED_TIMED_OUT;
constexpr std::uint32_t kAttachedFlags = MSB_ATTACHED_INPUT_ENDED | MSB_ATTACHED_CHANNEL_ENDED |
                                         MSB_ATTACHED_TERMINAL | MSB_ATTACHED_INPUT;
// Only what has a standard input has these.
constexpr std::uint32_t kAttachedNeedInput = MSB_ATTACHED_INPUT_ENDED | MSB_ATTACHED_TERMINAL;

std::unexpected<Error> malformed(const Frame& frame, std::string_view what) {
  return fail("the guest sent a malformed {}: {}", frame_name(frame.type), what);
}

template <typename T>
std::optional<T> fields_of(const Frame& frame) {
  if (frame.payload.size() < sizeof(T)) {
    return std::nullopt;
  }
  T value;
  std::memcpy(&value, frame.payload.data(), sizeof value);
  return value;
}

template <typename T>
Result<T> read_fields(const Frame& frame) {
  const auto fields = fields_of<T>(frame);
  if (!fields) {
    return malformed(frame, "it is too short");
  }
  return *fields;
}

std::string_view text_behind(const Frame& frame, std::size_t fields) {
  const auto text = frame.payload.subspan(fields);
  return {reinterpret_cast<const char*>(text.data()), text.size()};
}

// Exactly two strings, each ended by a 0 byte.
std::optional<std::array<std::string_view, 2>> two_strings(std::string_view text) {
  const std::size_t first = text.find('\0');
  if (first == std::string_view::npos) {
    return std::nullopt;
  }
  const std::size_t second = text.find('\0', first + 1);
  if (second == std::string_view::npos || second + 1 != text.size()) {
    return std::nullopt;
  }
  return std::array{text.substr(0, first), text.substr(first + 1, second - first - 1)};
}

}  // namespace

Error out_of_place(const Frame& frame) {
  return fail("the guest sent a {} out of place", frame_name(frame.type)).error();
}

Result<msb_hello> decode_hello(const Frame& frame) {
  // Of another version nothing but the version means anything.
  auto hello = read_fields<msb_hello>(frame);
  if (hello && hello->version == MSB_EXEC_VERSION && hello->reserved != 0) {
    return malformed(frame, "a reserved field is not 0");
  }
  return hello;
}

Result<Failure> decode_failure(const Frame& frame) {
  const auto fields = read_fields<msb_failure>(frame);
  if (!fields) {
    return std::unexpected(fields.error());
  }
  if (fields->stage < MSB_STAGE_BOOT || fields->stage > MSB_STAGE_FILE ||
      fields->code > kMaxErrno) {
    return malformed(frame, "its stage or code does not exist");
  }
  return Failure{fields->stage,
                 {quote(text_behind(frame, sizeof(msb_failure))), static_cast<int>(fields->code)}};
}

Result<msb_bye> decode_bye(const Frame& frame) {
  auto bye = read_fields<msb_bye>(frame);
  if (bye && (bye->reason < MSB_BYE_REQUESTED || bye->reason > MSB_BYE_FAILED)) {
    return malformed(frame, "its reason does not exist");
  }
  return bye;
}

Result<msb_started> decode_started(const Frame& frame) {
  auto started = read_fields<msb_started>(frame);
  if (started && started->process == 0) {
    return malformed(frame, "the process has no id");
  }
  return started;
}

Result<msb_attached> decode_attached(const Frame& frame) {
  auto attached = read_fields<msb_attached>(frame);
  if (!attached) {
    return attached;
  }
  const bool input = (attached->flags & MSB_ATTACHED_INPUT) != 0;
  if (attached->process == 0 || attached->reserved != 0 ||
      (attached->flags & ~kAttachedFlags) != 0 ||
      (!input && (attached->flags & kAttachedNeedInput) != 0)) {
    return malformed(frame, "the process has no id, or a flag does not exist");
  }
  return attached;
}

Result<Exited> decode_exited(const Frame& frame) {
  const auto fields = read_fields<msb_exited>(frame);
  if (!fields) {
    return std::unexpected(fields.error());
  }
  const bool status = fields->kind == MSB_EXIT_STATUS && fields->value <= kMaxStatus;
  const bool signal =
      fields->kind == MSB_EXIT_SIGNAL && fields->value >= 1 && fields->value <= kMaxSignal;
  if (!status && !signal) {
    return malformed(frame, "there is no such end of a process");
  }
  if (fields->process == 0 || (fields->flags & ~kExitedFlags) != 0) {
    return malformed(frame, "the process has no id, or a flag does not exist");
  }
  return Exited{*fields, std::string(text_behind(frame, sizeof(msb_exited)))};
}

Result<msb_done> decode_done(const Frame& frame) {
  return read_fields<msb_done>(frame);
}

Result<ProcessEntry> decode_process(const Frame& frame) {
  const auto fields = read_fields<msb_process>(frame);
  if (!fields) {
    return std::unexpected(fields.error());
  }
  if (fields->process == 0 || fields->state < MSB_PROCESS_RUNS ||
      fields->state > MSB_PROCESS_ENDED || (fields->flags & ~kStartFlags) != 0 ||
      fields->attached > 1 || fields->reserved != 0) {
    return malformed(frame, "the process has no id, or a state or flag does not exist");
  }
  for (std::size_t i = 0; i < MSB_STREAMS; ++i) {
    if (fields->oldest[i] > fields->offsets[i]) {
      return malformed(frame, "it keeps bytes that were not written yet");
    }
  }
  const auto names = two_strings(text_behind(frame, sizeof(msb_process)));
  if (!names || (*names)[0].size() > kMaxName || (*names)[1].size() > kMaxName) {
    return malformed(frame, "its label and first argument are not two strings of 255 bytes");
  }
  return ProcessEntry{*fields, std::string((*names)[0]), std::string((*names)[1])};
}

Result<msb_metrics> decode_measured(const Frame& frame) {
  return read_fields<msb_metrics>(frame);
}

Result<msb_listener> decode_listener(const Frame& frame) {
  auto listener = read_fields<msb_listener>(frame);
  if (listener && ((listener->family != 4 && listener->family != 6) || listener->port == 0 ||
                   listener->port > kMaxPort)) {
    return malformed(frame, "its address family or port does not exist");
  }
  return listener;
}

Result<SocketOwner> decode_owner(const Frame& frame) {
  const auto fields = read_fields<msb_owner>(frame);
  if (!fields) {
    return std::unexpected(fields.error());
  }
  if (fields->pid == 0) {
    return malformed(frame, "the program has no pid");
  }
  return SocketOwner{fields->pid, fields->user, std::string(text_behind(frame, sizeof(msb_owner)))};
}

Result<FileEntry> decode_file_entry(const Frame& frame) {
  const auto fields = read_fields<msb_file_entry>(frame);
  if (!fields) {
    return std::unexpected(fields.error());
  }
  if (fields->reserved != 0) {
    return malformed(frame, "a reserved field is not 0");
  }
  if (fields->change > MSB_FILE_DELETED) {
    return malformed(frame, "the kind of change is unknown");
  }
  const auto names = two_strings(text_behind(frame, sizeof(msb_file_entry)));
  if (!names || (*names)[0].empty()) {
    return malformed(frame, "it is not followed by a name and a target");
  }
  if (!(*names)[1].empty() && !S_ISLNK(fields->mode)) {
    return malformed(frame, "what is no symbolic link has a target");
  }
  return FileEntry{*fields, std::string((*names)[0]), std::string((*names)[1])};
}

}  // namespace msb::protocol
