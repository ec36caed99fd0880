// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtio_slot.hpp"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <semaphore>
#include <utility>

#include "vmm/layout.hpp"

namespace msb::vmm {

VirtioSlot::Kick::Kick(VirtioSlot& owner, std::uint16_t queue)
    : slot(owner),
      index(queue),
      event(::eventfd(0, EFD_CLOEXEC)),
      operation([this](std::int32_t result) {
        if (result > 0 && !operation.pending()) {
          watch();  // a kick that is no longer waited for would be a guest that hangs
        }
        if (result > 0) {
          slot.transport_->kick(index);
        }
      }) {}

void VirtioSlot::Kick::watch() {
  slot.loop_.watch(event.get(), operation);
}

VirtioSlot::VirtioSlot(std::uint32_t index, std::string name,
                       std::unique_ptr<virtio::Device> device, Loop& loop)
    : loop_(loop),
      name_(std::move(name)),
      address_(kVirtioWindowsAddress + index * virtio::kMmioSize),
      line_(kFirstVirtioInterrupt + index),
      device_(std::move(device)),
      acknowledged_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Result<std::unique_ptr<VirtioSlot>> VirtioSlot::create(
    std::uint32_t index, std::string name, std::unique_ptr<virtio::Device> device, const Vm& vm,
    const virtio::GuestMemory& memory, virtio::MmioTransport::RegisterPage page, Loop& loop) {
  std::unique_ptr<VirtioSlot> slot(new VirtioSlot(index, std::move(name), std::move(device), loop));
  if (!slot->acknowledged_) {
    return fail_errno(errno, "cannot create an eventfd for device {}", index);
  }
  // Only of used buffers alone: that of a changed configuration reaches the transport.
  if (auto added =
          vm.add_ioeventfd(slot->acknowledged_.get(), slot->address_ + virtio::kMmioInterruptAck,
                           virtio::kMmioInterruptUsedBuffer);
      !added) {
    return std::unexpected(added.error());
  }
  // The device lives on the loop's thread; a vCPU that changes its life cycle waits until that is
  // done.
  const auto on_loop = [&loop](std::function<void(std::function<void()>)> step) {
    std::binary_semaphore finished(0);
    loop.post([&] { step([&] { finished.release(); }); });
    finished.acquire();
  };
  const auto raise = [&vm, line = slot->line_] { vm.pulse_line(line); };
  const auto kick_later = [&kicks = slot->kicks_](std::uint16_t queue) {
    const std::uint64_t one = 1;
    // Fails only when the counter is saturated, and then the kick is there anyway.
    [[maybe_unused]] const ssize_t size = ::write(kicks.at(queue).event.get(), &one, sizeof one);
  };
  slot->transport_ = std::make_unique<virtio::MmioTransport>(*slot->device_, memory, page, on_loop,
                                                             raise, kick_later);
  const auto queues = static_cast<std::uint16_t>(slot->device_->max_queue_sizes().size());
  for (std::uint16_t queue = 0; queue < queues; ++queue) {
    Kick& kick = slot->kicks_.emplace_back(*slot, queue);
    if (!kick.event) {
      return fail_errno(errno, "cannot create an eventfd for queue {} of device {}", queue, index);
    }
    // 4.2.2: the driver kicks by writing the queue's number to QueueNotify.
    if (auto added =
            vm.add_ioeventfd(kick.event.get(), slot->address_ + virtio::kMmioQueueNotify, queue);
        !added) {
      return std::unexpected(added.error());
    }
  }
  for (Kick& kick : slot->kicks_) {
    kick.watch();
  }
  return slot;
}

DeviceReport VirtioSlot::report() const {
  const virtio::DeviceCounters& counters = device_->counters();
  DeviceReport report{name_,
                      counters.requests,
                      counters.errors,
                      counters.bytes_read,
                      counters.bytes_written,
                      transport_->kicks(),
                      transport_->interrupts(),
                      {}};
  for (std::size_t index = 0; index < virtio::MmioTransport::kRegisters; ++index) {
    const RegisterCounters accesses{static_cast<std::uint32_t>(index * 4), transport_->reads(index),
                                    transport_->writes(index)};
    if (accesses.reads != 0 || accesses.writes != 0) {
      report.registers.push_back(accesses);
    }
  }
  return report;
}

std::string VirtioSlot::command_line() const {
  return fmt::format("virtio_mmio.device=4K@{:#x}:{}", address_, line_);
}

}  // namespace msb::vmm
