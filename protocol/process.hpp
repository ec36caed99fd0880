// SPDX-License-Identifier: Apache-2.0
// A process in a guest, over a connection of its own: started or attached to, its streams, its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/host_frames.hpp"
#include "protocol/msb_exec.h"

namespace msb::protocol {

// Used on the loop's thread. Every order that a guest can send frames in ends as one of the
// callbacks: what has no place is a broken connection. May be destroyed at any time, also from
// inside a callback: that closes the connection, which kills the process unless it was started to
// be kept, and nothing is called any more. Memory: what was given to send_input() and has not left,
// and one frame of output.
//
//   auto process = Process::start(loop, *opener(), spec, {
//       .output = [&](msb_stream, std::span<const std::byte> bytes) { … return true; },
//       .exited = [&](const Exited& exited) { … },
//       .failed = [&](const Failure& failure) { … }});
class Process {
 public:
  struct Events {
    // Optional. START was done. No output comes before it.
    std::function<void(const msb_started&)> started;
    // Optional. ATTACH was done: the offsets, never before those asked for, that output goes on
    // with.
    std::function<void(const msb_attached&)> attached;
    // Optional. Bytes of a stream, in order. Return false to take no more, of any stream, until
    // resume(); these count as taken. The process then waits once the buffers between are full.
    std::function<bool(msb_stream, std::span<const std::byte>)> output;
    // Optional. All input that was given has been handed to the connection.
    std::function<void()> sent;

    // Exactly one of the following comes last.
    // It has ended; all that it wrote has come, and the totals agree with what came.
    std::function<void(const Exited&)> exited;
    // Optional. Another connection attached to it.
    std::function<void()> detached;
    // The agent refused (stage other than 0), or the connection ended or broke.
    std::function<void(const Failure&)> failed;
  };

  // `socket`: from an Opener for the agent's port. `start` fails as encode_start() does.
  static Result<Process> start(AsyncIo& io, Fd socket, const ProcessSpec& spec, Events events);
  static Process attach(AsyncIo& io, Fd socket, const AttachSpec& spec, Events events);

  Process(Process&&) noexcept;
  Process& operator=(Process&& other) noexcept;
  ~Process();

  // Standard input and the channel. Of a process that was started they may be used at once, of one
  // that was attached to after `attached`. Whether its input is open still: not after its end was
  // sent, by this connection or one before, and not when it has none; then bytes go nowhere.
  void send_input(std::span<const std::byte> bytes);
  void end_input();
  [[nodiscard]] bool input_open() const;
  void send_channel(std::span<const std::byte> bytes);
  void end_channel();
  [[nodiscard]] bool channel_open() const;
  // Bytes of frames that the connection has not taken yet.
  [[nodiscard]] std::size_t unsent() const;

  void resume();
  // Closes the connection, as destroying does. Nothing is called any more.
  void close();

 private:
  class State;
  explicit Process(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace msb::protocol
