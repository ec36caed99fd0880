// SPDX-License-Identifier: Apache-2.0
#include "virtio/balloon/balloon_device.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace msb::virtio {

namespace {

// Which queues there are depends on the features that the driver accepted, and so do their numbers.
// 5.5.2 gives each queue a number of its own, reporting_vq 4. Linux counts only those that exist
// (vm_find_vqs() in drivers/virtio/virtio_mmio.c leaves out the ones that init_vqs() in
// virtio_balloon.c does not name): without free_page_vq, which is not offered, reporting_vq is 3,
// and 2 for a driver that does not want statistics. This follows Linux.
//
// Few entries for inflation and deflation, of which Linux has one request at a time: they bound
// what one kick can ask for. A report of Linux needs 32 (PAGE_REPORTING_CAPACITY).
constexpr std::array<std::uint16_t, 4> kQueueSizes{16, 16, 64, 64};

// What a request may name, each a system call at worst; Linux names 256
// (VIRTIO_BALLOON_ARRAY_PFNS_MAX).
constexpr std::size_t kMaxPagesOfRequest = 1024;
constexpr std::size_t kPagesAtATime = 256;

using PageNumber = std::uint32_t;  // 5.5.6: the address divided by 4096

std::uint64_t size_of(const GuestMemory& memory) {
  std::uint64_t size = 0;
  for (const GuestMemory::Mapping& mapping : memory.mappings()) {
    size += mapping.range.size;
  }
  return size;
}

// Calls `visit` with the request's page numbers, piece by piece; gives whether the request is a
// proper one and `visit` always said yes.
template <typename Visit>
bool for_each_piece(const DescriptorChain& chain, Visit visit) {
  const std::size_t size = chain.readable_size();
  const std::size_t count = std::min(size / sizeof(PageNumber), kMaxPagesOfRequest);
  bool good = size > 0 && size == count * sizeof(PageNumber);
  std::array<PageNumber, kPagesAtATime> numbers;
  for (std::size_t at = 0; at < count; at += kPagesAtATime) {
    const auto piece = std::span(numbers).first(std::min(kPagesAtATime, count - at));
    chain.read(at * sizeof(PageNumber), std::as_writable_bytes(piece));
    good &= visit(piece);
  }
  return good;
}

}  // namespace

BalloonDevice::BalloonDevice(const GuestMemory& memory)
    : memory_(memory), ram_size_(size_of(memory)) {}

std::span<const std::uint16_t> BalloonDevice::max_queue_sizes() const {
  return kQueueSizes;
}

std::size_t BalloonDevice::queues_needed(std::uint64_t features) const {
  return 2 + ((features & kBalloonFeatureStats) != 0 ? 1 : 0) +
         ((features & kBalloonFeatureReporting) != 0 ? 1 : 0);
}

void BalloonDevice::set_target(std::uint64_t pages) {
  const std::uint64_t most =
      std::min<std::uint64_t>(ram_size_ / kBalloonPageSize, std::numeric_limits<PageNumber>::max());
  const auto target = static_cast<std::uint32_t>(std::min(pages, most));
  if (std::exchange(config_.num_pages, target) != target && driver_ != nullptr) {
    driver_->config_changed();
  }
}

std::uint32_t BalloonDevice::actual_pages() const {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(config_.actual, ram_size_ / kBalloonPageSize));
}

// 5.5.6: `actual` is the driver's to write, and the last field.
void BalloonDevice::write_config(std::size_t offset, std::span<const std::byte> data) {
  const auto bytes = std::as_writable_bytes(std::span(&config_, 1));
  for (std::size_t i = 0; i < data.size(); ++i) {
    if (offset + i >= offsetof(BalloonConfig, actual)) {
      bytes[offset + i] = data[i];
    }
  }
}

void BalloonDevice::activate(std::vector<Queue> queues, std::uint64_t features,
                             DriverNotifier& driver) {
  queues_ = std::move(queues);
  features_ = features;
  driver_ = &driver;
  if ((features_ & kBalloonFeatureStats) != 0) {
    // 5.5.5: the driver kicks for its first buffer after DRIVER_OK; Linux does so before
    // (init_vqs() in virtio_balloon.c), when nobody hears it.
    on_queue(kBalloonStatsQueue);
  }
}

void BalloonDevice::on_queue(std::uint16_t index) {
  reportable_ = ram_size_;
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
    serve(index, std::move(**chain));
  }
  driver_->kick_again(index);
  notify(queues_, driver_);
}

void BalloonDevice::serve(std::uint16_t index, DescriptorChain chain) {
  if (index == kBalloonInflateQueue) {
    const bool good = inflate(chain);
    answer(queues_[index], std::move(chain), good);
  } else if (index == kBalloonDeflateQueue) {
    const bool good = deflate(chain);
    answer(queues_[index], std::move(chain), good);
  } else if (index == kBalloonStatsQueue && (features_ & kBalloonFeatureStats) != 0) {
    keep_stats(std::move(chain));
  } else {
    const bool good = report(chain);
    answer(queues_[index], std::move(chain), good);
  }
}

bool BalloonDevice::inflate(const DescriptorChain& chain) {
  return for_each_piece(chain, [this](std::span<PageNumber> pages) { return discard(pages); });
}

// Nothing is to be done: MUST_TELL_HOST is not offered, and memory appears where the guest touches
// it.
bool BalloonDevice::deflate(const DescriptorChain& chain) const {
  return for_each_piece(chain, [this](std::span<const PageNumber> pages) {
    return std::ranges::all_of(pages, [this](PageNumber page) {
      return memory_.slice(page * kBalloonPageSize, kBalloonPageSize).has_value();
    });
  });
}

// Discards the pages that are guest RAM; gives whether all of them are. Neighbours go together, a
// system call for each run of them, and in any order: Linux tends to name them from the last to the
// first.
bool BalloonDevice::discard(std::span<PageNumber> pages) {
  std::ranges::sort(pages);
  const auto repeated = std::ranges::unique(pages);
  bool good = true;
  GuestAddress start = 0;
  GuestSlice run;
  for (const PageNumber page : pages.first(pages.size() - repeated.size())) {
    const GuestAddress address = page * kBalloonPageSize;
    if (run.size() > 0 && address == start + run.size()) {
      if (const auto longer = memory_.slice(start, run.size() + kBalloonPageSize)) {
        run = *longer;
        continue;
      }
    }
    returned_bytes_ += run.discard();
    const auto found = memory_.slice(address, kBalloonPageSize);
    good &= found.has_value();
    run = found ? *found : GuestSlice();
    start = address;
  }
  returned_bytes_ += run.discard();
  return good;
}

// 5.5.6.7. No page is free twice, so what comes to more than all RAM is no report: walking its page
// tables again and again would keep the loop busy.
bool BalloonDevice::report(const DescriptorChain& chain) {
  const std::uint64_t size = chain.writable_size();
  if (size == 0 || size > reportable_) {
    return false;
  }
  reportable_ -= size;
  returned_bytes_ += chain.discard_writable();
  return true;
}

// 5.5.6.3: the driver makes one readable buffer available, which may be empty at first, and gets it
// back when the device wants another.
void BalloonDevice::keep_stats(DescriptorChain chain) {
  if (stats_buffer_ || !chain.servable() || chain.writable_size() > 0) {
    answer(queues_[kBalloonStatsQueue], std::move(chain), false);
    return;
  }
  std::array<std::byte, kMaxBalloonStatsSize> entries;
  const std::size_t size = chain.read(0, entries);
  if (auto stats = parse_balloon_stats(std::span(entries).first(size))) {
    stats_ = stats;
  }
  stats_buffer_ = std::move(chain);
}

bool BalloonDevice::request_stats() {
  if (!stats_buffer_) {
    return false;
  }
  answer(queues_[kBalloonStatsQueue], std::move(*stats_buffer_), true);
  stats_buffer_.reset();
  notify(queues_, driver_);
  return true;
}

void BalloonDevice::answer(Queue& queue, DescriptorChain chain, bool good) {
  ++counters_.requests;
  counters_.errors += good ? 0 : 1;
  queue.push(std::move(chain), 0);  // no queue of this device has anything written into it
}

void BalloonDevice::reset(std::function<void()> done) {
  for (Queue& queue : queues_) {
    queue.close();
  }
  queues_.clear();
  driver_ = nullptr;
  stats_buffer_.reset();
  stats_.reset();
  config_.actual = 0;
  done();
}

}  // namespace msb::virtio
