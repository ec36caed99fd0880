// SPDX-License-Identifier: Apache-2.0
#include "server/keeper.hpp"

#include <fcntl.h>
#include <sys/random.h>

#include <cerrno>

#include "sandbox/files.hpp"
#include "server/presence.hpp"

namespace msb::server {

namespace {

struct flock byte_at(std::int64_t offset) {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = offset;
  lock.l_len = 1;
  return lock;
}

// Of 2^62 numbers, two processes do not choose the same; if they do, the second looks further.
std::int64_t choose_offset() {
  std::uint64_t number = 0;
  while (::getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) {
  }
  return static_cast<std::int64_t>(number >> 2) + 1;
}

}  // namespace

Result<Keeper> Keeper::begin(const std::string& home) {
  const std::string folder = server_folder(home);
  if (auto made = sandbox::make_directory(folder); !made) {
    return std::unexpected(made.error());
  }
  const std::string path = folder + "/keepers";
  Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) {
    return fail_errno(errno, "cannot open '{}'", path);
  }
  while (true) {
    const std::int64_t id = choose_offset();
    struct flock lock = byte_at(id);
    if (::fcntl(file.get(), F_OFD_SETLK, &lock) == 0) {
      return Keeper(std::move(file), id);
    }
    if (errno != EAGAIN && errno != EACCES && errno != EINTR) {
      return fail_errno(errno, "cannot lock '{}'", path);
    }
  }
}

bool Keeper::lives(std::int64_t id) const {
  if (id == id_) {
    return true;
  }
  if (id <= 0) {
    return false;  // a file that somebody wrote by hand
  }
  struct flock lock = byte_at(id);
  return ::fcntl(file_.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

}  // namespace msb::server
