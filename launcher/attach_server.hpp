// SPDX-License-Identifier: Apache-2.0
// A sandbox's own command, for programs on this host that attach to it: the agent's side of the
// exec protocol, spoken by the supervisor (docs/exec-protocol.md, "The sandbox's command").
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "launcher/output_history.hpp"
#include "protocol/frame_stream.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/host_frames.hpp"
#include "protocol/msb_exec.h"

namespace msb::launcher {

// Any number of clients at once: each gets the output, and the input of all goes in. Who attaches
// before the command has started waits for it. A client that does not read is closed, and holds up
// nobody. Used on the loop's thread, which must be drained after close().
class AttachServer {
 public:
  // Towards the command. Not called any more after close().
  struct Command {
    std::function<void(std::span<const std::byte>)> input;
    std::function<void()> end_input;
    // Whether it takes input now. If not, the clients' waits until resume_input().
    std::function<bool()> takes_input;
  };
  struct Limits {
    std::size_t clients = 64;                          // those beyond are turned away
    std::size_t history = std::size_t{256} << 10;      // bytes of each stream
    std::size_t waiting_bytes = std::size_t{4} << 20;  // for one client
  };
  // The command, once it runs.
  struct Process {
    std::uint32_t process = 0;  // its id
    std::uint32_t pid = 0;
    bool terminal = false;
  };

  AttachServer(AsyncIo& io, Command command, Limits limits);
  AttachServer(const AttachServer&) = delete;
  AttachServer& operator=(const AttachServer&) = delete;
  ~AttachServer();

  // Takes a stream socket in blocking mode, on which OK is still to be written.
  void add(Fd socket);

  void started(const Process& process);
  // There is, and will be, no command: `why` is told to whoever attaches.
  void refuse(std::string why);
  void output(msb_stream stream, std::span<const std::byte> bytes);
  // Its input was ended, by whomever.
  void input_ended();
  void resume_input();
  // Clients get its end behind all output, and are closed.
  void exited(const protocol::Exited& exited);
  // The same, when the guest did not say it: it was killed. `flags`: of msb_exited.
  void killed(std::uint32_t flags);

  // Whether something still waits to be sent to clients that are to be closed then.
  [[nodiscard]] bool waiting() const;
  // Runs when waiting() has become false.
  void when_sent(std::function<void()> function) { sent_ = std::move(function); }
  // Closes every connection.
  void close();

 private:
  struct Client {
    std::optional<protocol::FrameStream> stream;
    std::optional<protocol::AttachSpec> wanted;  // until it is answered
    bool attached = false;
    bool closing = false;  // when everything has been sent
    bool paused = false;   // its input waits
  };
  using Position = std::list<Client>::iterator;

  bool on_frame(Position client, const protocol::Frame& frame);
  void on_attach(Position client, const protocol::Frame& frame);
  bool on_input(Position client, std::span<const std::byte> bytes);
  void on_sent(Position client);
  // Each of these may end the client.
  void answer(Position client);
  void attach(Position client, const protocol::AttachSpec& wanted);
  void finish(Position client, protocol::FrameBytes last);
  bool send(Position client, protocol::FrameBytes frames);
  void leave(Position client);
  [[nodiscard]] std::uint64_t goes_on_at(std::size_t stream, std::uint64_t wanted) const;

  AsyncIo& io_;
  const Command command_;
  const Limits limits_;
  std::list<Client> clients_;
  std::optional<Process> process_;
  std::optional<std::string> refusal_;
  std::optional<protocol::Exited> exited_;
  std::array<OutputHistory, 2> history_;  // standard output and standard error
  std::uint64_t input_ = 0;               // bytes taken from clients
  bool input_open_ = true;
  bool closed_ = false;
  std::function<void()> sent_;
};

}  // namespace msb::launcher
