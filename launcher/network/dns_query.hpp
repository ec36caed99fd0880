// SPDX-License-Identifier: Apache-2.0
// One DNS query by UDP to this host's resolvers.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/async_io.hpp"
#include "base/socket_address.hpp"

namespace msb::launcher {

// Each resolver is asked from a socket of its own, whose port the kernel chooses at random: the
// next one when those before have not answered in time, or refuse. The first right answer counts; a
// failure only when no other one has anything better. When none can be asked it is SERVFAIL; when
// none answers there is none. Used on the loop's thread. May be destroyed at any time, also from
// inside `done`; before that `done` does not run.
class DnsQuery {
 public:
  // Gets the answer, or nothing.
  using Done = std::function<void(std::span<const std::byte> answer)>;

  struct Times {
    std::chrono::milliseconds next{1'500};  // until the next resolver is asked too
    std::chrono::milliseconds all{6'000};   // until there is no answer
  };

  // `message`: is_dns_query(). `servers`: with their ports. `done` runs once, later.
  DnsQuery(AsyncIo& io, std::vector<std::byte> message, std::vector<SocketAddress> servers,
           Times times, Done done);
  DnsQuery(const DnsQuery&) = delete;
  DnsQuery& operator=(const DnsQuery&) = delete;
  ~DnsQuery();

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace msb::launcher
