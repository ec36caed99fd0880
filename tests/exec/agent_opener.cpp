// SPDX-License-Identifier: Apache-2.0
#include "tests/exec/agent_opener.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string_view>
#include <utility>

#include "base/fd.hpp"

namespace msb::test {

namespace {

// Passes on what is there. False at the end of the stream, or when nobody takes it.
bool pass_on(int from, int to) {
  std::array<char, 64 * 1024> bytes;
  const ssize_t count = ::read(from, bytes.data(), bytes.size());
  if (count <= 0) {
    return false;
  }
  for (ssize_t sent = 0; sent < count;) {
    const ssize_t n =
        ::send(to, bytes.data() + sent, static_cast<std::size_t>(count - sent), MSG_NOSIGNAL);
    if (n <= 0) {
      return false;
    }
    sent += n;
  }
  return true;
}

void pump(const Fd& host, const Fd& agent) {
  std::array<pollfd, 2> ends{{{host.get(), POLLIN, 0}, {agent.get(), POLLIN, 0}}};
  while (::poll(ends.data(), ends.size(), -1) >= 0) {
    if ((ends[0].revents != 0 && !pass_on(host.get(), agent.get())) ||
        (ends[1].revents != 0 && !pass_on(agent.get(), host.get()))) {
      return;
    }
  }
}

}  // namespace

protocol::Opener AgentOpener::opener() {
  return [this]() -> Result<Fd> {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      return fail_errno(errno, "cannot create a socket pair");
    }
    Fd ours(ends[0]);
    Fd theirs(ends[1]);
    constexpr std::string_view kGreeting = "OK 1073741824\n";
    if (::write(theirs.get(), kGreeting.data(), kGreeting.size()) !=
        static_cast<ssize_t>(kGreeting.size())) {
      return fail_errno(errno, "cannot write the greeting");
    }
    Fd agent(::dup(agent_.connect().descriptor()));
    pumps_.emplace_back(
        [host = std::move(theirs), agent = std::move(agent)] { pump(host, agent); });
    return ours;
  };
}

}  // namespace msb::test
