// SPDX-License-Identifier: Apache-2.0
// One microVM: memory, vCPUs, devices, and its life from the first instruction to the last.
#pragma once

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/control.hpp"
#include "base/fd.hpp"
#include "base/loop.hpp"
#include "base/machine_config.hpp"
#include "base/machine_counters.hpp"
#include "base/network_denial.hpp"
#include "base/result.hpp"
#include "base/share_cache.hpp"
#include "virtio/balloon/balloon_device.hpp"
#include "virtio/blk/blk_device.hpp"
#include "virtio/fs/fs_device.hpp"
#include "virtio/guest_memory.hpp"
#include "virtio/net/net_device.hpp"
#include "virtio/vsock/vsock_device.hpp"
#include "vmm/bus.hpp"
#include "vmm/kvm.hpp"
#include "vmm/register_pages.hpp"

namespace msb::vmm {

class Machine {
 public:
  struct Stop {
    StopReason reason;
    std::string detail;
    // The end of what the guest's kernel said, in any bytes.
    std::string kernel_log = {};  // NOLINT(readability-redundant-member-init): g++ wants it named
  };
  // How the machine talks to whoever started it. All are called on the loop's thread.
  struct Owner {
    std::function<void(Stop)> stopped;  // the guest ended; at most once
    std::function<void(std::uint32_t port, Fd peer)>
        accepted;  // the guest connected to a host port of the configuration
    std::function<void(const NetworkDenial&, std::uint32_t number)>
        denied;                          // a packet was not let out; as NetOptions
    std::function<void()> network_lost;  // its backend is gone
  };

  // Builds the machine in `vm`. `descriptors` are those that the configuration names; `loop` must
  // outlive the machine, and is of no more use after a failure.
  static Result<std::unique_ptr<Machine>> create(Vm vm, const MachineConfig& config,
                                                 std::vector<Fd> descriptors, Loop& loop,
                                                 Owner owner);
  // The threads of a machine that was started run until the process ends: there is no way back.
  ~Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Enters the guest: one thread per vCPU. Once.
  void start();

  // Stops all vCPUs and brings all devices to rest; `done` is called when nothing moves any more.
  // On the loop's thread, as the next six, of a machine that was started; not before an earlier
  // call is done. A machine that is paused already is so at once.
  void pause(std::function<void()> done);
  void resume();
  // The file of disk `index` has `bytes` now. Fails when there is no such disk.
  Result<void> resize_disk(std::size_t index, std::uint64_t bytes);
  // Asks the guest to give back `bytes` of its memory, at most all of it; it keeps what it needs.
  // False when it has no balloon.
  bool set_balloon(std::uint64_t bytes) {
    if (balloon_ != nullptr) {
      balloon_->set_target(bytes / virtio::kBalloonPageSize);
    }
    return balloon_ != nullptr;
  }
  // A share at a path of the virtio-fs device, as FsDevice.
  void add_share(std::string path, Fd root, bool read_only, ShareCache cache,
                 std::function<void(Result<void>)> done) {
    fs_->add_share(std::move(path), std::move(root), read_only, cache, std::move(done));
  }
  void remove_share(std::string_view path, std::function<void(Result<void>)> done) {
    fs_->remove_share(path, std::move(done));
  }
  // Another backend for its network card. False when it has none.
  bool replace_network(Fd backend);
  void set_host_addresses(std::vector<IpAddress> addresses) {
    if (network_ != nullptr) {
      network_->set_host(std::move(addresses));
    }
  }
  void release_refusal(std::uint32_t number) {
    if (network_ != nullptr) {
      network_->release(number);
    }
  }
  [[nodiscard]] MachineCounters counters() const;

  // The signal that a vCPU's thread gets to leave the guest. The process must handle it, by doing
  // nothing.
  static constexpr int kInterruptSignal = SIGUSR1;

  // Connects a stream socket (blocking mode) to a vsock port in the guest, as
  // VsockDevice::connect().
  void connect(Fd socket, std::uint32_t guest_port) {
    vsock_->connect(std::move(socket), guest_port);
  }

 private:
  Machine(Vm vm, Loop& loop, Owner owner)
      : vm_(std::move(vm)), loop_(loop), owner_(std::move(owner)) {}

  Result<void> build(const MachineConfig& config, std::vector<Fd> descriptors);
  Result<void> add_device(std::string name, std::unique_ptr<virtio::Device> device);
  Result<void> add_files(const MachineConfig& config, std::vector<Fd>& descriptors);
  Result<void> add_vsock(const MachineConfig& config);
  Result<void> add_network(const NetworkConfig& config, std::vector<Fd>& descriptors);
  Result<void> add_disks(const MachineConfig& config, std::vector<Fd>& descriptors);
  void add_serial(Fd output);
  Result<void> add_vcpus(std::uint32_t count, std::uint64_t entry);
  void run(const Vcpu& vcpu);
  void wait_at_gate(const Vcpu& vcpu);
  void on_vcpus_stopped();
  // Handles one exit; gives why the machine stops, or nothing.
  std::optional<Stop> handle_exit(const Vcpu& vcpu);
  std::optional<Fd> accept(std::uint32_t port);

  Vm vm_;
  Loop& loop_;
  Owner owner_;
  std::unique_ptr<virtio::GuestMemory> memory_;
  std::optional<RegisterPages> registers_;
  Bus bus_;
  virtio::FsDevice* fs_ = nullptr;  // owned by its slot on the bus, as the next three
  virtio::VsockDevice* vsock_ = nullptr;
  virtio::BalloonDevice* balloon_ = nullptr;
  virtio::NetDevice* network_ = nullptr;
  NetworkBackend network_backend_ = NetworkBackend::kNone;
  std::vector<std::uint32_t> host_ports_;
  std::vector<Vcpu> vcpus_;
  std::vector<std::jthread> threads_;
  std::vector<virtio::BlkDevice*> disks_;  // owned by their slots on the bus
  std::atomic<std::uint64_t> exits_ = 0;

  // Where vCPUs wait while the machine is paused.
  std::mutex gate_mutex_;
  std::condition_variable gate_;
  std::atomic<bool> gate_closed_ = false;
  std::size_t waiting_ = 0;  // vCPUs at the closed gate

  bool paused_ = false;             // all is at rest
  std::size_t devices_moving_ = 0;  // while it comes to rest
  std::function<void()> pause_done_;
  bool stopped_ = false;
};

}  // namespace msb::vmm
