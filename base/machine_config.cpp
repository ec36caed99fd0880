// SPDX-License-Identifier: Apache-2.0
#include "base/machine_config.hpp"

#include <bit>
#include <charconv>

#include "base/json.hpp"
#include "base/share_cache.hpp"

namespace msb {

namespace {
constexpr std::uint32_t kMinDiskAlignment = 512;
constexpr std::size_t kMaxNetworkAddresses = 8;

bool is_prefix(const IpPrefix& prefix) {
  return (prefix.address.family == 4 || prefix.address.family == 6) &&
         prefix.length <= prefix.address.bits();
}

Result<void> check_host_addresses(const std::vector<IpAddress>& addresses) {
  if (addresses.size() > kMaxHostAddresses) {
    return fail("{} addresses of the host are more than {}", addresses.size(), kMaxHostAddresses);
  }
  for (const IpAddress& address : addresses) {
    if (address.family != 4 && address.family != 6) {
      return fail("an address of the host is neither IPv4 nor IPv6");
    }
  }
  return {};
}

Result<void> check_network(const NetworkConfig& network) {
  if (network.backend > static_cast<std::uint32_t>(NetworkBackend::kStream)) {
    return fail("the network's backend is {}, which is none", network.backend);
  }
  if (network.mtu < kMinMtu || network.mtu > kMaxMtu) {
    return fail("an MTU of {} bytes is outside {} to {}", network.mtu, kMinMtu, kMaxMtu);
  }
  if (network.rules.size() > kMaxNetworkRules || network.addresses.size() > kMaxNetworkAddresses) {
    return fail("{} rules and {} addresses are more than the {} and {} that a network can have",
                network.rules.size(), network.addresses.size(), kMaxNetworkRules,
                kMaxNetworkAddresses);
  }
  for (const IpPrefix& address : network.addresses) {
    if (!is_prefix(address)) {
      return fail("an address of the network is neither IPv4 nor IPv6, or its prefix is too long");
    }
  }
  if (auto checked = check_host_addresses(network.host_addresses); !checked) {
    return checked;
  }
  for (const NetworkRule& rule : network.rules) {
    if (!is_prefix(rule.destination) || rule.protocol > NetworkRule::kAnyProtocol ||
        rule.last_port > 65535 || rule.first_port > rule.last_port) {
      return fail("a rule of the network's policy is none");
    }
  }
  return {};
}

}  // namespace

template <class Archive>
void SharedFile::serialize(Archive& archive) {
  archive(CEREAL_NVP(path), CEREAL_NVP(descriptor), CEREAL_NVP(text));
}

template <class Archive>
void ShareConfig::serialize(Archive& archive) {
  archive(CEREAL_NVP(path), CEREAL_NVP(root), CEREAL_NVP(read_only), CEREAL_NVP(cache));
}

template <class Archive>
void DiskConfig::serialize(Archive& archive) {
  archive(CEREAL_NVP(file), CEREAL_NVP(direct), CEREAL_NVP(alignment), CEREAL_NVP(size),
          CEREAL_NVP(read_only));
}

template <class Archive>
std::string IpAddress::save_minimal(const Archive& /*archive*/) const {
  std::string text = fmt::format("{}", family);
  for (std::size_t i = 0; i < bits() / 8; ++i) {
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

template <class Archive>
void IpAddress::load_minimal(const Archive& /*archive*/, const std::string& text) {
  *this = {.family = text.starts_with('4') ? 4U : 6U, .bytes = {}};
  const std::size_t size = bits() / 8;
  const bool right = text.size() == 1 + 2 * size && (text[0] == '4' || text[0] == '6');
  for (std::size_t i = 0; right && i < size; ++i) {
    const char* const digits = text.data() + 1 + 2 * i;
    if (std::from_chars(digits, digits + 2, bytes[i], 16).ptr != digits + 2) {
      family = 0;
    }
  }
  family = right ? family : 0;
}

template <class Archive>
void IpPrefix::serialize(Archive& archive) {
  archive(CEREAL_NVP(address), CEREAL_NVP(length));
}

template <class Archive>
void NetworkRule::serialize(Archive& archive) {
  archive(CEREAL_NVP(allow), CEREAL_NVP(host), CEREAL_NVP(destination), CEREAL_NVP(protocol),
          CEREAL_NVP(first_port), CEREAL_NVP(last_port));
}

template <class Archive>
void NetworkConfig::serialize(Archive& archive) {
  archive(CEREAL_NVP(backend), CEREAL_NVP(descriptor), CEREAL_NVP(mac), CEREAL_NVP(mtu),
          CEREAL_NVP(addresses), CEREAL_NVP(rules), CEREAL_NVP(host_addresses),
          CEREAL_NVP(receive_rate), CEREAL_NVP(send_rate));
}

template <class Archive>
void MachineConfig::serialize(Archive& archive) {
  archive(CEREAL_NVP(version), CEREAL_NVP(memory_mib), CEREAL_NVP(vcpus), CEREAL_NVP(kernel),
          CEREAL_NVP(initramfs), CEREAL_NVP(entropy), CEREAL_NVP(console), CEREAL_NVP(command_line),
          CEREAL_NVP(share_tag), CEREAL_NVP(balloon), CEREAL_NVP(outlive_launcher),
          CEREAL_NVP(report_times), CEREAL_NVP(shared_files), CEREAL_NVP(shares), CEREAL_NVP(disks),
          CEREAL_NVP(network), CEREAL_NVP(host_ports));
}

std::string host_addresses_text(const std::vector<IpAddress>& addresses) {
  return write_json("addresses", addresses);
}

Result<std::vector<IpAddress>> host_addresses_from(std::string_view text) {
  auto addresses = read_json<std::vector<IpAddress>>("addresses", text);
  if (!addresses) {
    return fail("the host's addresses are not valid JSON: {}", addresses.error().message);
  }
  if (auto checked = check_host_addresses(*addresses); !checked) {
    return std::unexpected(checked.error());
  }
  return addresses;
}

std::string MachineConfig::to_json() const {
  return write_json("machine", *this);
}

Result<MachineConfig> MachineConfig::from_json(std::string_view json) {
  auto read = read_json<MachineConfig>("machine", json);
  if (!read) {
    return fail("the machine configuration is not valid JSON of version 1: {}",
                read.error().message);
  }
  MachineConfig& config = *read;
  if (config.version != 1) {
    return fail("the machine configuration has version {}, this program reads version 1",
                config.version);
  }
  if (config.memory_mib < kMinMemoryMib || config.memory_mib > kMaxMemoryMib) {
    return fail("memory of {} MiB is outside {} to {} MiB", config.memory_mib, kMinMemoryMib,
                kMaxMemoryMib);
  }
  if (config.vcpus < 1 || config.vcpus > kMaxVcpus) {
    return fail("{} virtual CPUs are outside 1 to {}", config.vcpus, kMaxVcpus);
  }
  if (config.disks.size() > kMaxDisks) {
    return fail("{} disks are more than the {} that a machine can have", config.disks.size(),
                kMaxDisks);
  }
  if (config.shares.size() > kMaxShares) {
    return fail("{} shares are more than the {} that a machine can have", config.shares.size(),
                kMaxShares);
  }
  for (const ShareConfig& share : config.shares) {
    if (share.cache > static_cast<std::uint32_t>(ShareCache::kAlways)) {
      return fail("a share's cache mode is {}, which is none", share.cache);
    }
  }
  for (const DiskConfig& disk : config.disks) {
    if (!std::has_single_bit(disk.alignment) || disk.alignment < kMinDiskAlignment ||
        disk.alignment > kMaxDiskAlignment) {
      return fail("a disk's alignment of {} bytes is not a power of two from {} to {}",
                  disk.alignment, kMinDiskAlignment, kMaxDiskAlignment);
    }
  }
  if (auto checked = check_network(config.network); !checked) {
    return std::unexpected(checked.error());
  }
  return config;
}

}  // namespace msb
