// SPDX-License-Identifier: Apache-2.0
#include "launcher/unix_listener.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>

namespace msb::launcher {

namespace {

constexpr int kBacklog = 256;
// When there are no descriptors or no memory for another connection.
constexpr std::uint64_t kRetry = 100'000'000;  // nanoseconds
// In one turn of the loop, which has other work too.
constexpr int kAcceptedAtOnce = 64;

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

Result<std::unique_ptr<UnixListener>> UnixListener::create(AsyncIo& io, const std::string& path,
                                                           Owner owner) {
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
  std::unique_ptr<UnixListener> listener(
      new UnixListener(io, path, std::move(*socket), std::move(owner)));
  if (auto remembered = listener->remember_file(); !remembered) {
    return std::unexpected(remembered.error());
  }
  return listener;
}

UnixListener::UnixListener(AsyncIo& io, std::string path, Fd socket, Owner owner)
    : io_(io),
      path_(std::move(path)),
      socket_(std::move(socket)),
      owner_(std::move(owner)),
      acceptable_([this](std::int32_t result) { on_acceptable(result); }),
      retry_([this](std::int32_t result) {
        if (result == -ETIME) {
          accept_more();
        }
      }) {}

UnixListener::~UnixListener() {
  close();
}

Result<void> UnixListener::remember_file() {
  struct stat status{};
  if (::lstat(path_.c_str(), &status) != 0) {
    return cannot_make(path_, errno);
  }
  device_ = status.st_dev;
  inode_ = status.st_ino;
  return {};
}

void UnixListener::remove_file() {
  struct stat status{};
  if (::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) {
    ::unlink(path_.c_str());
  }
}

void UnixListener::open() {
  open_ = true;
  accept_more();
}

void UnixListener::close() {
  open_ = false;
  if (socket_) {
    remove_file();
  }
  io_.cancel(acceptable_);
  io_.cancel(retry_);
  socket_.reset();
}

void UnixListener::accept_more() {
  if (open_ && owner_.has_room() && !acceptable_.pending() && !retry_.pending()) {
    io_.poll(socket_.get(), POLLIN, acceptable_);
  }
}

void UnixListener::on_acceptable(std::int32_t result) {
  if (result == -ECANCELED) {
    return;
  }
  for (int i = 0; i < kAcceptedAtOnce && open_ && owner_.has_room(); ++i) {
    Fd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (socket) {
      owner_.accepted(std::move(socket));
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      io_.timeout(kRetry, retry_);
      break;
    }
  }
  accept_more();
}

}  // namespace msb::launcher
