// SPDX-License-Identifier: Apache-2.0
// Messages between the launcher and the machine process, over one SOCK_SEQPACKET socket pair. Each
// message is a kind, a number, a text and descriptors. Either side treats what it receives as
// hostile: sizes are bounded by the socket type and by kMaxControlMessage, and unknown kinds are
// errors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb {

// Where a machine process finds its two descriptors.
inline constexpr int kControlDescriptor = 3;
inline constexpr int kKvmDescriptor = 4;

enum class ControlKind : std::uint32_t {
  // launcher to machine
  kConfigure = 1,     // text: MachineConfig as JSON; descriptors: those that it names
  kProbe = 2,         // run the probe guest instead of a machine, answer kProbeResult
  kVsockConnect = 3,  // value: guest port; descriptor: a stream socket that becomes the connection
  kRelease = 13,      // value: that of a kDenied: the guest is to have its answer now
  kDescriptors = 4,   // those that one message cannot take: the first of the next kConfigure

  // Requests, each answered by kDone or kRefused with the same value.
  kPause = 5,       // stop the vCPUs, and let the devices come to rest
  kResume = 6,      // undo that
  kCounters = 7,    // kDone's text: MachineCounters as JSON
  kResizeDisk = 8,  // text: "DISK BYTES": the file of that disk, counted from 0, has this size now
  kSetBalloon = 9,  // text: "MIB": so much of its memory the guest is asked to give back
  kAddShare = 10,   // text: "ro CACHE PATH" or "rw …", a ShareCache and the place in the virtio-fs
                    // device; descriptor: O_PATH
  kRemoveShare = 11,    // text: that place
  kHostAddresses = 14,  // text: host_addresses_text(): the host's own addresses are these now
  kNetwork = 12,        // descriptor: another backend of the same kind for the network card

  // machine to launcher
  kRunning = 16,  // the vCPUs run, if times were asked for; text: "name nanoseconds" lines of
                  // CLOCK_MONOTONIC times
  kVsockAccept =
      17,  // value: host port; descriptor: the host's end of a connection that the guest opened
  kStopped = 18,      // the guest stopped; value: StopReason; text: detail
  kError = 19,        // the machine could not be built or failed; text: one sentence
  kProbeResult = 20,  // value: 1 when Linux guests can run; text: one sentence, else why not
  kDone = 21,         // value: that of the request; text: what it gives, if anything
  kRefused = 22,      // value: that of the request; text: one sentence
  kDenied = 24,       // text: a NetworkDenial: a packet of the guest's was not let out
  kNetworkLost = 25,  // the network's backend is gone, or broke the protocol
  kKernelLog = 23,    // text: what the guest's kernel said last, in any bytes; before kStopped
};

enum class StopReason : std::uint32_t {
  kShutdown = 1,       // triple fault: the guest's reset, or its crash when nobody announced it
  kInternalError = 2,  // KVM could not go on; text says where
};

struct ControlMessage {
  ControlKind kind{};
  std::uint32_t value = 0;
  std::string text;
  std::vector<Fd> descriptors;
};

inline constexpr std::size_t kMaxControlMessage = 128 * 1024;
inline constexpr std::size_t kMaxControlDescriptors = 250;  // below the kernel's SCM_MAX_FD of 253
// Of one configuration: 500 layers, and what every machine has.
inline constexpr std::size_t kMaxConfigurationDescriptors = 3 * kMaxControlDescriptors;

// A connected, close-on-exec pair; the ends are non-blocking.
struct ControlPair {
  Fd ours;
  Fd theirs;
};
Result<ControlPair> make_control_pair();

// Sends one message, waiting for space when the socket is full. Descriptors are borrowed. Fails
// with code EPIPE or ECONNRESET when the other side is gone.
Result<void> send_control(int socket, ControlKind kind, std::uint32_t value,
                          std::string_view text = {}, std::span<const int> descriptors = {});

// Whether send_control() would not have to wait, also because it would fail at once: for whoever
// must not hang on the other side.
bool control_has_space(int socket);

// Receives one message; without those of its descriptors for which this process has no room, which
// are closed. Fails with code EAGAIN when none is waiting and with code 0 and
// kControlClosed as message when the other side is gone.
inline constexpr std::string_view kControlClosed = "the control socket was closed";
Result<ControlMessage> receive_control(int socket);

}  // namespace msb
