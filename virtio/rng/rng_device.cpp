// SPDX-License-Identifier: Apache-2.0
#include "virtio/rng/rng_device.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace msb::virtio {

namespace {
constexpr std::array<std::uint16_t, 1> kQueueSizes{64};
}  // namespace

RngDevice::RngDevice(Fd source, AsyncIo& io) : source_(std::move(source)), io_(io) {}

std::span<const std::uint16_t> RngDevice::max_queue_sizes() const {
  return kQueueSizes;
}

void RngDevice::activate(std::vector<Queue> queues, std::uint64_t /*features*/,
                         DriverNotifier& driver) {
  queues_ = std::move(queues);
  driver_ = &driver;
}

void RngDevice::on_queue(std::uint16_t index) {
  requests_.sweep();
  for (std::uint16_t left = kQueueSizes.at(index); left > 0; --left) {
    auto chain = queues_.at(index).pop();
    if (!chain) {
      driver_->needs_reset();
      return;
    }
    if (!*chain) {
      notify(queues_, driver_);
      return;
    }
    serve(std::move(**chain));
  }
  driver_->kick_again(index);
  notify(queues_, driver_);
}

// 5.4.6.1: there must be no readable buffers; these are not looked at.
void RngDevice::serve(DescriptorChain chain) {
  if (chain.writable_size() == 0) {
    answer(std::move(chain), 0);
    return;
  }
  Request& request = requests_.start(*this, std::move(chain));
  io_.read(source_.get(), request.iovecs, AsyncIo::kNoOffset, request.operation);
}

RngDevice::Request::Request(RngDevice& device, DescriptorChain buffers)
    : chain(std::move(buffers)),
      iovecs(chain.writable_iovecs(0, kMaxRequest)),
      operation([this, &device](std::int32_t result) { device.on_read(*this, result); }) {}

void RngDevice::on_read(Request& request, std::int32_t result) {
  if (driver_ != nullptr) {
    if (result == -EINTR) {
      io_.read(source_.get(), request.iovecs, AsyncIo::kNoOffset, request.operation);
      return;
    }
    answer(std::move(request.chain), result);
    notify(queues_, driver_);
  }
  requests_.finish(request);
}

void RngDevice::pause(std::function<void()> done) {
  requests_.when_none(std::move(done));
}

// 5.4.6.2: fewer bytes than asked for will do, but there has to be one.
void RngDevice::answer(DescriptorChain chain, std::int32_t result) {
  const auto filled = static_cast<std::uint32_t>(std::max(result, 0));
  ++counters_.requests;
  counters_.errors += filled == 0 ? 1 : 0;
  counters_.bytes_read += filled;
  queues_.at(kEntropyRequestQueue).push(std::move(chain), filled);
}

void RngDevice::reset(std::function<void()> done) {
  for (Queue& queue : queues_) {
    queue.close();
  }
  queues_.clear();
  driver_ = nullptr;
  requests_.sweep();
  requests_.cancel(io_);
  requests_.when_none(std::move(done));
}

}  // namespace msb::virtio
