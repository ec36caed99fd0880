// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/passt.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <span>
#include <utility>
#include <vector>

#include "base/ip_text.hpp"
#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

constexpr int kSocket = 3;  // where it finds its end

// Nothing is given to the guest but what is said here: no DHCP, no router advertisements. Frames to
// the gateway's own address do not become connections to this host.
std::vector<std::string> arguments_of(const PasstOptions& options) {
  std::vector<std::string> arguments{
      "passt",       "--foreground",    "--quiet",     "--fd",     std::to_string(kSocket),
      "--no-map-gw", "--no-dhcp",       "--no-dhcpv6", "--no-ra",  "--dns",
      "none",        "--search",        "none",        "--mtu",    std::to_string(kMaxMtu),
      "--interface", options.interface, "--mac-addr",  options.mac};
  if (options.ipv4) {
    arguments.insert(arguments.end(), {"--address", address_text(*options.ipv4), "--netmask", "32",
                                       "--gateway", address_text(*options.ipv4_gateway)});
  }
  if (options.ipv6) {
    arguments.insert(arguments.end(), {"--address", address_text(*options.ipv6), "--gateway",
                                       address_text(*options.ipv6_gateway)});
  }
  if (!options.ipv4 || !options.ipv6) {
    arguments.emplace_back(options.ipv4 ? "--ipv4-only" : "--ipv6-only");
  }
  return arguments;
}

}  // namespace

Result<Passt> Passt::start(const PasstOptions& options) {
  std::array<int, 2> sockets{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
    return fail_errno(errno, "cannot create a socket pair for passt");
  }
  Fd ours(sockets[0]);
  const Fd theirs(sockets[1]);
  // What does not fit is lost, so that nobody fills memory by what passt complains of.
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    return fail_errno(errno, "cannot create a pipe for passt's messages");
  }
  Fd words(pipe[0]);
  const Fd standard_error(pipe[1]);
  auto child = ChildProcess::start(
      {.program = "passt",
       .arguments = arguments_of(options),
       .environment = true,
       .descriptors = {{standard_error.get(), STDERR_FILENO}, {theirs.get(), kSocket}}});
  if (!child && child.error().code == ENOENT) {
    return fail(
        "there is no passt, which gives sandboxes their network: install it (the package "
        "\"passt\"), or go without a network by --net none");
  }
  if (!child) {
    return std::unexpected(child.error());
  }
  return Passt(std::move(*child), std::move(ours), std::move(words));
}

std::string Passt::end() {
  std::string how = child_.end();
  std::array<char, 4096> words{};
  const ssize_t size = how.empty() ? 0 : ::read(words_.get(), words.data(), words.size());
  if (size > 0) {
    how += fmt::format(
        ", saying {}",
        protocol::quote(std::as_bytes(std::span(words).first(static_cast<std::size_t>(size)))));
  }
  return how;
}

}  // namespace msb::launcher
