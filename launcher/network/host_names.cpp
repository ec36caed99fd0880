// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/host_names.hpp"

#include <sys/un.h>

#include <algorithm>
#include <string_view>

#include "base/socket_address.hpp"

namespace msb::launcher {

namespace {

constexpr std::size_t kMaxName = 253;  // RFC 1035, 2.3.4, as text
constexpr std::size_t kMaxLabel = 63;

bool is_digit(char byte) {
  return byte >= '0' && byte <= '9';
}

char to_lower(char byte) {
  return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : byte;
}

bool is_label(std::string_view label) {
  const auto is_letter_or_digit = [](char byte) {
    return is_digit(byte) || (to_lower(byte) >= 'a' && to_lower(byte) <= 'z');
  };
  return !label.empty() && label.size() <= kMaxLabel && is_letter_or_digit(label.front()) &&
         is_letter_or_digit(label.back()) && std::ranges::all_of(label, [&](char byte) {
           return is_letter_or_digit(byte) || byte == '-';
         });
}

// RFC 1123, 2.1: a last label of digits alone would make it an address.
bool is_host_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxName ||
      std::ranges::all_of(name.substr(name.rfind('.') + 1), is_digit)) {
    return false;
  }
  while (true) {
    const std::string_view label = name.substr(0, name.find('.'));
    if (!is_label(label)) {
      return false;
    }
    if (label.size() == name.size()) {
      return true;
    }
    name.remove_prefix(label.size() + 1);
  }
}

struct Words {
  std::string name;  // in lower case: names are the same in either
  std::string socket;
  std::uint16_t port = 0;
};

Result<Words> parse(std::string_view word) {
  // A path may have both signs in it; a name has no "=", and a port no ":".
  const std::size_t equals = word.find('=');
  const std::size_t colon = word.rfind(':');
  if (equals == word.npos || colon == word.npos || colon < equals) {
    return fail("--host \"{}\" is not NAME=SOCKET:PORT", word);
  }
  Words words;
  std::ranges::transform(word.substr(0, equals), std::back_inserter(words.name), to_lower);
  words.socket = word.substr(equals + 1, colon - equals - 1);
  const auto port = parse_port(word.substr(colon + 1));
  if (!is_host_name(words.name)) {
    return fail("--host \"{}\" has \"{}\" where a host's name belongs", word,
                word.substr(0, equals));
  }
  if (words.name == "localhost") {
    return fail("--host \"{}\" would take localhost's name away; choose another one", word);
  }
  if (words.socket.empty() || words.socket.size() >= sizeof sockaddr_un::sun_path ||
      words.socket.find('\0') != std::string::npos) {
    return fail("--host \"{}\" has a path to a socket that is empty or too long", word);
  }
  if (!port || *port == 0) {
    return fail("--host \"{}\" has \"{}\" where a port from 1 to 65535 belongs", word,
                word.substr(colon + 1));
  }
  words.port = *port;
  return words;
}

}  // namespace

Result<HostNames> parse_host_names(std::span<const std::string> words) {
  if (words.size() > kMaxHostPorts) {
    return fail("--host is given {} times; at most {} ports can have a name", words.size(),
                kMaxHostPorts);
  }
  HostNames hosts;
  for (const std::string& word : words) {
    auto parsed = parse(word);
    if (!parsed) {
      return std::unexpected(parsed.error());
    }
    auto host = std::ranges::find(hosts.names, parsed->name, &HostName::name);
    if (host == hosts.names.end()) {
      hosts.names.push_back({parsed->name, fmt::format("127.77.1.{}", hosts.names.size() + 1)});
      host = std::prev(hosts.names.end());
    }
    for (const HostPort& before : hosts.ports) {
      if (before.address == host->address && before.port == parsed->port) {
        return fail("--host names port {} of {} twice", parsed->port, parsed->name);
      }
    }
    hosts.ports.push_back({host->address, parsed->port, std::move(parsed->socket)});
  }
  return hosts;
}

}  // namespace msb::launcher
