// SPDX-License-Identifier: Apache-2.0
#include "launcher/configuration.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/control.hpp"
#include "base/share_words.hpp"
#include "launcher/image.hpp"
#include "launcher/paths.hpp"
#include "launcher/share.hpp"
#include "launcher/words.hpp"
#include "protocol/msb_boot.h"
#include "protocol/msb_exec.h"

namespace msb::launcher {

namespace {

Result<Fd> open_part(std::string_view what, const std::string& named,
                     Result<std::string> (*standard)()) {
  Result<std::string> path = named.empty() ? standard() : Result<std::string>(named);
  if (!path) {
    return std::unexpected(path.error());
  }
  Fd file(::open(path->c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    return fail_errno(errno, "cannot open the {} \"{}\"", what, *path);
  }
  return file;
}

Result<void> add_shares(const RunOptions& options, Configuration& result, std::string& boot) {
  const auto shares = parse_shares(options.shares);
  if (!shares) {
    return std::unexpected(shares.error());
  }
  for (const ShareWords& share : *shares) {
    auto root = open_share(share.host);
    if (!root) {
      return std::unexpected(root.error());
    }
    const std::string path = fmt::format("shares/{}", result.shares.size());
    result.shares.push_back({share, path});
    result.shares.back().words.host = shown_path(share.host);
    boot += fmt::format("share {} {} {}\n", share.read_only ? "ro" : "rw", path, share.guest);
    result.config.shares.push_back({path, result.add(std::move(*root)), share.read_only,
                                    static_cast<std::uint32_t>(share.cache)});
  }
  return {};
}

// Everything that is the same in each sandbox of this kind, before what it is made of.
std::string first_boot_lines(const RunOptions& options) {
  std::string boot = fmt::format("{}\nhostname {}\n", MSB_BOOT_MAGIC, options.hostname);
  if (options.processes != 0) {
    boot += fmt::format("processes {}\n", options.processes);
  }
  if (!options.upper.empty()) {
    boot += fmt::format("upper vd{}\n", static_cast<char>('a' + options.disks.size()));
  }
  return boot;
}

DiskConfig add_disk(OpenDisk disk, bool read_only, Configuration& result) {
  DiskConfig wanted;
  wanted.file = result.add(std::move(disk.file));
  if (disk.direct) {
    wanted.direct = result.add(std::move(disk.direct));
  }
  wanted.alignment = disk.alignment;
  wanted.size = disk.size;
  wanted.read_only = read_only;
  return wanted;
}

Result<void> add_disks(const RunOptions& options, Configuration& result) {
  for (const std::string& word : options.disks) {
    const auto words = parse_disk(word);
    auto disk = words ? open_disk(*words) : Result<OpenDisk>(std::unexpected(words.error()));
    if (!disk) {
      return std::unexpected(disk.error());
    }
    if (!options.control.empty()) {
      Fd file(::fcntl(disk->file.get(), F_DUPFD_CLOEXEC, 0));
      if (!file) {
        return fail_errno(errno, "cannot keep the disk \"{}\" open", words->path);
      }
      result.disks.push_back({std::move(file), disk->size, words->read_only});
    }
    result.config.disks.push_back(add_disk(std::move(*disk), words->read_only, result));
  }
  return {};
}

// Behind the others, so that these have the names that their order says. The control socket does
// not count it: it is the sandbox's own.
Result<void> add_upper(const RunOptions& options, Configuration& result) {
  if (options.upper.empty()) {
    return {};
  }
  auto disk = open_disk(
      {.path = options.upper, .read_only = false, .direct = false, .writable_layer = true});
  if (!disk) {
    return std::unexpected(disk.error());
  }
  // One without a name goes with the sandbox, and nobody waits until it is written.
  struct stat status{};
  result.lasting = ::fstat(disk->file.get(), &status) == 0 && status.st_nlink > 0;
  result.config.outlive_launcher = result.lasting;
  result.config.disks.push_back(add_disk(std::move(*disk), false, result));
  return {};
}

}  // namespace

Result<Configuration> configure(const RunOptions& options, const oci::ImageConfig& image,
                                std::vector<Fd> layers, SandboxNetwork& network,
                                GuestForwards& forwards) {
  auto kernel = open_part("kernel", options.kernel, default_kernel);
  if (!kernel) {
    return std::unexpected(kernel.error());
  }
  auto initramfs = open_part("initramfs", options.initramfs, default_initramfs);
  if (!initramfs) {
    return std::unexpected(initramfs.error());
  }
  Configuration result;
  MachineConfig& config = result.config;
  config.memory_mib = options.memory_mib;
  config.vcpus = static_cast<std::uint32_t>(options.cpus);
  config.kernel = result.add(std::move(*kernel));
  config.initramfs = result.add(std::move(*initramfs));
  Fd entropy(::open("/dev/urandom", O_RDONLY | O_CLOEXEC));
  if (!entropy) {
    return fail_errno(errno, "cannot open /dev/urandom for the guest's entropy");
  }
  config.entropy = result.add(std::move(entropy));
  config.command_line = options.command_line;
  config.balloon = options.balloon;
  config.report_times = options.timing;
  config.share_tag = MSB_BOOT_TAG;
  config.host_ports = {MSB_PORT_CONTROL};
  std::string boot = first_boot_lines(options);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::string path = fmt::format("layers/{}.erofs", i);
    boot += fmt::format("layer {}\n", path);
    config.shared_files.push_back({path, result.add(std::move(layers[i])), ""});
  }
  if (!options.rootfs.empty()) {
    auto root = open_share(options.rootfs);
    if (!root) {
      return std::unexpected(root.error());
    }
    boot += "root root\n";
    config.shares.push_back({"root", result.add(std::move(*root)), true,
                             static_cast<std::uint32_t>(ShareCache::kAlways)});
  }
  if (auto added = add_shares(options, result, boot); !added) {
    return std::unexpected(added.error());
  }
  const auto volumes = volume_lines(image);
  if (!volumes) {
    return std::unexpected(volumes.error());
  }
  boot += *volumes;
  boot += network.boot_lines();
  boot += forwards.boot_lines();
  std::ranges::copy(forwards.host_ports(), std::back_inserter(config.host_ports));
  config.network = network.config();
  if (network.exists()) {
    config.network.descriptor = result.add(network.take_backend());
  }
  if (boot.size() > MSB_BOOT_MAX) {
    return fail("the layers, volumes, shares and names do not fit into the boot file of {} bytes",
                MSB_BOOT_MAX);
  }
  config.shared_files.push_back({MSB_BOOT_FILE, kNoDescriptor, std::move(boot)});
  auto opened = add_disks(options, result);
  opened = opened ? add_upper(options, result) : opened;
  if (!opened) {
    return std::unexpected(opened.error());
  }
  if (options.console) {
    Fd console(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
    if (!console) {
      return fail_errno(errno, "cannot use standard error as the console");
    }
    config.console = result.add(std::move(console));
  }
  return result;
}

Result<void> send_configuration(const MachineProcess& machine, const Configuration& configuration) {
  std::vector<int> descriptors;
  descriptors.reserve(configuration.descriptors.size());
  for (const Fd& descriptor : configuration.descriptors) {
    descriptors.push_back(descriptor.get());
  }
  std::span<const int> rest(descriptors);
  for (; rest.size() > kMaxControlDescriptors; rest = rest.subspan(kMaxControlDescriptors)) {
    if (auto sent = send_control(machine.control(), ControlKind::kDescriptors, 0, {},
                                 rest.first(kMaxControlDescriptors));
        !sent) {
      return sent;
    }
  }
  return send_control(machine.control(), ControlKind::kConfigure, 0, configuration.config.to_json(),
                      rest);
}

Result<void> check_size(const RunOptions& options) {
  if (options.memory_mib < kMinMemoryMib || options.memory_mib > kMaxMemoryMib) {
    return fail("--memory {} is outside {} to {} MiB", options.memory_mib, kMinMemoryMib,
                kMaxMemoryMib);
  }
  const auto host_mib = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                        static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / (1024 * 1024);
  if (options.memory_mib > host_mib) {
    return fail("--memory {} is more than the {} MiB that this host has", options.memory_mib,
                host_mib);
  }
  if (options.cpus < 1 || options.cpus > kMaxVcpus) {
    return fail("--cpus {} is outside 1 to {}", options.cpus, kMaxVcpus);
  }
  if (options.shares.size() >= kMaxShares) {
    return fail("{} shares are more than the {} that a sandbox can have", options.shares.size(),
                kMaxShares - 1);
  }
  if (options.image.empty() == options.rootfs.empty()) {
    return fail("what is to run is named either by --image or by --rootfs");
  }
  const std::size_t disks = options.disks.size() + (options.upper.empty() ? 0 : 1);
  if (disks > kMaxDisks) {
    return fail("{} disks are more than the {} that a sandbox can have", disks, kMaxDisks);
  }
  if (options.processes != 0 &&
      (options.processes < MSB_BOOT_PROCESSES_MIN || options.processes > MSB_BOOT_PROCESSES_MAX)) {
    return fail("--processes {} is outside {} to {}", options.processes, MSB_BOOT_PROCESSES_MIN,
                MSB_BOOT_PROCESSES_MAX);
  }
  return check_hostname(options.hostname);
}

}  // namespace msb::launcher
