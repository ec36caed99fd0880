// SPDX-License-Identifier: Apache-2.0
#include "protocol/interpreters/session_list.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "protocol/msb_exec.h"

namespace msb::protocol {

namespace {

// As START of a session has them. Others may be set besides, but not TERMINAL.
constexpr std::uint32_t kSessionFlags = MSB_START_KEEP | MSB_START_CHANNEL | MSB_START_NO_STDIN;

ListedSession::State state_of(const msb_process& fields) {
  if (fields.state == MSB_PROCESS_ENDED) {
    return ListedSession::State::kEnded;
  }
  return fields.attached != 0 ? ListedSession::State::kInUse : ListedSession::State::kFree;
}

}  // namespace

std::optional<ListedSession> as_session(const ProcessEntry& entry) {
  const msb_process& fields = entry.fields;
  auto label = parse_label(entry.label);
  if (!label || (fields.flags & (kSessionFlags | MSB_START_TERMINAL)) != kSessionFlags) {
    return std::nullopt;
  }
  return ListedSession{.process = fields.process,
                       .pid = fields.pid,
                       .language = label->language,
                       .name = std::move(label->name),
                       .state = state_of(fields)};
}

void list_sessions(Requests& requests, Requests::Done<std::vector<ListedSession>> done) {
  auto sessions = std::make_shared<std::vector<ListedSession>>();
  requests.list(
      [sessions](const ProcessEntry& entry) {
        if (auto session = as_session(entry)) {
          sessions->push_back(*std::move(session));
        }
      },
      [sessions, done = std::move(done)](const Answer<std::uint64_t>& count) {
        if (!count) {
          done(std::unexpected(count.error()));
          return;
        }
        std::ranges::sort(*sessions, {}, &ListedSession::process);
        done(std::move(*sessions));
      });
}

}  // namespace msb::protocol
