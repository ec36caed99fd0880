// SPDX-License-Identifier: Apache-2.0
// Datagrams on a stream socket: each has its length in front, 2 bytes, little-endian.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/async_io.hpp"
#include "base/fd.hpp"

namespace msb::launcher {

// Datagrams that wait to be written, with their lengths. Who does not read loses some: no more than
// kMost bytes wait.
class WaitingDatagrams {
 public:
  static constexpr std::size_t kMost = 262144;

  // Whether there was room for it, beside `elsewhere` bytes.
  bool add(std::span<const std::byte> datagram, std::size_t elsewhere = 0);
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  // All of them; none wait any more.
  [[nodiscard]] std::vector<std::byte> take();

 private:
  std::vector<std::byte> bytes_;
};

// Used on the loop's thread. May be destroyed at any time, also from inside a callback: that closes
// the connection, and nothing is called any more.
class DatagramStream {
 public:
  struct Events {
    std::function<void(std::span<const std::byte> datagram)> received;
    // The connection has ended or broken; nothing follows.
    std::function<void()> ended;
  };

  // `socket`: in blocking mode. What is `waiting` goes first.
  DatagramStream(AsyncIo& io, Fd socket, Events events, WaitingDatagrams waiting = {});
  DatagramStream(DatagramStream&&) noexcept;
  DatagramStream& operator=(DatagramStream&& other) noexcept;
  ~DatagramStream();

  // Of at most 65,535 bytes. It is lost when the other side does not keep up.
  void send(std::span<const std::byte> datagram);

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace msb::launcher
