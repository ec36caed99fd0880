// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/sandbox_network.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "base/ip_text.hpp"
#include "launcher/network/host_addresses.hpp"
#include "launcher/network/tap.hpp"
#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

// The guest's addresses behind passt, which nobody else sees: those that QEMU's users know, and a
// unique local one (RFC 4193) with "msb" in it.
constexpr IpAddress kGuestIpv4{4, {10, 0, 2, 15}};
constexpr IpAddress kGatewayIpv4{4, {10, 0, 2, 2}};
constexpr IpAddress kGuestIpv6{6, {0xfd, 0x6d, 0x73, 0x62, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x15}};
constexpr IpAddress kGatewayIpv6{6, {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};
constexpr std::string_view kGatewayMac = "02:6d:73:62:00:02";

// passt that ends sooner than this was no use; after so many in a row no other one is started.
constexpr std::chrono::seconds kShortLife{2};
constexpr int kMaxShortLives = 3;
constexpr std::uint64_t kShortPause = 100'000'000;   // nanoseconds, doubled with each
constexpr std::uint64_t kTellAgain = 1'000'000'000;  // nanoseconds

Result<std::uint64_t> parse_rate(std::string_view option, const std::string& word) {
  if (word.empty()) {
    return 0;
  }
  std::uint64_t rate = 0;
  const char* const end = word.data() + word.size();
  const auto read = std::from_chars(word.data(), end, rate);
  std::uint64_t unit = 1;
  if (read.ptr != end && read.ptr + 1 == end) {
    unit = *read.ptr == 'K'   ? 1'000
           : *read.ptr == 'M' ? 1'000'000
           : *read.ptr == 'G' ? 1'000'000'000
                              : 0;
  }
  const bool whole = read.ec == std::errc() && (read.ptr == end || read.ptr + 1 == end);
  constexpr std::uint64_t kMost = 1'000'000'000'000;
  if (!whole || rate == 0 || unit == 0 || rate > kMost / unit) {
    return fail("{} \"{}\" is no rate: bytes a second like 500K, 10M or 1G", option, word);
  }
  return rate * unit;
}

// A locally administered one (IEEE 802), that nobody else on the link has.
std::array<std::uint8_t, 6> random_mac() {
  std::array<std::uint8_t, 6> mac{};
  [[maybe_unused]] const ssize_t got = ::getrandom(mac.data(), mac.size(), 0);
  mac[0] = 0x02;
  return mac;
}

// Whether all bits behind the prefix are `bit`: IPv4's names of the network, and of all in it.
bool host_part_is(const IpPrefix& prefix, const IpAddress& address, unsigned bit) {
  for (std::uint32_t i = prefix.length; i < address.bits(); ++i) {
    if (((address.bytes[i / 8] >> (7 - i % 8)) & 1U) != bit) {
      return false;
    }
  }
  return true;
}

// Another address in the prefix, the next one if it can be.
IpAddress neighbor_of(const IpPrefix& own) {
  const std::uint32_t last = own.address.bits() / 8 - 1;
  IpAddress neighbor = own.address;
  for (const int step : {1, -1}) {
    neighbor.bytes[last] = static_cast<std::uint8_t>(own.address.bytes[last] + step);
    const bool reserved = own.address.family == 4 && own.length < 31 &&
                          (host_part_is(own, neighbor, 0) || host_part_is(own, neighbor, 1));
    if (own.contains(neighbor) && !reserved) {
      break;
    }
  }
  return neighbor;
}

std::string_view protocol_name(std::uint32_t protocol) {
  switch (protocol) {
    case IPPROTO_TCP:
      return "tcp";
    case IPPROTO_UDP:
      return "udp";
    case IPPROTO_ICMP:
      return "icmp";
    case IPPROTO_ICMPV6:
      return "icmpv6";
    default:
      return "";
  }
}

}  // namespace

SandboxNetwork::SandboxNetwork(AsyncIo& io, NetworkPolicy policy,
                               std::vector<InterfaceAddress> host)
    : io_(io),
      policy_(std::move(policy)),
      host_(std::move(host)),
      passt_ended_([this](std::int32_t result) {
        if (result >= 0) {
          on_passt_ended();
        }
      }),
      start_again_([this](std::int32_t result) {
        if (result == -ETIME) {
          start_again(ended_how_);
        }
      }),
      tell_again_([this](std::int32_t result) {
        if (result == -ETIME) {
          tell_addresses();
        }
      }),
      addresses_(io) {}

Result<std::unique_ptr<SandboxNetwork>> SandboxNetwork::create(AsyncIo& io,
                                                               const NetworkWords& words) {
  auto policy = read_policy(words.policy, words.rules);
  if (!policy) {
    return std::unexpected(policy.error());
  }
  auto host = interface_addresses();
  if (!host) {
    return std::unexpected(host.error());
  }
  std::unique_ptr<SandboxNetwork> network(
      new SandboxNetwork(io, std::move(*policy), std::move(*host)));
  const auto receive = parse_rate("--receive-rate", words.receive_rate);
  const auto send = parse_rate("--send-rate", words.send_rate);
  if (!receive || !send) {
    return std::unexpected(!receive ? receive.error() : send.error());
  }
  constexpr std::string_view kTapPrefix = "tap=";
  const bool tap = words.net.starts_with(kTapPrefix);
  if (!tap && (!words.addresses.empty() || !words.gateways.empty())) {
    return fail("--address and --gateway are for --net tap=NAME; other networks have their own");
  }
  Result<void> used;
  if (tap) {
    used = network->use_tap(words.net.substr(kTapPrefix.size()), words);
  } else if (words.net == "user") {
    used = network->use_passt();
  } else if (words.net != "none") {
    used = fail("--net \"{}\" is neither none, user nor tap=NAME", words.net);
  }
  if (!used) {
    return std::unexpected(used.error());
  }
  network->config_.mac = random_mac();
  network->config_.rules = network->policy_.rules;
  network->config_.host_addresses = own_addresses(network->host_);
  network->config_.receive_rate = *receive;
  network->config_.send_rate = *send;
  return network;
}

// IPv6 where this host has it beyond its own link; IPv4 always, but where it has IPv6 alone: a
// network that comes later is used then.
Result<void> SandboxNetwork::use_passt() {
  const auto global = [&](std::uint32_t family) {
    return std::ranges::find_if(host_, [&](const InterfaceAddress& each) {
      return each.address.address.family == family && !each.loopback() && !each.link_local() &&
             (family == 4 || std::ranges::any_of(host_, [&](const InterfaceAddress& other) {
                return other.interface == each.interface && other.link_local() &&
                       other.address.address.family == 6;
              }));
    });
  };
  const bool six = global(6) != host_.end();
  const bool four = !six || global(4) != host_.end();
  passt_options_.interface = six ? global(6)->interface : "lo";
  passt_options_.mac = kGatewayMac;
  if (four) {
    passt_options_.ipv4 = kGuestIpv4;
    passt_options_.ipv4_gateway = kGatewayIpv4;
    config_.addresses.push_back({kGuestIpv4, 32});
    gateways_.push_back(kGatewayIpv4);
  }
  if (six) {
    passt_options_.ipv6 = kGuestIpv6;
    passt_options_.ipv6_gateway = kGatewayIpv6;
    config_.addresses.push_back({kGuestIpv6, 128});
    gateways_.push_back(kGatewayIpv6);
  }
  auto passt = Passt::start(passt_options_);
  if (!passt) {
    return std::unexpected(passt.error());
  }
  started_ = std::chrono::steady_clock::now();
  backend_ = passt->take_socket();
  passt_.emplace(std::move(*passt));
  gateway_mac_ = kGatewayMac;
  mode_ = "user";
  config_.backend = static_cast<std::uint32_t>(NetworkBackend::kStream);
  config_.mtu = kMaxMtu;
  return {};
}

// Unless it is said otherwise the guest is the neighbour of the tap device's own addresses, which
// are its gateways.
Result<void> SandboxNetwork::use_tap(const std::string& name, const NetworkWords& words) {
  auto tap = open_tap(name);
  if (!tap) {
    return std::unexpected(tap.error());
  }
  for (const std::string& word : words.addresses) {
    const auto address = parse_ip_prefix(word);
    if (!address || has(address->address.family)) {
      return fail(
          "--address \"{}\" is not an address with its prefix like 192.0.2.2/24, or a second one "
          "of IPv4 or IPv6",
          word);
    }
    config_.addresses.push_back(*address);
  }
  for (const std::string& word : words.gateways) {
    const auto gateway = parse_ip_address(word);
    if (!gateway) {
      return fail("--gateway \"{}\" is no IP address", word);
    }
    gateways_.push_back(*gateway);
  }
  for (const InterfaceAddress& each : host_) {
    const IpAddress& address = each.address.address;
    if (each.interface == name && !each.link_local() && !has(address.family) &&
        each.address.length < address.bits()) {
      config_.addresses.push_back({neighbor_of(each.address), each.address.length});
      if (words.gateways.empty()) {
        gateways_.push_back(address);
      }
    }
  }
  if (config_.addresses.empty()) {
    return fail(
        "the tap device \"{}\" has no address of which the guest could be a neighbour; give the "
        "guest one by --address",
        name);
  }
  backend_ = std::move(tap->file);
  mode_ = "tap";
  config_.backend = static_cast<std::uint32_t>(NetworkBackend::kTap);
  config_.mtu = tap->mtu;
  return {};
}

bool SandboxNetwork::has(std::uint32_t family) const {
  return std::ranges::any_of(
      config_.addresses, [&](const IpPrefix& address) { return address.address.family == family; });
}

std::string SandboxNetwork::boot_lines() const {
  if (!exists()) {
    return "";
  }
  std::string lines = "interface ";
  for (std::size_t i = 0; i < config_.mac.size(); ++i) {
    lines += fmt::format("{}{:02x}", i == 0 ? "" : ":", config_.mac[i]);
  }
  lines += fmt::format(" {}\n", config_.mtu);
  for (const IpPrefix& address : config_.addresses) {
    lines += fmt::format("address {}\n", prefix_text(address));
  }
  for (const IpAddress& gateway : gateways_) {
    lines += fmt::format("gateway {}{}{}\n", address_text(gateway), gateway_mac_.empty() ? "" : " ",
                         gateway_mac_);
  }
  return lines;
}

// --- while it runs ---

void SandboxNetwork::watch(Events events) {
  events_ = std::move(events);
  if (passt_) {
    io_.poll(passt_->process(), POLLIN, passt_ended_);
  }
  if (exists()) {
    // A kernel that cannot tell leaves the machine with what it was told at the start.
    [[maybe_unused]] const auto watching =
        addresses_.start([this](const std::vector<IpAddress>& own) {
          if (own != config_.host_addresses) {
            config_.host_addresses = own;
            tell_addresses();
          }
        });
  }
}

// Until the machine knows them: what it does not know of is in reach.
void SandboxNetwork::tell_addresses() {
  events_.host_changed(config_.host_addresses, [this](bool told) {
    if (!told && !closed_ && !tell_again_.pending()) {
      io_.timeout(kTellAgain, tell_again_);
    }
  });
}

// It broke the protocol, or is about to be gone: on_passt_ended() follows. What is said before the
// machine has another backend is of the one before.
void SandboxNetwork::on_backend_lost() {
  if (mode_ == "tap") {
    lose("its tap device was removed");
  } else if (passt_ && passt_ended_.pending() && !replacing_) {
    passt_->kill();
  }
}

void SandboxNetwork::on_passt_ended() {
  if (closed_) {
    return;
  }
  ended_how_ = passt_->end();
  const auto now = std::chrono::steady_clock::now();
  short_lives_ = now - started_ < kShortLife ? short_lives_ + 1 : 0;
  if (short_lives_ == 0) {
    start_again(ended_how_);
  } else if (short_lives_ < kMaxShortLives) {
    io_.timeout(kShortPause << short_lives_, start_again_);
  } else {
    lose(fmt::format("passt ended with {}", ended_how_));
  }
}

void SandboxNetwork::start_again(const std::string& how) {
  if (closed_) {
    return;
  }
  started_ = std::chrono::steady_clock::now();
  auto passt = Passt::start(passt_options_);
  if (!passt) {
    lose(passt.error().message);
    return;
  }
  replacing_ = true;
  Fd socket = passt->take_socket();
  *passt_ = std::move(*passt);
  io_.poll(passt_->process(), POLLIN, passt_ended_);
  events_.replace(std::move(socket), [this, how](bool has) {
    replacing_ = false;
    if (has) {  // one that serves nobody ends by itself
      events_.restarted(fmt::format("passt ended with {}", how));
    }
  });
}

void SandboxNetwork::lose(const std::string& how) {
  if (!std::exchange(lost_, true)) {
    events_.lost(how);
  }
}

void SandboxNetwork::close() {
  closed_ = true;
  addresses_.close();
  io_.cancel(start_again_);
  io_.cancel(tell_again_);
  io_.cancel(passt_ended_);
  if (passt_) {
    passt_->end();
  }
}

Json SandboxNetwork::status() const {
  Json addresses = Json::array();
  for (const IpPrefix& address : config_.addresses) {
    addresses.push_back(address_text(address.address));
  }
  return {{"mode", mode_}, {"addresses", std::move(addresses)}};
}

Json SandboxNetwork::describe(const NetworkDenial& denial,
                              const std::optional<protocol::SocketOwner>& program) const {
  std::string rule = "no rule allows it";
  switch (denial.reason) {
    case NetworkDenial::Reason::kRule:
      if (denial.rule && *denial.rule < policy_.texts.size()) {
        rule = policy_.texts[*denial.rule];
      }
      break;
    case NetworkDenial::Reason::kNowhere:
      rule = "no network has this address";
      break;
    case NetworkDenial::Reason::kSource:
      rule = "its source is not the sandbox's own address";
      break;
    case NetworkDenial::Reason::kFragment:
      rule = "it is a fragment of nothing that was allowed, or overlaps headers";
      break;
    case NetworkDenial::Reason::kUnclear:
      rule = "it is a fragment, or has options or a protocol, that passt does not know";
      break;
  }
  Json details{{"destination", address_text(denial.destination)}, {"rule", rule}};
  const std::string_view protocol = protocol_name(denial.protocol);
  details["protocol"] = protocol.empty() ? Json(denial.protocol) : Json(protocol);
  const bool has_ports = denial.protocol == IPPROTO_TCP || denial.protocol == IPPROTO_UDP;
  if (has_ports && (denial.source_port != 0 || denial.destination_port != 0)) {
    details["port"] = denial.destination_port;
  }
  if (program) {
    details["process"] = {
        {"pid", program->pid}, {"user", program->user}, {"name", protocol::quote(program->name)}};
  }
  return details;
}

}  // namespace msb::launcher
