// SPDX-License-Identifier: Apache-2.0
// The whole input of a machine process: what to build, with descriptors where other programs would
// have paths.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/network_config.hpp"
#include "base/result.hpp"

namespace msb {

// Limits on what a machine may be given; the launcher checks the same ones before it starts
// anything.
inline constexpr std::uint64_t kMinMemoryMib = 32;
inline constexpr std::uint64_t kMaxMemoryMib = 1024 * 1024;
inline constexpr std::uint32_t kMaxVcpus = 64;
inline constexpr std::size_t kMaxDisks = 8;
inline constexpr std::size_t kMaxShares = 64;
inline constexpr std::uint32_t kMaxDiskAlignment = 4096;  // bytes, of direct I/O

// Index into the descriptors that came with the configuration.
using DescriptorIndex = std::uint32_t;
inline constexpr DescriptorIndex kNoDescriptor = ~DescriptorIndex{0};

// One entry of the synthetic root of the virtio-fs device. Exactly one of `descriptor` and `text`
// is used.
struct SharedFile {
  std::string path;                            // relative, components separated by '/'
  DescriptorIndex descriptor = kNoDescriptor;  // a regular file, read-only
  std::string text;                            // contents, when there is no descriptor

  template <class Archive>
  void serialize(Archive& archive);
};

// A directory or file of the host's in that synthetic root.
struct ShareConfig {
  std::string path;                      // relative, components separated by '/'
  DescriptorIndex root = kNoDescriptor;  // O_PATH
  bool read_only = false;
  std::uint32_t cache = 0;  // a ShareCache

  template <class Archive>
  void serialize(Archive& archive);
};

// One virtio-blk device, over a raw file.
struct DiskConfig {
  DescriptorIndex file = kNoDescriptor;
  DescriptorIndex direct = kNoDescriptor;  // the same file, opened with O_DIRECT; none: buffered
  std::uint32_t alignment = 512;           // that `direct` wants, bytes: a power of two
  std::uint64_t size = 0;                  // bytes
  bool read_only = false;

  template <class Archive>
  void serialize(Archive& archive);
};

struct MachineConfig {
  std::uint32_t version = 1;
  std::uint64_t memory_mib = 0;
  std::uint32_t vcpus = 0;
  DescriptorIndex kernel = kNoDescriptor;     // an uncompressed x86-64 ELF vmlinux
  DescriptorIndex initramfs = kNoDescriptor;  // a cpio archive
  DescriptorIndex entropy = kNoDescriptor;    // /dev/urandom, for the guest's entropy device
  DescriptorIndex console = kNoDescriptor;    // where serial output goes; none means no serial port
  std::string command_line;                   // appended to the machine's own kernel command line
  std::string share_tag;                      // virtio-fs tag
  std::vector<SharedFile> shared_files;
  std::vector<ShareConfig> shares;
  std::vector<DiskConfig> disks;
  NetworkConfig network;
  bool balloon = false;  // a memory balloon, with free page reporting
  // When the launcher is gone, the guest gets the time to end in order: it has files to keep.
  bool outlive_launcher = false;
  bool report_times = false;              // send kRunning with the times of the start
  std::vector<std::uint32_t> host_ports;  // vsock ports on the host that the guest may connect to

  template <class Archive>
  void serialize(Archive& archive);

  [[nodiscard]] std::string to_json() const;
  // Fails on anything that is not a configuration of this version, or is outside the limits above.
  static Result<MachineConfig> from_json(std::string_view json);
};

}  // namespace msb
