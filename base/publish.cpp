// SPDX-License-Identifier: Apache-2.0
#include "base/publish.hpp"

#include <algorithm>
#include <optional>

namespace msb {

namespace {

constexpr std::string_view kLoopback = "127.0.0.1";

// Takes ADDRESS and the colon behind it off the front of `rest`, if it is there.
Result<std::optional<std::string_view>> take_address(std::string_view shown,
                                                     std::string_view& rest) {
  if (rest.starts_with('[')) {
    const std::size_t end = rest.find("]:");
    if (end == rest.npos) {
      return fail("{} has a \"[\" without \"]:\" behind the address", shown);
    }
    const std::string_view address = rest.substr(1, end - 1);
    if (address.find(':') == address.npos) {
      return fail("{} has \"{}\" in brackets, which are for IPv6 addresses", shown, address);
    }
    rest.remove_prefix(end + 2);
    return address;
  }
  const auto colons = std::ranges::count(rest, ':');
  if (colons > 2) {
    return fail(
        "{} has too many colons; write an IPv6 address in brackets: "
        "[ADDRESS]:HOSTPORT:GUESTPORT",
        shown);
  }
  if (colons < 2) {
    return std::nullopt;
  }
  const std::string_view address = rest.substr(0, rest.find(':'));
  rest.remove_prefix(address.size() + 1);
  return address;
}

Result<std::uint16_t> take_port(std::string_view shown, std::string_view text, bool may_be_any) {
  const auto port = parse_port(text);
  if (!port || (*port == 0 && !may_be_any)) {
    return fail("{} has \"{}\" where a port from {} to 65535 belongs", shown, text,
                may_be_any ? 0 : 1);
  }
  return *port;
}

}  // namespace

std::string_view transport_word(Transport transport) {
  return transport == Transport::kTcp ? "tcp" : "udp";
}

Result<PublishWords> parse_publish(std::string_view word, std::string_view option) {
  const std::string shown = fmt::format("{} \"{}\"", option, word);
  PublishWords words;
  std::string_view rest = word;
  if (const std::size_t slash = rest.rfind('/'); slash != rest.npos) {
    const std::string_view transport = rest.substr(slash + 1);
    if (transport != "tcp" && transport != "udp") {
      return fail("{} ends in \"{}\", which is neither tcp nor udp", shown, transport);
    }
    words.transport = transport == "udp" ? Transport::kUdp : Transport::kTcp;
    rest = rest.substr(0, slash);
  }
  const auto address = take_address(shown, rest);
  if (!address) {
    return std::unexpected(address.error());
  }
  const std::size_t colon = rest.find(':');
  if (colon == rest.npos && *address) {
    return fail("{} is not [ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp]", shown);
  }
  const auto guest_port =
      take_port(shown, colon == rest.npos ? rest : rest.substr(colon + 1), false);
  if (!guest_port) {
    return std::unexpected(guest_port.error());
  }
  const auto host_port =
      colon == rest.npos ? guest_port : take_port(shown, rest.substr(0, colon), true);
  if (!host_port) {
    return std::unexpected(host_port.error());
  }
  const auto host = parse_address(address->value_or(kLoopback), *host_port);
  if (!host) {
    return fail("{} has \"{}\" where an address of this host belongs", shown,
                address->value_or(kLoopback));
  }
  words.host = *host;
  words.guest_port = *guest_port;
  return words;
}

Result<std::vector<PublishWords>> parse_publish(std::span<const std::string> words) {
  if (words.size() > kMaxPublished) {
    return fail("--publish is given {} times; at most {} ports can be published", words.size(),
                kMaxPublished);
  }
  std::vector<PublishWords> all;
  for (const std::string& word : words) {
    auto parsed = parse_publish(std::string_view(word));
    if (!parsed) {
      return std::unexpected(parsed.error());
    }
    for (const PublishWords& before : all) {
      if (parsed->host.port() != 0 && before.transport == parsed->transport &&
          before.host == parsed->host) {
        return fail("--publish names {} port {} of {} twice", transport_word(parsed->transport),
                    parsed->host.port(), parsed->host.text());
      }
    }
    all.push_back(*parsed);
  }
  return all;
}

}  // namespace msb
