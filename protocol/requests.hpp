// SPDX-License-Identifier: Apache-2.0
// Requests about processes and about the machine, over one connection, answered in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/async_io.hpp"
#include "base/fd.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/host_frames.hpp"

namespace msb::protocol {

// Used on the loop's thread. Requests may follow each other without waiting; their `done` run in
// the order of the calls, each exactly once: later, or from inside the call when the request is one
// that the agent would refuse for its form, or the connection has broken already. May be destroyed
// at any time, also from inside a callback; then what is not answered is dropped and nothing is
// called any more.
class Requests {
 public:
  template <typename T>
  using Done = std::function<void(Answer<T>)>;

  // More answers to one request than this are a protocol error.
  static constexpr std::uint64_t kMaxListed = 65'536;

  // `socket`: from an Opener for the agent's port.
  Requests(AsyncIo& io, Fd socket);
  Requests(Requests&&) noexcept;
  Requests& operator=(Requests&& other) noexcept;
  ~Requests();

  // False once the connection has broken: then every request fails, and it takes a new one.
  [[nodiscard]] bool open() const;

  // `group`: to the process's group instead of to it alone. Done also when it has ended.
  void signal(std::uint32_t process, std::uint32_t signal, bool group, Done<void> done);
  void resize(std::uint32_t process, TerminalSize size, Done<void> done);
  // `each` gets every process that runs or is kept; `done` how many.
  void list(std::function<void(const ProcessEntry&)> each, Done<std::uint64_t> done);
  // Answered when the process has ended; requests made after it wait as long.
  void wait(std::uint32_t process, Done<Exited> done);
  void forget(std::uint32_t process, Done<void> done);

  // Up to 1,024 bytes, which have come back when it is done.
  void ping(std::span<const std::byte> bytes, Done<void> done);
  void metrics(Done<msb_metrics> done);
  void listeners(std::function<void(const msb_listener&)> each, Done<std::uint64_t> done);
  // The program that has a socket, by the ends of what it sends; nothing when nobody is found.
  void socket_owner(const msb_socket& ends, Done<std::optional<SocketOwner>> done);
  void set_clock(std::uint64_t realtime_ns, Done<void> done);
  // 1 to 512 random bytes.
  void add_entropy(std::span<const std::byte> bytes, Done<void> done);
  // Host name, content of /etc/resolv.conf and of /etc/hosts; an empty one leaves what is there.
  void set_names(const std::string& host_name, const std::string& resolv_conf,
                 const std::string& hosts, Done<void> done);
  // Shows what is at `path` of the virtio-fs device at an absolute path, which is made when
  // missing.
  void share(bool read_only, const std::string& path, const std::string& place, Done<void> done);
  // Unmounts it. Done also when it is not mounted there any more.
  void unshare(const std::string& place, Done<void> done);

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace msb::protocol
