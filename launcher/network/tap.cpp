// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/tap.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/network_config.hpp"

namespace msb::launcher {

namespace {
constexpr int kHeaderSize = 12;  // struct virtio_net_hdr_v1
}  // namespace

Result<Tap> open_tap(const std::string& name) {
  // Asked for by who may, the kernel would make one that is missing.
  if (name.size() >= IFNAMSIZ || ::if_nametoindex(name.c_str()) == 0) {
    return fail("there is no network interface \"{}\"; make it with `sudo scripts/tap up {}`", name,
                name);
  }
  Tap tap;
  tap.file = Fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!tap.file) {
    return fail_errno(errno, "cannot open /dev/net/tun");
  }
  ifreq request{};
  std::ranges::copy(name, request.ifr_name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tap.file.get(), TUNSETIFF, &request) != 0) {
    switch (errno) {
      case EBUSY:
        return fail("the tap device \"{}\" is in use by another program, and has room for one",
                    name);
      case EPERM:
        return fail(
            "the tap device \"{}\" belongs to another user; make it yours with `sudo "
            "scripts/tap up {}`",
            name, name);
      case EINVAL:
        return fail("the network interface \"{}\" is no tap device, or one of another kind", name);
      default:
        return fail_errno(errno, "cannot open the tap device \"{}\"", name);
    }
  }
  int size = kHeaderSize;
  if (::ioctl(tap.file.get(), TUNSETVNETHDRSZ, &size) != 0) {
    return fail_errno(errno, "cannot have virtio-net headers on the tap device \"{}\"", name);
  }
  const Fd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!any || ::ioctl(any.get(), SIOCGIFMTU, &request) != 0) {
    return fail_errno(errno, "cannot ask for the MTU of \"{}\"", name);
  }
  tap.mtu = static_cast<std::uint32_t>(
      std::clamp(request.ifr_mtu, static_cast<int>(kMinMtu), static_cast<int>(kMaxMtu)));
  return tap;
}

}  // namespace msb::launcher
