// SPDX-License-Identifier: Apache-2.0
#include "initramfs/fuzz_support.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

extern "C" {
ssize_t __real_recv(int socket, void* bytes, size_t length, int flags);
ssize_t __wrap_recv(int socket, void* bytes, size_t length, int flags);
}

namespace msb::fuzz {

namespace {
std::size_t most_at_once = SIZE_MAX;
}

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

void make_pair(Fd& one, int& other) {
  int both[2];
  require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, both) == 0);
  one = Fd(both[0]);
  other = both[1];
}

// Takes what is there. False at the end of the stream.
bool take(const Fd& from, std::vector<std::byte>& bytes) {
  static std::byte piece[kMostInput];
  ssize_t n = 0;
  while ((n = __real_recv(from.get(), piece, sizeof piece, MSG_DONTWAIT)) > 0) {
    bytes.insert(bytes.end(), piece, piece + n);
  }
  return n < 0 && errno == EAGAIN;
}

Bytes choose_pieces(Bytes input) {
  const auto first = std::to_integer<std::uint8_t>(input.front());
  most_at_once = first == UINT8_MAX ? SIZE_MAX : std::size_t{1} + first;
  return input.subspan(1);
}

}  // namespace msb::fuzz

ssize_t __wrap_recv(int socket, void* bytes, size_t length, int flags) {
  return __real_recv(socket, bytes, std::min(length, msb::fuzz::most_at_once), flags);
}
