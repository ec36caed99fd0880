// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: what a host may send to the agent, from bytes to fields. The agent is the real
// one, on real sockets; what it would do to this machine is replaced (WRAP in CMakeLists.txt):
// programs are pipes, time stands still between steps, and epoll_wait(2) is where the host takes
// its next step.
//
// The input's first byte chooses the pieces that it comes in. Steps follow: who acts (below), how
// many bytes follow (2 bytes, little-endian), those bytes.
// Seeds: tests/corpus/host-frames.
extern "C" {
#include "initramfs/agent.h"
#include "initramfs/socket_lookup.h"
#include "initramfs/socket_owner.h"
#include "initramfs/spawn.h"
}

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "initramfs/fuzz_support.hpp"
#include "protocol/frames.hpp"
#include "protocol/guest_frames.hpp"
#include "protocol/msb_exec.h"

extern "C" {
int __real_epoll_wait(int epoll, epoll_event* events, int most, int timeout_ms);
int __real_connect(int socket, const sockaddr* address, socklen_t length);
ssize_t __real_recv(int socket, void* bytes, size_t length, int flags);
}

namespace {

using namespace msb;
using namespace msb::fuzz;
using namespace msb::protocol;

constexpr pid_t kFirstPid = 1 << 24;  // above every real one (PID_MAX_LIMIT of the kernel)
constexpr std::size_t kMostPrograms = 16;
constexpr long kStepMs = 200;

// Whether the host's own decoder takes what the agent says.
bool is_well_formed(const Frame& frame) {
  switch (frame.type) {
    case MSB_REFUSED:
      return decode_failure(frame).has_value();
    case MSB_STARTED:
      return decode_started(frame).has_value();
    case MSB_ATTACHED:
      return decode_attached(frame).has_value();
    case MSB_EXITED:
      return decode_exited(frame).has_value();
    case MSB_DONE:
      return decode_done(frame).has_value();
    case MSB_PROCESS:
      return decode_process(frame).has_value();
    case MSB_LISTENER:
      return decode_listener(frame).has_value();
    case MSB_OWNER:
      return decode_owner(frame).has_value();
    default:  // bytes, or numbers of any value
      return true;
  }
}

// The host's end of an agent connection.
class HostEnd {
 public:
  explicit HostEnd(const sockaddr_un& address, socklen_t length)
      : socket_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    require(__real_connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), length) ==
            0);
  }

  void send(Bytes bytes) {
    const ssize_t sent =
        ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      sent_.insert(sent_.end(), bytes.begin(), bytes.begin() + sent);
    }
  }

  // Reads and checks what has come. False when the agent has closed the connection.
  bool receive() {
    std::vector<std::byte> bytes;
    const bool open = take(socket_, bytes);
    if (!decoder_ && !bytes.empty()) {
      decoder_.emplace(kind());
    }
    if (decoder_ && !is_raw_) {
      decoder_->feed(bytes);
      read_frames();
      require(open || is_raw_ || decoder_->at_boundary());
    } else {
      raw_.insert(raw_.end(), bytes.begin(), bytes.end());
    }
    check_raw();
    return open;
  }

  [[nodiscard]] std::uint32_t last_type() const { return last_type_; }

 private:
  [[nodiscard]] msb_frame_header first() const {
    msb_frame_header header{};
    require(sent_.size() >= sizeof header);  // or the agent answers what was not asked
    std::memcpy(&header, sent_.data(), sizeof header);
    return header;
  }

  [[nodiscard]] Connection kind() const {
    switch (first().type) {
      case MSB_START:
      case MSB_ATTACH:
        return Connection::kProcess;
      case MSB_FILES:
        return Connection::kFiles;
      case MSB_CONNECT:
        return Connection::kTunnel;
      default:
        return Connection::kRequest;
    }
  }

  void read_frames() {
    auto frame = decoder_->next();
    for (; frame && *frame && !is_raw_; frame = decoder_->next()) {
      require(is_well_formed(**frame));
      last_type_ = (*frame)->type;
      is_raw_ = kind() == Connection::kTunnel && last_type_ == MSB_DONE;
      if (is_raw_) {
        return;
      }
    }
    require(frame.has_value());
  }

  [[nodiscard]] bool is_of_datagrams() const {
    msb_connect request{};
    std::memcpy(&request, sent_.data() + sizeof(msb_frame_header), sizeof request);
    return request.kind == MSB_CONNECT_UDP;
  }

  // The server at the other end of a tunnel sends back what it gets.
  void check_raw() const {
    if (!is_raw_) {
      return;
    }
    const Bytes echoed = Bytes(sent_).subspan(sizeof(msb_frame_header) + first().length);
    if (is_of_datagrams()) {
      check_datagrams(echoed);
      return;
    }
    require(raw_.size() <= echoed.size() && std::ranges::equal(raw_, echoed.first(raw_.size())));
  }

  // Each of those that came back is one that was sent, in that order; some are lost, or cut by
  // recv(2).
  void check_datagrams(Bytes echoed) const {
    Bytes back(raw_);
    while (const auto came = take_datagram(back)) {
      std::optional<Bytes> sent;
      do {
        sent = take_datagram(echoed);
        require(sent.has_value());
      } while (sent->size() < came->size() ||
               !std::ranges::equal(*came, sent->first(came->size())));
    }
  }

  static std::optional<Bytes> take_datagram(Bytes& stream) {
    constexpr std::size_t kLength = 2;
    if (stream.size() < kLength) {
      return std::nullopt;
    }
    const auto length =
        std::to_integer<std::size_t>(stream[0]) | std::to_integer<std::size_t>(stream[1]) << 8U;
    if (stream.size() - kLength < length) {
      return std::nullopt;
    }
    const Bytes datagram = stream.subspan(kLength, length);
    stream = stream.subspan(kLength + length);
    return datagram;
  }

  Fd socket_;
  std::vector<std::byte> sent_;
  std::optional<FrameDecoder> decoder_;
  bool is_raw_ = false;  // a tunnel that is open
  std::vector<std::byte> raw_;
  std::uint32_t last_type_ = 0;
};

// The ends of a program that is none.
struct Program {
  pid_t pid = 0;
  int report = -1;  // the agent's descriptor
  bool executes = true;
  bool ended = false;
  bool reaped = false;
  int status = 0;  // wait(2)'s
  Fd input;
  Fd streams[MSB_STREAMS];
};

// Every string of a START behind the one before it, and as many as it says.
void check_start(const start_request& request) {
  const msb_start& fixed = request.fixed;
  require(fixed.arguments >= 1 && fixed.groups <= MSB_GROUPS_MAX && fixed.limits <= MSB_LIMITS_MAX);
  require(fixed.keep <= MSB_KEEP_MAX && request.directory[0] == '/');
  const char* next = request.label;
  const auto follows = [&next](const char* string) {
    require(string == next);
    next += std::strlen(string) + 1;
  };
  follows(request.label);
  follows(request.user);
  follows(request.directory);
  const auto all_follow = [&follows](char* const* strings, std::uint32_t count) {
    std::for_each_n(strings, count, follows);
    require(strings[count] == nullptr);
  };
  all_follow(request.groups, fixed.groups);
  all_follow(request.arguments, fixed.arguments);
  all_follow(request.variables, fixed.variables);
  // Room for one more.
  request.variables[fixed.variables + 1] = nullptr;
}

class World {
 public:
  World(Bytes steps, int listener, const sockaddr_un& address, socklen_t length)
      : steps_(steps), listener_(listener), address_(address), address_length_(length) {}

  void run() {
    int control = -1;
    make_pair(control_, control);
    const Fd agents_control(control);
    const agent_options options{.control = control,
                                .listener = listener_,
                                .kmsg = -1,
                                .is_host = nullptr,
                                .namespace_init = -1,
                                .card = nullptr,
                                .forwards = nullptr};
    failure why{};
    most_rounds_ = 1000 + 8 * steps_.size();
    const msb_bye_reason reason = agent_run(&options, &why);
    require(reason == MSB_BYE_REQUESTED || (reason == MSB_BYE_FAILED && why.text[0] != '\0'));
    // Connections that it had not accepted yet.
    int late = -1;
    while ((late = accept(listener_, nullptr, nullptr)) >= 0) {
      close(late);
    }
  }

  // In place of epoll_wait(2): only when nothing is left to do for the agent, somebody else acts.
  int wait(int epoll, epoll_event* events, int most) {
    receive_answers();
    const int count = __real_epoll_wait(epoll, events, most, 0);
    require(++rounds_ < most_rounds_);  // or it spins
    if (count != 0) {
      return count;
    }
    rounds_ = 0;
    now_ms_ += kStepMs;
    if (steps_.empty()) {
      finish();
    } else {
      act();
    }
    return 0;
  }

  [[nodiscard]] long now_ms() const { return now_ms_; }

  bool start(const start_request& request, spawned& spawned) {
    check_start(request);
    if (programs_.size() == kMostPrograms) {
      errno = EAGAIN;
      return false;
    }
    const std::uint32_t flags = request.fixed.flags;
    Program program;
    program.pid = kFirstPid + static_cast<pid_t>(programs_.size());
    program.executes = request.arguments[0][0] != '\0';
    spawned = {.pid = program.pid,
               .input = -1,
               .output = -1,
               .error = -1,
               .channel = -1,
               .slave = -1,
               .report = -1};
    if ((flags & MSB_START_NO_STDIN) == 0) {
      make_pair(program.input, spawned.input);
      // As little as may be, so that a program which does not read is soon waited for (socket(7)).
      constexpr int kLeast = 0;
      setsockopt(spawned.input, SOL_SOCKET, SO_SNDBUF, &kLeast, sizeof kLeast);
    }
    make_pair(program.streams[MSB_STREAM_STDOUT], spawned.output);
    make_pair(program.streams[MSB_STREAM_STDERR], spawned.error);
    if ((flags & MSB_START_CHANNEL) != 0) {
      make_pair(program.streams[MSB_STREAM_CHANNEL], spawned.channel);
    }
    Fd hung_up;
    make_pair(hung_up, spawned.report);
    program.report = spawned.report;
    programs_.push_back(std::move(program));
    return true;
  }

  // What became of the youngest program with that report.
  bool started(int report, std::uint32_t& pid) {
    for (auto program = programs_.rbegin(); program != programs_.rend(); ++program) {
      if (program->report == report) {
        program->report = -1;
        pid = static_cast<std::uint32_t>(program->pid - kFirstPid) + 2;
        if (!program->executes) {
          end(*program, 127 << 8);
        }
        return program->executes;
      }
    }
    std::abort();
  }

  void signal(pid_t pid, int signal) {
    const auto index = static_cast<std::size_t>((pid < 0 ? -pid : pid) - kFirstPid);
    require(index < programs_.size());
    require(!programs_[index].reaped);  // the number is another's by now
    if (signal == SIGKILL) {
      end(programs_[index], SIGKILL);
    }
  }

  pid_t reap(int& status) {
    for (Program& program : programs_) {
      if (program.ended && !program.reaped) {
        program.reaped = true;
        status = program.status;
        return program.pid;
      }
    }
    return 0;
  }

  // A server that sends back what it gets takes the place of the socket.
  void connect(int socket, int type) {
    int ends[2];
    require(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    (type == SOCK_DGRAM ? datagram_servers_ : servers_).emplace_back(ends[0]);
    require(dup2(ends[1], socket) == socket);
    close(ends[1]);
  }

 private:
  enum Actor : std::uint8_t { kControl, kHost, kProgramWrites = 4, kProgramEnds = 7, kActors };
  static constexpr std::size_t kHostEnds = 3;  // the actors from kHost on

  static void end(Program& program, int status) {
    if (program.ended) {
      return;
    }
    program.ended = true;
    program.status = status;
    program.input = Fd();
    for (Fd& stream : program.streams) {
      stream = Fd();
    }
    raise(SIGCHLD);
  }

  void act() {
    constexpr std::size_t kStepHeader = 3;
    if (steps_.size() < kStepHeader) {
      steps_ = {};
      return;
    }
    const auto actor = static_cast<std::uint8_t>(std::to_integer<unsigned>(steps_[0]) % kActors);
    const auto low = std::to_integer<std::size_t>(steps_[1]);
    const auto high = std::to_integer<std::size_t>(steps_[2]);
    steps_ = steps_.subspan(kStepHeader);
    const Bytes bytes = steps_.first(std::min(steps_.size(), high << 8U | low));
    steps_ = steps_.subspan(bytes.size());
    if (actor == kControl) {
      send(control_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    } else if (actor < kProgramWrites) {
      act_as_host(hosts_[actor - kHost], bytes);
    } else if (!programs_.empty()) {
      act_as_program(programs_.back(), actor, bytes);
    }
  }

  // No bytes: it closes the connection. The next step makes another one.
  void act_as_host(std::optional<HostEnd>& host, Bytes bytes) {
    if (bytes.empty()) {
      host.reset();
      return;
    }
    if (!host) {
      host.emplace(address_, address_length_);
    }
    host->send(bytes);
  }

  static void act_as_program(Program& program, std::uint8_t actor, Bytes bytes) {
    std::vector<std::byte> input;
    if (program.input && !take(program.input, input)) {
      program.input = Fd();
    }
    if (actor == kProgramEnds) {
      // By a signal, or with a status.
      const auto value = bytes.empty() ? 0 : std::to_integer<int>(bytes[0]);
      end(program, bytes.size() > 1 ? value % 64 + 1 : value << 8);
    } else if (!program.ended && program.streams[actor - kProgramWrites]) {
      send(program.streams[actor - kProgramWrites].get(), bytes.data(), bytes.size(),
           MSG_NOSIGNAL | MSG_DONTWAIT);
    }
  }

  void receive_answers() {
    for (std::optional<HostEnd>& host : hosts_) {
      if (host && !host->receive()) {
        host.reset();
      }
    }
    if (last_) {
      last_->receive();
    }
    for (const Fd& server : servers_) {
      std::vector<std::byte> bytes;
      const bool open = take(server, bytes);
      send(server.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (!open) {
        shutdown(server.get(), SHUT_WR);
      }
    }
    for (const Fd& server : datagram_servers_) {
      static std::byte datagram[kMostInput];
      ssize_t n = 0;
      while ((n = __real_recv(server.get(), datagram, sizeof datagram, MSG_DONTWAIT)) >= 0) {
        send(server.get(), datagram, static_cast<std::size_t>(n), MSG_NOSIGNAL | MSG_DONTWAIT);
      }
    }
  }

  // Whatever came before, the agent answers one more request, and ends when it is told to.
  void finish() {
    if (!last_) {
      last_.emplace(address_, address_length_);
      const auto ping = encode_frame(MSB_PING, {});
      last_->send(ping);
      return;
    }
    require(last_->last_type() == MSB_PONG && control_);
    control_ = Fd();
  }

  Bytes steps_;
  int listener_;
  const sockaddr_un& address_;
  socklen_t address_length_;
  std::size_t rounds_ = 0;
  std::size_t most_rounds_ = 0;
  long now_ms_ = 1;
  Fd control_;
  std::optional<HostEnd> hosts_[kHostEnds];
  std::optional<HostEnd> last_;
  std::vector<Program> programs_;
  std::vector<Fd> servers_;
  std::vector<Fd> datagram_servers_;
};

World* world = nullptr;

int make_listener(sockaddr_un& address, socklen_t& length) {
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  address = {};
  address.sun_family = AF_UNIX;
  // A name of the kernel's choice (unix(7), autobind).
  require(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)) == 0);
  length = sizeof address;
  require(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  require(listen(listener, 100) == 0);
  return listener;
}

std::size_t count_descriptors() {
  constexpr int kLooked = 64;  // one that leaks stays below as the others go
  std::size_t count = 0;
  for (int descriptor = 0; descriptor < kLooked; ++descriptor) {
    if (fcntl(descriptor, F_GETFD) >= 0) {
      ++count;
    }
  }
  return count;
}

void drive_agent(Bytes steps) {
  static sockaddr_un address;
  static socklen_t address_length;
  static const int listener = make_listener(address, address_length);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  sigaddset(&blocked, SIGPIPE);
  sigprocmask(SIG_BLOCK, &blocked, nullptr);
  const std::size_t descriptors = count_descriptors();
  {
    World here(steps, listener, address, address_length);
    world = &here;
    here.run();
    world = nullptr;
  }
  require(count_descriptors() == descriptors);
  const timespec now{};
  while (sigtimedwait(&blocked, nullptr, &now) > 0) {
  }
}

}  // namespace

extern "C" {

int __wrap_epoll_wait(int epoll, epoll_event* events, int most, int timeout_ms);
int __wrap_connect(int socket, const sockaddr* address, socklen_t length);
int __wrap_kill(pid_t pid, int signal);
pid_t __wrap_wait4(pid_t pid, int* status, int options, rusage* usage);
long __wrap_clock_now_ms(void);
int __wrap_clock_settime(clockid_t clock, const timespec* time);
int __wrap_sethostname(const char* name, size_t length);
int __wrap_open(const char* path, int flags, ...);
int __wrap_openat(int directory, const char* path, int flags, ...);
bool __wrap_spawn(const start_request* request, spawned* spawned, failure* failure);
bool __wrap_spawn_result(int report, const start_request* request, uint32_t* pid, failure* failure);
pid_t __wrap_namespace_fork_beside(pid_t init, bool* restored);
bool __wrap_socket_owner_find(const msb_socket* ends, long until_ms, socket_owner* owner);
bool __wrap_socket_lookup_receiver(const guest_address* address);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int __wrap_epoll_wait(int epoll, epoll_event* events, int most, int) {
  return world->wait(epoll, events, most);
}

int __wrap_connect(int socket, const sockaddr* address, socklen_t) {
  int type = 0;
  socklen_t length = sizeof type;
  require(getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &length) == 0);
  if (address->sa_family == AF_UNIX || type == SOCK_DGRAM) {
    world->connect(socket, type);
    return 0;
  }
  errno = ECONNREFUSED;
  return -1;
}

int __wrap_kill(pid_t pid, int signal) {
  world->signal(pid, signal);
  return 0;
}

pid_t __wrap_wait4(pid_t, int* status, int, rusage* usage) {
  *usage = {};
  return world->reap(*status);
}

long __wrap_clock_now_ms(void) {
  return world->now_ms();
}

int __wrap_clock_settime(clockid_t, const timespec*) {
  return 0;
}

int __wrap_sethostname(const char*, size_t) {
  return 0;
}

int __wrap_open(const char*, int, ...) {
  errno = ENOENT;
  return -1;
}

int __wrap_openat(int, const char*, int, ...) {
  errno = ENOENT;
  return -1;
}

bool __wrap_spawn(const start_request* request, spawned* spawned, failure* failure) {
  return world->start(*request, *spawned) ||
         fail(failure, MSB_STAGE_RESOURCES, errno, "cannot make a process");
}

bool __wrap_spawn_result(int report, const start_request*, uint32_t* pid, failure* failure) {
  return world->started(report, *pid) ||
         fail(failure, MSB_STAGE_EXECUTE, ENOENT, "cannot execute it");
}

pid_t __wrap_namespace_fork_beside(pid_t, bool* restored) {
  *restored = true;
  errno = EAGAIN;
  return -1;
}

// The machine's own sockets are nobody's here.
bool __wrap_socket_owner_find(const msb_socket* ends, long /*until_ms*/, socket_owner* owner) {
  *owner = {.fields = {.pid = ends->local_port, .user = ends->family}, .name = "program"};
  return ends->remote_port % 2 == 0;
}

bool __wrap_socket_lookup_receiver(const guest_address* address) {
  return address->any.sa_family == AF_INET6;
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size >= 1 && size <= kMostInput) {
    drive_agent(choose_pieces(std::as_bytes(std::span(data, size))));
  }
  return 0;
}

}  // extern "C"
