// SPDX-License-Identifier: Apache-2.0
// For tests: a socket pair whose far end says what a guest's agent would, or would not, and a real
// event loop for the near end.
#pragma once

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/fd.hpp"
#include "base/loop.hpp"
#include "protocol/frames.hpp"
#include "protocol/msb_exec.h"

namespace msb::protocol::testing {

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A frame with a payload structure and what follows it, as text.
template <typename T>
  requires(!std::is_convertible_v<T, std::string_view>)
std::string frame_of(std::uint32_t type, const T& fields, std::string_view rest = {}) {
  std::string payload(sizeof fields, '\0');
  std::memcpy(payload.data(), &fields, sizeof fields);
  payload += rest;
  return text_of(encode_frame(type, bytes_of(payload)));
}

inline std::string frame_of(std::uint32_t type, std::string_view payload = {}) {
  return text_of(encode_frame(type, bytes_of(payload)));
}

class Wire {
 public:
  Wire() {
    ::signal(SIGPIPE, SIG_IGN);  // as programs that use the clients do
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    host = Fd(ends[0]);
    guest = Fd(ends[1]);
    auto created = Loop::create();
    REQUIRE(created);
    loop = std::move(*created);
  }

  // The guest's side.
  void say(std::string_view bytes) const {
    REQUIRE(::send(guest.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(bytes.size()));
  }
  // What the host has said so far.
  const std::string& hear() {
    char buffer[64 * 1024];
    ssize_t size = 0;
    while (guest && (size = ::recv(guest.get(), buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
      heard.append(buffer, static_cast<std::size_t>(size));
    }
    host_closed = host_closed || size == 0;
    return heard;
  }
  bool closed() {
    hear();
    return host_closed;
  }

  // Runs the loop until `condition` holds; whether it came to that.
  bool run_until(const std::function<bool()>& condition) const {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    constexpr std::uint64_t kTick = 1'000'000;  // nanoseconds
    Operation* again = nullptr;
    Operation tick([&](std::int32_t) {
      if (condition() || std::chrono::steady_clock::now() > give_up) {
        loop->stop();
      } else {
        loop->timeout(kTick, *again);
      }
    });
    again = &tick;
    loop->timeout(0, tick);
    return loop->run() && condition();
  }

  Fd host, guest;
  std::string heard;
  bool host_closed = false;
  std::unique_ptr<Loop> loop;
};

}  // namespace msb::protocol::testing
