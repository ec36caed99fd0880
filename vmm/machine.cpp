// SPDX-License-Identifier: Apache-2.0
#include "vmm/machine.hpp"

#include <fmt/format.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "virtio/rng/rng_device.hpp"
#include "vmm/boot.hpp"
#include "vmm/cpuid.hpp"
#include "vmm/elf_loader.hpp"
#include "vmm/file_filter.hpp"
#include "vmm/kernel_log.hpp"
#include "vmm/layout.hpp"

namespace msb::vmm {

namespace {

constexpr std::uint64_t kGuestCid = 3;  // 0 to 2 are reserved; each machine has a device of its own

// What every guest is booted with, and why:
//   reboot=t       without ACPI and keyboard controller a triple fault is how the machine ends
//   panic=-1       a panic ends the machine at once; the launcher sees that nobody announced it
//   tsc=reliable   KVM's TSC needs no watchdog
//   quiet          only what is wrong is said, into the reserved memory, unless a console is wanted
constexpr std::string_view kCommandLine = "reboot=t panic=-1 tsc=reliable no_timer_check";
constexpr std::string_view kSilent = "quiet 8250.nr_uarts=0";
constexpr std::string_view kSerialConsole = "console=ttyS0 8250.nr_uarts=1";

// What a guest may make this process keep for it of shared directories. A kernel spends more than a
// kilobyte on each inode that it knows, so none runs into the first of these by itself.
virtio::ShareLimits share_limits(std::uint64_t memory_bytes) {
  constexpr std::uint64_t kBytesPerNode = 1024;
  constexpr std::uint64_t kLeastNodes = 65536;
  virtio::ShareLimits limits;
  limits.nodes = std::max(memory_bytes / kBytesPerNode, kLeastNodes);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    const std::size_t part = static_cast<std::size_t>(files.rlim_cur) / 4;
    limits.node_descriptors = std::min(limits.node_descriptors, part);
    limits.handles = std::min(limits.handles, part);
    limits.lock_owners = std::min(limits.lock_owners, part / 2);
  }
  return limits;
}

// Takes descriptor `index`, each at most once.
Result<Fd> take(std::vector<Fd>& descriptors, DescriptorIndex index, std::string_view what) {
  if (index >= descriptors.size() || !descriptors[index]) {
    return fail("the machine configuration names descriptor {} for {}, which did not come with it",
                index, what);
  }
  return std::move(descriptors[index]);
}

std::uint64_t monotonic_time() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

std::unique_ptr<virtio::NetBackend> make_backend(NetworkBackend kind, Fd descriptor) {
  if (kind == NetworkBackend::kTap) {
    return std::make_unique<virtio::TapBackend>(std::move(descriptor));
  }
  return std::make_unique<virtio::StreamBackend>(std::move(descriptor));
}

}  // namespace

Result<std::unique_ptr<Machine>> Machine::create(Vm vm, const MachineConfig& config,
                                                 std::vector<Fd> descriptors, Loop& loop,
                                                 Owner owner) {
  std::unique_ptr<Machine> machine(new Machine(std::move(vm), loop, std::move(owner)));
  if (auto built = machine->build(config, std::move(descriptors)); !built) {
    loop.drain();  // what was built already waits for kicks
    return std::unexpected(built.error());
  }
  return machine;
}

Result<void> Machine::build(const MachineConfig& config, std::vector<Fd> descriptors) {
  auto kernel_file = take(descriptors, config.kernel, "the kernel");
  if (!kernel_file) {
    return std::unexpected(kernel_file.error());
  }
  auto initramfs_file = take(descriptors, config.initramfs, "the initramfs");
  if (!initramfs_file) {
    return std::unexpected(initramfs_file.error());
  }
  auto memory = virtio::GuestMemory::create(ram_ranges(config.memory_mib * kMib));
  if (!memory) {
    return std::unexpected(memory.error());
  }
  memory_ = std::move(*memory);
  if (auto done = vm_.map(*memory_); !done) {
    return done;
  }
  if (auto done = vm_.create_irqchip(); !done) {
    return done;
  }
  auto kernel = load_kernel(kernel_file->get(), *memory_);
  if (!kernel) {
    return std::unexpected(kernel.error());
  }
  auto initramfs = load_initramfs(initramfs_file->get(), kernel->end, *memory_);
  if (!initramfs) {
    return std::unexpected(initramfs.error());
  }
  auto registers = RegisterPages::create();
  if (!registers) {
    return std::unexpected(registers.error());
  }
  registers_ = std::move(*registers);
  if (auto done = add_files(config, descriptors); !done) {
    return done;
  }
  if (auto done = add_vsock(config); !done) {
    return done;
  }
  if (auto done = add_network(config.network, descriptors); !done) {
    return done;
  }
  if (auto done = add_disks(config, descriptors); !done) {
    return done;
  }
  if (config.entropy != kNoDescriptor) {
    auto source = take(descriptors, config.entropy, "the entropy device");
    if (!source) {
      return std::unexpected(source.error());
    }
    if (auto done =
            add_device("rng", std::make_unique<virtio::RngDevice>(std::move(*source), loop_));
        !done) {
      return done;
    }
  }
  if (config.balloon) {
    auto balloon = std::make_unique<virtio::BalloonDevice>(*memory_);
    balloon_ = balloon.get();
    if (auto done = add_device("balloon", std::move(balloon)); !done) {
      return done;
    }
  }
  if (auto done = registers_->map(vm_, bus_.slots().size()); !done) {
    return done;
  }
  std::string command_line = fmt::format("{} {}", kCommandLine, kernel_log_options());
  if (config.console != kNoDescriptor) {
    auto console = take(descriptors, config.console, "the console");
    if (!console) {
      return std::unexpected(console.error());
    }
    add_serial(std::move(*console));
  }
  command_line += fmt::format(" {}", config.console == kNoDescriptor ? kSilent : kSerialConsole);
  for (const auto& slot : bus_.slots()) {
    command_line += fmt::format(" {}", slot->command_line());
  }
  if (!config.command_line.empty()) {
    command_line += fmt::format(" {}", config.command_line);
  }
  if (auto done = write_boot_data(*memory_, command_line, *initramfs, config.vcpus); !done) {
    return done;
  }
  return add_vcpus(config.vcpus, kernel->entry);
}

Result<void> Machine::add_device(std::string name, std::unique_ptr<virtio::Device> device) {
  const auto index = static_cast<std::uint32_t>(bus_.slots().size());
  auto slot = VirtioSlot::create(index, std::move(name), std::move(device), vm_, *memory_,
                                 registers_->page(index), loop_);
  if (!slot) {
    return std::unexpected(slot.error());
  }
  bus_.add(std::move(*slot));
  return {};
}

Result<void> Machine::add_files(const MachineConfig& config, std::vector<Fd>& descriptors) {
  virtio::SharedTree tree;
  for (const SharedFile& shared : config.shared_files) {
    Result<void> added;
    if (shared.descriptor == kNoDescriptor) {
      added = tree.add_text(shared.path, shared.text);
    } else {
      auto file = take(descriptors, shared.descriptor, shared.path);
      if (!file) {
        return std::unexpected(file.error());
      }
      added = tree.add_file(shared.path, std::move(*file));
    }
    if (!added) {
      return added;
    }
  }
  virtio::FuseServer server(std::move(tree), virtio::OwnerRule(::geteuid(), ::getegid()),
                            share_limits(config.memory_mib * kMib));
  for (const ShareConfig& share : config.shares) {
    auto root = take(descriptors, share.root, share.path);
    if (!root) {
      return std::unexpected(root.error());
    }
    if (auto added = server.add_share(share.path, std::move(*root), share.read_only,
                                      static_cast<ShareCache>(share.cache));
        !added) {
      return added;
    }
  }
  loop_.on_worker_start([this] {
    if (auto restricted = restrict_to_files(); !restricted) {
      loop_.post([this, error = restricted.error()] {
        owner_.stopped({StopReason::kInternalError, error.message});
      });
      while (true) {
        ::pause();  // it serves nobody; the process is about to end
      }
    }
  });
  auto device = std::make_unique<virtio::FsDevice>(config.share_tag, std::move(server), loop_);
  fs_ = device.get();
  return add_device("fs", std::move(device));
}

Result<void> Machine::add_vsock(const MachineConfig& config) {
  host_ports_ = config.host_ports;
  auto device = std::make_unique<virtio::VsockDevice>(
      kGuestCid, loop_, [this](std::uint32_t port) { return accept(port); });
  vsock_ = device.get();
  return add_device("vsock", std::move(device));
}

Result<void> Machine::add_network(const NetworkConfig& config, std::vector<Fd>& descriptors) {
  network_backend_ = static_cast<NetworkBackend>(config.backend);
  if (network_backend_ == NetworkBackend::kNone) {
    return {};
  }
  auto backend = take(descriptors, config.descriptor, "the network");
  if (!backend) {
    return std::unexpected(backend.error());
  }
  auto device = std::make_unique<virtio::NetDevice>(
      virtio::NetOptions{.mac = config.mac,
                         .mtu = static_cast<std::uint16_t>(config.mtu),
                         .receive_rate = config.receive_rate,
                         .send_rate = config.send_rate,
                         .clock = monotonic_time,
                         .denied = owner_.denied,
                         .lost = owner_.network_lost},
      make_backend(network_backend_, std::move(*backend)),
      virtio::FrameFilter({.mac = config.mac,
                           .addresses = config.addresses,
                           .rules = config.rules,
                           .host = config.host_addresses,
                           .proxied = network_backend_ == NetworkBackend::kStream}),
      loop_);
  network_ = device.get();
  return add_device("net", std::move(device));
}

bool Machine::replace_network(Fd backend) {
  if (network_ != nullptr) {
    network_->replace(make_backend(network_backend_, std::move(backend)));
  }
  return network_ != nullptr;
}

Result<void> Machine::add_disks(const MachineConfig& config, std::vector<Fd>& descriptors) {
  for (const DiskConfig& wanted : config.disks) {
    virtio::Disk disk;
    auto file = take(descriptors, wanted.file, "a disk");
    if (!file) {
      return std::unexpected(file.error());
    }
    disk.file = std::move(*file);
    if (wanted.direct != kNoDescriptor) {
      auto direct = take(descriptors, wanted.direct, "a disk");
      if (!direct) {
        return std::unexpected(direct.error());
      }
      disk.direct = std::move(*direct);
    }
    disk.alignment = wanted.alignment;
    disk.size = wanted.size;
    disk.read_only = wanted.read_only;
    const std::string name = fmt::format("disk-{}", disks_.size());
    disk.id = name;
    auto device = std::make_unique<virtio::BlkDevice>(std::move(disk), loop_);
    disks_.push_back(device.get());
    if (auto added = add_device(name, std::move(device)); !added) {
      return added;
    }
  }
  return {};
}

std::optional<Fd> Machine::accept(std::uint32_t port) {
  if (std::ranges::find(host_ports_, port) == host_ports_.end()) {
    return std::nullopt;
  }
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return std::nullopt;  // out of descriptors: the guest is refused
  }
  owner_.accepted(port, Fd(ends[1]));
  return Fd(ends[0]);
}

void Machine::add_serial(Fd output) {
  bus_.set_serial(
      std::make_unique<Serial>(std::move(output), [this] { vm_.pulse_line(kSerialInterrupt); }));
}

Result<void> Machine::add_vcpus(std::uint32_t count, std::uint64_t entry) {
  auto supported = vm_.supported_cpuid();
  if (!supported) {
    return std::unexpected(supported.error());
  }
  const bool tsc_deadline = vm_.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  for (std::uint32_t id = 0; id < count; ++id) {
    auto vcpu = vm_.create_vcpu(id);
    if (!vcpu) {
      return std::unexpected(vcpu.error());
    }
    if (auto done = vcpu->set_cpuid(make_cpuid(*supported, id, count, tsc_deadline)); !done) {
      return done;
    }
    vcpus_.push_back(std::move(*vcpu));
  }
  // The others wait in the in-kernel APIC for the boot processor's INIT and SIPI.
  return set_boot_state(vcpus_.front(), entry);
}

void Machine::start() {
  for (const Vcpu& vcpu : vcpus_) {
    threads_.emplace_back([this, &vcpu] { run(vcpu); });
  }
}

void Machine::run(const Vcpu& vcpu) {
  std::optional<Stop> stop;
  while (!stop) {
    if (gate_closed_.load(std::memory_order_acquire)) {
      wait_at_gate(vcpu);
    }
    const auto ran = vcpu.run();
    exits_.fetch_add(1, std::memory_order_relaxed);
    if (!ran && (ran.error().code == EINTR || ran.error().code == EAGAIN)) {
      continue;
    }
    stop = ran ? handle_exit(vcpu) : Stop{StopReason::kInternalError, ran.error().message};
  }
  loop_.post([this, stop = std::move(*stop)]() mutable {
    if (!std::exchange(stopped_, true)) {
      stop.kernel_log = read_kernel_log(*memory_);
      owner_.stopped(stop);
    }
  });
}

// --- pause ---

void Machine::pause(std::function<void()> done) {
  if (paused_) {
    done();
    return;
  }
  pause_done_ = std::move(done);
  {
    // Under the lock, so that a vCPU that has just been let go takes none of this back.
    const std::scoped_lock lock(gate_mutex_);
    gate_closed_.store(true, std::memory_order_release);
    for (const Vcpu& vcpu : vcpus_) {
      vcpu.stop_running();
    }
    // All may still be at the gate from the last time: it was open too shortly for them to notice.
    if (waiting_ == vcpus_.size()) {
      loop_.post([this] { on_vcpus_stopped(); });
    }
  }
  for (std::jthread& thread : threads_) {
    ::pthread_kill(thread.native_handle(), kInterruptSignal);
  }
}

// On the vCPU's thread.
void Machine::wait_at_gate(const Vcpu& vcpu) {
  std::unique_lock lock(gate_mutex_);
  if (++waiting_ == vcpus_.size()) {
    loop_.post([this] { on_vcpus_stopped(); });
  }
  gate_.wait(lock, [this] { return !gate_closed_.load(std::memory_order_relaxed); });
  --waiting_;
  vcpu.let_run();
  vcpu.forgive_pause();
}

// Kicks that the vCPUs gave last may still be on their way; the transports keep them.
void Machine::on_vcpus_stopped() {
  devices_moving_ = bus_.slots().size();
  for (const auto& slot : bus_.slots()) {
    slot->transport().pause([this] {
      if (--devices_moving_ == 0) {
        paused_ = true;
        std::exchange(pause_done_, nullptr)();
      }
    });
  }
}

void Machine::resume() {
  if (!std::exchange(paused_, false)) {
    return;
  }
  for (const auto& slot : bus_.slots()) {
    slot->transport().resume();
  }
  const std::scoped_lock lock(gate_mutex_);
  gate_closed_.store(false, std::memory_order_release);
  gate_.notify_all();
}

Result<void> Machine::resize_disk(std::size_t index, std::uint64_t bytes) {
  if (index >= disks_.size()) {
    return fail("there is no disk {}; the sandbox has {}", index, disks_.size());
  }
  disks_[index]->resize(bytes);
  return {};
}

MachineCounters Machine::counters() const {
  MachineCounters counters;
  counters.exits = exits_.load(std::memory_order_relaxed);
  if (balloon_ != nullptr) {
    counters.balloon = {balloon_->target_pages() * virtio::kBalloonPageSize,
                        balloon_->actual_pages() * virtio::kBalloonPageSize,
                        balloon_->returned_bytes()};
  }
  if (network_ != nullptr) {
    counters.network = network_->report();
  }
  for (const auto& slot : bus_.slots()) {
    counters.devices.push_back(slot->report());
  }
  return counters;
}

std::optional<Machine::Stop> Machine::handle_exit(const Vcpu& vcpu) {
  kvm_run& state = vcpu.state();
  switch (state.exit_reason) {
    case KVM_EXIT_MMIO: {
      const auto bytes =
          std::as_writable_bytes(std::span(state.mmio.data)).first(std::min(state.mmio.len, 8U));
      state.mmio.is_write != 0 ? bus_.write_memory(state.mmio.phys_addr, bytes)
                               : bus_.read_memory(state.mmio.phys_addr, bytes);
      return std::nullopt;
    }
    case KVM_EXIT_IO: {
      std::span<std::byte> data = vcpu.io_data();
      for (; !data.empty(); data = data.subspan(state.io.size)) {
        const auto access = data.first(state.io.size);
        state.io.direction == KVM_EXIT_IO_OUT ? bus_.write_port(state.io.port, access)
                                              : bus_.read_port(state.io.port, access);
      }
      return std::nullopt;
    }
    case KVM_EXIT_SHUTDOWN:
      return Stop{StopReason::kShutdown, ""};
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return std::nullopt;
    default: {
      const auto regs = vcpu.regs();
      const std::string where = regs ? fmt::format(" at {:#x}", regs->rip) : "";
      if (state.exit_reason == KVM_EXIT_INTERNAL_ERROR) {
        return Stop{StopReason::kInternalError,
                    fmt::format("KVM internal error {}{}", state.internal.suberror, where)};
      }
      if (state.exit_reason == KVM_EXIT_FAIL_ENTRY) {
        return Stop{StopReason::kInternalError,
                    fmt::format("KVM could not enter the guest, hardware reason {:#x}",
                                std::uint64_t{state.fail_entry.hardware_entry_failure_reason})};
      }
      return Stop{StopReason::kInternalError,
                  fmt::format("unexpected KVM exit {}{}", state.exit_reason, where)};
    }
  }
}

}  // namespace msb::vmm
