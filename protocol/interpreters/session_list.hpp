// SPDX-License-Identifier: Apache-2.0
// The interpreter sessions of a sandbox, whoever started them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "protocol/guest_frames.hpp"
#include "protocol/interpreters/language.hpp"
#include "protocol/requests.hpp"

namespace msb::protocol {

struct ListedSession {
  enum class State {
    kFree,   // runs, and no connection has it
    kInUse,  // runs, and one has it: attaching takes it from there
    kEnded,  // and was not forgotten: attaching tells how
  };
  std::uint32_t process = 0;  // its id, for Interpreter::attach()
  std::uint32_t pid = 0;      // of the interpreter, as programs in the guest see it
  Language language = Language::kPython;
  std::string name;
  State state = State::kFree;
  bool operator==(const ListedSession&) const = default;
};

// Empty when the process is no session: when it has another label, or was not started as sessions
// are.
std::optional<ListedSession> as_session(const ProcessEntry& entry);

// Asks for the sessions, oldest first. Nothing keeps two from having the same language and name.
void list_sessions(Requests& requests, Requests::Done<std::vector<ListedSession>> done);

}  // namespace msb::protocol
