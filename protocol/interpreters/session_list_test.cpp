// SPDX-License-Identifier: Apache-2.0
#include "protocol/interpreters/session_list.hpp"

#include <doctest/doctest.h>

#include "protocol/msb_exec.h"

namespace msb::protocol {
namespace {

constexpr std::uint32_t kFlags = MSB_START_KEEP | MSB_START_CHANNEL | MSB_START_NO_STDIN;

ProcessEntry entry(std::string label, std::uint32_t flags = kFlags) {
  ProcessEntry made;
  made.fields.process = 7;
  made.fields.pid = 12;
  made.fields.state = MSB_PROCESS_RUNS;
  made.fields.flags = flags;
  made.label = std::move(label);
  made.program = "python3";
  return made;
}

TEST_CASE("a session's process tells its language, its name and whether it is free") {
  ProcessEntry listed = entry("session:javascript:a.b");
  ListedSession expected{.process = 7,
                         .pid = 12,
                         .language = Language::kJavascript,
                         .name = "a.b",
                         .state = ListedSession::State::kFree};
  CHECK(as_session(listed) == expected);
  listed.fields.attached = 1;
  expected.state = ListedSession::State::kInUse;
  CHECK(as_session(listed) == expected);
  listed.fields.state = MSB_PROCESS_ENDED;
  expected.state = ListedSession::State::kEnded;
  CHECK(as_session(listed) == expected);
}

TEST_CASE("a process with another label is no session") {
  for (const char* label : {"", "session", "session:python", "session:python:", "session:sh:x",
                            "session:python:a/b", "Session:python:x", "session:python:x\n"}) {
    CAPTURE(label);
    CHECK_FALSE(as_session(entry(label)));
  }
}

TEST_CASE("a process that only has the label of a session is none") {
  for (const std::uint32_t flags :
       {0U, MSB_START_KEEP, MSB_START_KEEP | MSB_START_CHANNEL,
        MSB_START_CHANNEL | MSB_START_NO_STDIN, kFlags | MSB_START_TERMINAL}) {
    CAPTURE(flags);
    CHECK_FALSE(as_session(entry("session:python:x", flags)));
  }
  CHECK(as_session(entry("session:python:x", kFlags | MSB_START_CREATE_DIRECTORY)));
}

}  // namespace
}  // namespace msb::protocol
