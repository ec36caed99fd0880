// SPDX-License-Identifier: Apache-2.0
// A guest's driver for a disk over a file that the test can look into.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "virtio/blk/blk_device.hpp"
#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/fake_io.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_notifier.hpp"

namespace msb::virtio::testing {

inline constexpr std::uint64_t kDiskSectors = 256;

// Where a file in memory would lack what is tested, `directory` has another.
inline Fd make_file(std::uint64_t bytes, const char* directory = "/tmp") {
  std::string path = std::string(directory) + "/msb-disk-XXXXXX";
  Fd file(::mkostemp(path.data(), O_CLOEXEC));
  REQUIRE(file);
  REQUIRE(::unlink(path.c_str()) == 0);
  REQUIRE(::ftruncate(file.get(), static_cast<off_t>(bytes)) == 0);
  return file;
}

class BlkGuest {
 public:
  static constexpr GuestAddress kQueue = GuestRam::kStart;
  static constexpr GuestAddress kHeaders = GuestRam::kStart + 8 * kPage;
  static constexpr GuestAddress kStatus = kHeaders + 4 * kPage;
  static constexpr GuestAddress kData = GuestRam::kStart + 32 * kPage;
  static constexpr std::uint8_t kUntouched = 0xa5;

  explicit BlkGuest(Disk disk) : BlkGuest(std::move(disk), 0) {}
  explicit BlkGuest(bool read_only = false)
      : BlkGuest([&] {
          Disk disk;
          disk.file = make_file(kDiskSectors * kBlkSectorSize);
          disk.size = kDiskSectors * kBlkSectorSize;
          disk.read_only = read_only;
          disk.id = "disk-0";
          return disk;
        }()) {}

  ~BlkGuest() {
    io.hold = nullptr;
    io.answer = nullptr;
    io.drain();
  }
  BlkGuest(const BlkGuest&) = delete;
  BlkGuest& operator=(const BlkGuest&) = delete;

  void start(std::uint64_t features = kBlkFeatureFlush) {
    device.activate({queue.device_side()}, kFeatureVersion1 | features, notifier);
  }
  void restart() {
    queue.restart();
    slots_.clear();
    start();
  }

  // What a request gave, once it is back.
  struct Answer {
    BlkStatus status;
    std::uint32_t used;
  };
  // Makes a request available with its data in `data`; gives its head.
  std::uint16_t add(BlkType type, std::uint64_t sector, std::vector<Buffer> data) {
    const std::size_t slot = slots_.size() % 128;
    const GuestAddress header = kHeaders + slot * sizeof(BlkRequestHeader);
    ram.put(header, BlkRequestHeader{type, 0, sector});
    ram.put(kStatus + slot, kUntouched);
    data.insert(data.begin(), {header, sizeof(BlkRequestHeader), false});
    data.push_back({kStatus + slot, 1, true});
    const std::uint16_t head = queue.add(data);
    slots_.emplace_back(head, kStatus + slot);
    return head;
  }
  void kick() { device.on_queue(0); }
  std::optional<Answer> take(std::uint16_t head) {
    while (const auto used = queue.take_used()) {
      used_[static_cast<std::uint16_t>(used->id)] = used->length;
    }
    const auto found = used_.find(head);
    if (found == used_.end()) {
      return std::nullopt;
    }
    const std::uint32_t length = found->second;
    used_.erase(found);
    for (auto slot = slots_.rbegin(); slot != slots_.rend(); ++slot) {
      if (slot->first == head) {
        return Answer{static_cast<BlkStatus>(ram.get<std::uint8_t>(slot->second)), length};
      }
    }
    return std::nullopt;
  }
  // From the request to its answer.
  Answer request(BlkType type, std::uint64_t sector, std::vector<Buffer> data) {
    const std::uint16_t head = add(type, sector, std::move(data));
    kick();
    io.run();
    const auto answer = take(head);
    REQUIRE(answer);
    return *answer;
  }
  Answer read(std::uint64_t sector, std::uint32_t bytes, GuestAddress to = kData) {
    return request(BlkType::kIn, sector, {{to, bytes, true}});
  }
  Answer write(std::uint64_t sector, std::span<const std::byte> data, GuestAddress from = kData) {
    ram.put_bytes(from, data);
    return request(BlkType::kOut, sector, {{from, static_cast<std::uint32_t>(data.size()), false}});
  }
  Answer flush() { return request(BlkType::kFlush, 0, {}); }
  Answer ranges(BlkType type, std::span<const BlkRange> list) {
    const auto bytes = std::as_bytes(list);
    ram.put_bytes(kData, bytes);
    return request(type, 0, {{kData, static_cast<std::uint32_t>(bytes.size()), false}});
  }
  Answer ranges(BlkType type, std::initializer_list<BlkRange> list) {
    return ranges(type, std::span(list.begin(), list.size()));
  }

  std::vector<std::byte> file_bytes(std::uint64_t offset, std::size_t size) const {
    std::vector<std::byte> bytes(size);
    REQUIRE(::pread(file, bytes.data(), size, static_cast<off_t>(offset)) ==
            static_cast<ssize_t>(size));
    return bytes;
  }
  std::uint64_t blocks() const {  // of 512 bytes that the file takes up
    struct stat status{};
    REQUIRE(::fstat(file, &status) == 0);
    return static_cast<std::uint64_t>(status.st_blocks);
  }

 private:
  BlkGuest(Disk disk, int) : file(disk.file.get()), device(std::move(disk), io) { start(); }

 public:
  GuestRam ram{1024 * kPage};
  DriverQueue queue{ram, kQueue, 256};
  FakeIo io;
  RecordingNotifier notifier;
  int file;  // the device's own descriptor
  BlkDevice device;

 private:
  std::vector<std::pair<std::uint16_t, GuestAddress>> slots_;
  std::map<std::uint16_t, std::uint32_t> used_;
};

inline std::vector<std::byte> pattern(std::size_t size, std::uint32_t seed = 1) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) {
    seed = seed * 1664525 + 1013904223;
    byte = static_cast<std::byte>(seed >> 24);
  }
  return bytes;
}

}  // namespace msb::virtio::testing
