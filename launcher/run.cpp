// SPDX-License-Identifier: Apache-2.0
#include "launcher/run.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/machine_config.hpp"
#include "launcher/connect_server.hpp"
#include "launcher/control_server.hpp"
#include "launcher/disk.hpp"
#include "launcher/environment.hpp"
#include "launcher/image.hpp"
#include "launcher/machine_process.hpp"
#include "launcher/machine_requests.hpp"
#include "launcher/network/guest_forwards.hpp"
#include "launcher/network/published_ports.hpp"
#include "launcher/network/sandbox_network.hpp"
#include "launcher/open_image.hpp"
#include "launcher/paths.hpp"
#include "launcher/session.hpp"
#include "launcher/share.hpp"
#include "launcher/signals.hpp"
#include "launcher/terminal.hpp"
#include "launcher/words.hpp"
#include "protocol/msb_boot.h"
#include "protocol/msb_exec.h"

namespace msb::launcher {

namespace {

Outcome failed(const Error& error) {
  return {kExitLauncher, error.message};
}

// Each connection from or to the guest takes some, and there may be more than the usual limit.
void allow_many_files() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

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

// A configuration, the descriptors that it names, and what the control socket needs of disks and
// shares.
struct Configuration {
  MachineConfig config;
  std::vector<Fd> descriptors;
  std::vector<RunningDisk> disks;
  std::list<RunningShare> shares;

  DescriptorIndex add(Fd descriptor) {
    descriptors.push_back(std::move(descriptor));
    return static_cast<DescriptorIndex>(descriptors.size() - 1);
  }
};

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
    boot += fmt::format("share {} {} {}\n", share.read_only ? "ro" : "rw", path, share.guest);
    result.config.shares.push_back({path, result.add(std::move(*root)), share.read_only,
                                    static_cast<std::uint32_t>(share.cache)});
  }
  return {};
}

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
  std::string boot = fmt::format("{}\nhostname sandbox\n", MSB_BOOT_MAGIC);
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
    DiskConfig wanted;
    wanted.file = result.add(std::move(disk->file));
    if (disk->direct) {
      wanted.direct = result.add(std::move(disk->direct));
    }
    wanted.alignment = disk->alignment;
    wanted.size = disk->size;
    wanted.read_only = words->read_only;
    config.disks.push_back(wanted);
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

// Fails unless the machine is one that could run here.
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
  if (options.disks.size() > kMaxDisks) {
    return fail("{} disks are more than the {} that a sandbox can have", options.disks.size(),
                kMaxDisks);
  }
  return {};
}

Result<std::unique_ptr<ConnectServer>> serve(Loop& loop, MachineProcess& machine,
                                             const std::string& path) {
  return ConnectServer::create(loop, path,
                               [&machine](Fd socket, std::uint32_t guest_port) {
                                 return machine.connect(std::move(socket), guest_port);
                               },
                               {});
}

Json network_status(const SandboxNetwork& network, const PublishedPorts& ports) {
  Json status = network.status();
  Json published = Json::array();
  for (const PublishedPort& port : ports.list()) {
    published.push_back({{"protocol", transport_word(port.transport)},
                         {"address", port.address},
                         {"host_port", port.host_port},
                         {"guest_port", port.guest_port}});
  }
  status["published"] = std::move(published);
  return status;
}

// Which ports were picked, when that was left to this host.
void tell_picked_ports(std::span<const PublishWords> words, const PublishedPorts& ports) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const PublishedPort& port = ports.list()[i];
    if (words[i].host.port() == 0) {
      const bool six = port.address.find(':') != std::string::npos;
      fmt::print(stderr, "msb-vmm: port {}/{} of the sandbox is published at {}{}{}:{}\n",
                 port.guest_port, transport_word(port.transport), six ? "[" : "", port.address,
                 six ? "]" : "", port.host_port);
    }
  }
}

// Why this host's KVM cannot run guests, if it cannot.
std::optional<std::string> diagnose(int kvm) {
  const auto probe = probe_machine(kvm);
  return probe && probe->value == 0 ? std::optional(probe->text) : std::nullopt;
}

}  // namespace

Outcome run(const RunOptions& options) {
  Timeline timeline;
  timeline.mark("msb-vmm started");
  if (auto checked = check_size(options); !checked) {
    return failed(checked.error());
  }
  const auto stop_grace_ms = parse_stop_timeout(options.stop_timeout);
  if (!stop_grace_ms) {
    return failed(stop_grace_ms.error());
  }
  take_signals();
  allow_many_files();

  const auto kvm = open_kvm();
  if (!kvm) {
    return failed(kvm.error());
  }
  // First of all: it creates the VM, which takes longest, while the image is opened here.
  auto machine = MachineProcess::start(kvm->get());
  if (!machine) {
    return failed(machine.error());
  }
  timeline.mark("msb-machine spawned");
  auto image = options.rootfs.empty() ? open_image(options.image) : Result<OpenImage>(OpenImage{});
  if (!image) {
    return failed(image.error());
  }
  auto process = make_process(image->config, options.process);
  if (!process) {
    return failed(process.error());
  }
  const auto signal = stop_signal(image->config, options.stop_signal);
  if (!signal) {
    return failed(signal.error());
  }
  if (options.terminal) {
    process->terminal = terminal_size(STDIN_FILENO).value_or(protocol::TerminalSize{});
    add_terminal_type(process->environment);
  }
  timeline.mark("image opened");
  auto loop = Loop::create();
  if (!loop) {
    return failed(loop.error());
  }
  const auto publish = parse_publish(options.publish);
  const auto hosts = parse_host_names(options.hosts);
  if (!publish || !hosts) {
    return failed(!publish ? publish.error() : hosts.error());
  }
  const protocol::Opener agent = [&machine = *machine] { return machine.connect(MSB_PORT_AGENT); };
  auto ports = PublishedPorts::create(**loop, *publish, agent, {});
  if (!ports) {
    return failed(ports.error());
  }
  auto network = SandboxNetwork::create(**loop, options.network);
  if (!network) {
    return failed(network.error());
  }
  timeline.mark("network opened");
  GuestForwards::Options reachable;
  reachable.hosts = *hosts;
  reachable.dns = (*network)->dns();
  GuestForwards forwards(**loop, std::move(reachable));
  auto configuration =
      configure(options, image->config, std::move(image->layers), **network, forwards);
  if (!configuration) {
    return failed(configuration.error());
  }
  MachineRequests requests(machine->control());
  std::unique_ptr<ConnectServer> server;
  if (!options.socket.empty()) {
    auto created = serve(**loop, *machine, options.socket);
    if (!created) {
      return failed(created.error());
    }
    server = std::move(*created);
  }
  std::unique_ptr<ControlServer> control;
  if (!options.control.empty()) {
    auto created = ControlServer::create(
        **loop, options.control, requests, agent,
        {options.memory_mib, options.cpus, std::move(configuration->disks),
         std::move(configuration->shares), network_status(**network, **ports)},
        {});
    if (!created) {
      return failed(created.error());
    }
    control = std::move(*created);
  }
  if (auto sent = send_configuration(*machine, *configuration); !sent) {
    return failed(sent.error());
  }
  timeline.mark("configuration sent");
  tell_picked_ports(*publish, **ports);
  configuration->descriptors.clear();
  Outcome outcome;
  {
    Session session(**loop, *machine, requests,
                    {.command = {.process = std::move(*process),
                                 .attach = {},
                                 .input = true,
                                 .terminal = options.terminal,
                                 .kept = false,
                                 .memory_hint = fmt::format(
                                     ", of which it has {} MiB; give it more with --memory",
                                     options.memory_mib)},
                     .ready_timeout_s = options.ready_timeout_s,
                     .stop_signal = *signal,
                     .stop_grace_ms = *stop_grace_ms,
                     .server = server.get(),
                     .control = control.get(),
                     .network = network->get(),
                     .forwards = &forwards,
                     .ports = ports->get(),
                     .diagnose = [&] { return diagnose(kvm->get()); }},
                    timeline);
    outcome = session.run();
  }
  timeline.mark("end");
  if (options.timing) {
    std::fputs(timeline.table().c_str(), stderr);
  }
  return outcome;
}

}  // namespace msb::launcher
