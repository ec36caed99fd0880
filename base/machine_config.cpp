// SPDX-License-Identifier: Apache-2.0
#include "base/machine_config.hpp"

#include <bit>

#include "base/json.hpp"
#include "base/share_cache.hpp"

namespace msb {

namespace {
constexpr std::uint32_t kMinDiskAlignment = 512;
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
void MachineConfig::serialize(Archive& archive) {
  archive(CEREAL_NVP(version), CEREAL_NVP(memory_mib), CEREAL_NVP(vcpus), CEREAL_NVP(kernel),
          CEREAL_NVP(initramfs), CEREAL_NVP(entropy), CEREAL_NVP(console), CEREAL_NVP(command_line),
          CEREAL_NVP(share_tag), CEREAL_NVP(balloon), CEREAL_NVP(report_times),
          CEREAL_NVP(shared_files), CEREAL_NVP(shares), CEREAL_NVP(disks), CEREAL_NVP(host_ports));
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
  return config;
}

}  // namespace msb
