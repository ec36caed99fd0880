// SPDX-License-Identifier: Apache-2.0
// How a command of msb-vmm ends: exit statuses as container engines and timeout(1) have them.
#pragma once

#include <cstdint>
#include <string>

namespace msb::launcher {

inline constexpr int kExitTimeout = 124;   // the command was ended because its time was over
inline constexpr int kExitLauncher = 125;  // the launcher or the machine failed, not the command
inline constexpr int kExitNotExecutable = 126;  // the command exists and cannot be run
inline constexpr int kExitNotFound = 127;
inline constexpr int kExitSignal = 128;  // plus the signal that ended the command

// Why a sandbox has ended.
enum class Cause : std::uint8_t {
  kExited,   // by itself: its command ended, or could not be started
  kStopped,  // it was asked to
  kTimeout,  // --timeout
  kIdle,     // --idle-timeout
  kFailed,   // the sandbox itself failed
};

// The exit status, and a sentence when there is more to say.
struct Outcome {
  int status = kExitLauncher;
  std::string message{};
  Cause cause = Cause::kFailed;
};

}  // namespace msb::launcher
