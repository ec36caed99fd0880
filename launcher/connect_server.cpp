// SPDX-License-Identifier: Apache-2.0
#include "launcher/connect_server.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

#include "protocol/line_reader.hpp"
#include "protocol/opener.hpp"

namespace msb::launcher {

namespace {

constexpr int kBacklog = 256;
// When there are no descriptors or no memory for another connection.
constexpr std::uint64_t kRetry = 100'000'000;  // nanoseconds

std::unexpected<Error> already_served(const std::string& path) {
  return fail("a running sandbox has its socket at \"{}\" already; choose another path", path);
}

std::unexpected<Error> cannot_make(const std::string& path, int code) {
  return fail_errno(code, "cannot make the socket \"{}\"", path);
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail("the socket's path \"{}\" is empty or too long; choose a shorter one", path);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// A name beside `path` that nothing has.
std::string beside(const std::string& path) {
  std::uint32_t number = 0;
  // Fails only early at boot; the name would be taken then, and say so.
  [[maybe_unused]] const ssize_t size = ::getrandom(&number, sizeof number, GRND_NONBLOCK);
  return fmt::format("{}.{:08x}", path.substr(0, path.rfind('/') + 1), number);
}

// Whether somebody listens: a socket file whose process is dead refuses.
Result<bool> is_served(const std::string& path) {
  const auto address = address_of(path);
  if (!address) {
    return std::unexpected(address.error());
  }
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) {
    return fail_errno(errno, "cannot create a socket");
  }
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0 ||
      errno == EAGAIN || errno == EPROTOTYPE) {
    return true;
  }
  if (errno == ECONNREFUSED || errno == ENOENT) {
    return false;
  }
  return fail_errno(errno, "cannot find out whether \"{}\" is in use", path);
}

// Takes a dead process's socket out of the way. It is moved first and looked at again, so that
// one which another launcher puts there meanwhile is never lost.
Result<void> remove_dead(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) {
    return errno == ENOENT ? Result<void>() : cannot_make(path, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return fail("\"{}\" exists and is not a socket; choose another path", path);
  }
  auto served = is_served(path);
  if (served && !*served) {
    const std::string moved = beside(path);
    if (::rename(path.c_str(), moved.c_str()) != 0) {
      return errno == ENOENT ? Result<void>() : cannot_make(path, errno);
    }
    served = is_served(moved);
    if (served && !*served) {
      return ::unlink(moved.c_str()) == 0 ? Result<void>() : cannot_make(path, errno);
    }
    // Fails only when a third has come to the path meanwhile, whose it is then.
    ::renameat2(AT_FDCWD, moved.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE);
  }
  return served ? Result<void>(already_served(path)) : std::unexpected(served.error());
}

// A socket that listens by the time that its path exists: one that does not yet would look dead.
Result<Fd> listen_at(const std::string& path) {
  const std::string temporary = beside(path);
  const auto address = address_of(temporary);
  if (!address) {
    return fail("the directory of the socket \"{}\" has too long a name", path);
  }
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // bind(2) makes the file with the mode of the socket (unix_bind() of Linux): it never has
  // another.
  if (!socket || ::fchmod(socket.get(), S_IRUSR | S_IWUSR) != 0 ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    return cannot_make(path, errno);
  }
  if (::listen(socket.get(), kBacklog) != 0 ||
      ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
    const int code = errno;
    ::unlink(temporary.c_str());
    return code == EEXIST ? Result<Fd>(already_served(path)) : cannot_make(path, code);
  }
  return socket;
}

}  // namespace

// A connection whose line has not come yet. Keeps itself until the loop has let go of it.
class ConnectServer::Client : public std::enable_shared_from_this<Client> {
 public:
  Client(ConnectServer& server, Fd socket)
      : server_(&server),
        io_(server.io_),
        socket_(std::move(socket)),
        line_(io_, socket_.get(), protocol::kMaxConnectLine,
              [this](const Result<std::string>& line) { complete([&] { on_line(line); }); }),
        deadline_([this](std::int32_t result) { complete([&] { on_deadline(result); }); }) {}

  void start() {
    self_ = shared_from_this();
    line_.start();
    io_.timeout(server_->limits_.line_timeout_ns, deadline_);
  }
  // Leaves the server. The connection is closed unless it was given away.
  void leave() {
    if (server_ != nullptr) {
      std::exchange(server_, nullptr)->leave(this);
      line_.cancel();
      io_.cancel(deadline_);
    }
  }

  Client* previous = nullptr;  // in the server's list
  Client* next = nullptr;

 private:
  template <typename Function>
  void complete(Function&& function) {
    const auto kept = shared_from_this();
    function();
    if (!line_.pending() && !deadline_.pending()) {
      self_.reset();
    }
  }

  void on_line(const Result<std::string>& line) {
    if (server_ == nullptr || (!line && line.error().code == ECANCELED)) {
      return;
    }
    const auto port = line ? protocol::parse_connect(*line)
                           : Result<std::uint32_t>(std::unexpected(line.error()));
    // Whoever sent something else, or cannot be connected, sees its connection closed: there is no
    // answer but OK.
    if (port) {
      [[maybe_unused]] const auto connected = server_->connect_(std::move(socket_), *port);
    }
    socket_.reset();
    leave();
  }

  void on_deadline(std::int32_t result) {
    if (result == -ETIME) {
      leave();
    }
  }

  ConnectServer* server_;  // while it is pending there
  AsyncIo& io_;
  Fd socket_;
  protocol::LineReader line_;
  Operation deadline_;
  std::shared_ptr<Client> self_;
};

Result<std::unique_ptr<ConnectServer>> ConnectServer::create(AsyncIo& io, const std::string& path,
                                                             Connect connect, Limits limits) {
  if (auto fits = address_of(path); !fits) {
    return std::unexpected(fits.error());
  }
  if (auto free = remove_dead(path); !free) {
    return std::unexpected(free.error());
  }
  auto socket = listen_at(path);
  if (!socket) {
    return std::unexpected(socket.error());
  }
  std::unique_ptr<ConnectServer> server(
      new ConnectServer(io, path, std::move(*socket), std::move(connect), limits));
  if (auto remembered = server->remember_file(); !remembered) {
    return std::unexpected(remembered.error());
  }
  return server;
}

ConnectServer::ConnectServer(AsyncIo& io, std::string path, Fd socket, Connect connect,
                             Limits limits)
    : io_(io),
      path_(std::move(path)),
      socket_(std::move(socket)),
      connect_(std::move(connect)),
      limits_(limits),
      acceptable_([this](std::int32_t result) { on_acceptable(result); }),
      retry_([this](std::int32_t result) {
        if (result == -ETIME) {
          accept_more();
        }
      }) {}

ConnectServer::~ConnectServer() {
  close();
}

Result<void> ConnectServer::remember_file() {
  struct stat status{};
  if (::lstat(path_.c_str(), &status) != 0) {
    return cannot_make(path_, errno);
  }
  device_ = status.st_dev;
  inode_ = status.st_ino;
  return {};
}

void ConnectServer::remove_file() {
  struct stat status{};
  if (::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) {
    ::unlink(path_.c_str());
  }
}

void ConnectServer::open() {
  open_ = true;
  accept_more();
}

void ConnectServer::close() {
  open_ = false;
  if (socket_) {
    remove_file();
  }
  io_.cancel(acceptable_);
  io_.cancel(retry_);
  socket_.reset();
  while (clients_ != nullptr) {
    clients_->leave();
  }
}

// Those beyond the limit wait in the socket's queue.
void ConnectServer::accept_more() {
  if (open_ && pending_ < limits_.pending && !acceptable_.pending() && !retry_.pending()) {
    io_.poll(socket_.get(), POLLIN, acceptable_);
  }
}

void ConnectServer::on_acceptable(std::int32_t result) {
  if (!open_ || result == -ECANCELED) {
    return;
  }
  while (pending_ < limits_.pending) {
    Fd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket) {
      if (errno == EINTR || errno == ECONNABORTED) {
        continue;
      }
      if (errno != EAGAIN) {
        io_.timeout(kRetry, retry_);
      }
      break;
    }
    const auto client = std::make_shared<Client>(*this, std::move(socket));
    client->next = clients_;
    if (clients_ != nullptr) {
      clients_->previous = client.get();
    }
    clients_ = client.get();
    ++pending_;
    client->start();
  }
  accept_more();
}

void ConnectServer::leave(Client* client) {
  (client->previous != nullptr ? client->previous->next : clients_) = client->next;
  if (client->next != nullptr) {
    client->next->previous = client->previous;
  }
  --pending_;
  accept_more();
}

}  // namespace msb::launcher
