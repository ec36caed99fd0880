// SPDX-License-Identifier: Apache-2.0
#include "base/control.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstring>
#include <memory>

namespace msb {

namespace {

struct Header {
  std::uint32_t kind;
  std::uint32_t value;
};

Result<void> wait_writable(int socket) {
  pollfd entry{socket, POLLOUT, 0};
  while (::poll(&entry, 1, -1) < 0) {
    if (errno != EINTR) {
      return fail_errno(errno, "cannot wait for the control socket");
    }
  }
  return {};
}

}  // namespace

Result<ControlPair> make_control_pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return fail_errno(errno, "cannot create a control socket pair");
  }
  return ControlPair{Fd(ends[0]), Fd(ends[1])};
}

Result<void> send_control(int socket, ControlKind kind, std::uint32_t value, std::string_view text,
                          std::span<const int> descriptors) {
  Header header{static_cast<std::uint32_t>(kind), value};
  if (sizeof header + text.size() > kMaxControlMessage ||
      descriptors.size() > kMaxControlDescriptors) {
    return fail("a control message of {} bytes with {} descriptors is too large", text.size(),
                descriptors.size());
  }
  iovec parts[2] = {{&header, sizeof header}, {const_cast<char*>(text.data()), text.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxControlDescriptors * sizeof(int))>
      control{};
  if (!descriptors.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
  }
  while (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) {
    if (errno == EAGAIN) {
      if (auto ready = wait_writable(socket); !ready) {
        return ready;
      }
    } else if (errno != EINTR) {
      return fail_errno(errno, "cannot send a control message");
    }
  }
  return {};
}

bool control_has_space(int socket) {
  pollfd entry{socket, POLLOUT, 0};
  return ::poll(&entry, 1, 0) != 0;
}

Result<ControlMessage> receive_control(int socket) {
  Header header{};
  const auto text = std::make_unique_for_overwrite<char[]>(kMaxControlMessage - sizeof header);
  iovec parts[2] = {{&header, sizeof header}, {text.get(), kMaxControlMessage - sizeof header}};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxControlDescriptors * sizeof(int))> control;
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t size = 0;
  while ((size = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) < 0) {
    if (errno != EINTR) {
      if (errno == ECONNRESET) {
        return fail("{}", kControlClosed);
      }
      return fail_errno(errno, "cannot receive a control message");
    }
  }
  ControlMessage result;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
      const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof fd);
        result.descriptors.emplace_back(fd);
      }
    }
  }
  if (size == 0) {
    return fail("{}", kControlClosed);
  }
  if (static_cast<std::size_t>(size) < sizeof header || (message.msg_flags & MSG_TRUNC) != 0) {
    return fail("a control message of {} bytes is malformed", size);
  }
  result.kind = static_cast<ControlKind>(header.kind);
  result.value = header.value;
  result.text.assign(text.get(), static_cast<std::size_t>(size) - sizeof header);
  return result;
}

}  // namespace msb
