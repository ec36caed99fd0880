// SPDX-License-Identifier: Apache-2.0
// The network device (virtio 1.2 section 5.1), with one pair of queues.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/async_io.hpp"
#include "base/machine_counters.hpp"
#include "virtio/device.hpp"
#include "virtio/net/frame_filter.hpp"
#include "virtio/net/net_backend.hpp"
#include "virtio/net/token_bucket.hpp"
#include "virtio/spec.hpp"

namespace msb::virtio {

struct NetOptions {
  MacAddress mac{};
  std::uint16_t mtu = 1500;        // bytes
  std::uint64_t receive_rate = 0;  // bytes per second; 0: no limit
  std::uint64_t send_rate = 0;
  // Nanoseconds of a clock that does not go back.
  std::function<std::uint64_t()> clock;
  // A packet of the guest's was not let out; no more often than is of use to anybody. With a number
  // but 0 the answer waits for release(), and not for long: as long as there is none, one can find
  // out who in the guest waits for it.
  std::function<void(const NetworkDenial&, std::uint32_t number)> denied;
  // The backend is gone: the guest's frames are dropped until there is another one.
  std::function<void()> lost;
};

class NetDevice final : public Device {
 public:
  // `io` must outlive the device, and be drained before the device is destroyed.
  NetDevice(NetOptions options, std::unique_ptr<NetBackend> backend, FrameFilter filter,
            AsyncIo& io);

  // Another backend of the same kind in the place of this one, or of one that is gone.
  void replace(std::unique_ptr<NetBackend> backend);
  // What rules for the host itself mean from now on.
  void set_host(std::vector<IpAddress> addresses) { filter_.set_host(std::move(addresses)); }
  // The guest gets the answer that waits under this number, if there is any.
  void release(std::uint32_t number);
  [[nodiscard]] const NetworkReport& report() const { return report_; }

  [[nodiscard]] std::uint32_t type() const override { return kDeviceNet; }
  [[nodiscard]] std::uint64_t features() const override { return features_; }
  [[nodiscard]] std::span<const std::uint16_t> max_queue_sizes() const override;
  [[nodiscard]] std::span<const std::byte> config() const override {
    return std::as_bytes(std::span(&config_, 1));
  }
  void activate(std::vector<Queue> queues, std::uint64_t features, DriverNotifier& driver) override;
  void on_queue(std::uint16_t index) override;
  void reset(std::function<void()> done) override;
  void pause(std::function<void()> done) override;
  void resume() override;

 private:
  // Of the guest's frames.
  void send();
  enum class Next : std::uint8_t { kGoOn, kWait };
  Next send_frame(DescriptorChain& chain);
  void refuse(std::span<const std::byte> head, std::uint64_t now);
  void release_overdue();
  // Of frames for the guest.
  void receive();
  bool receive_one();
  Next receive_in_place();
  Next receive_kept();
  bool take_buffers(std::size_t size);
  [[nodiscard]] bool is_hopeless() const;
  void give(const NetHeader& header, std::span<const std::byte> head, std::size_t size);
  void drop() { ++report_.dropped; }
  void write(std::size_t offset, std::span<const std::byte> bytes);
  void use_buffers(std::size_t size);

  void lose_backend();
  void drop_backend();
  void release_old_backends();
  void on_polled(std::int32_t result, std::uint16_t index);
  void on_time(std::int32_t result, std::uint16_t index);
  void broken();
  [[nodiscard]] bool active() const { return !queues_.empty() && !paused_; }
  [[nodiscard]] std::size_t largest_frame() const;

  NetOptions options_;
  std::unique_ptr<NetBackend> backend_;
  std::vector<std::unique_ptr<NetBackend>> old_backends_;  // while a descriptor of theirs is polled
  FrameFilter filter_;
  AsyncIo& io_;
  const std::uint64_t features_;
  NetConfig config_{};
  NetworkReport report_;

  std::vector<Queue> queues_;  // empty while idle
  std::uint64_t accepted_ = 0;
  DriverNotifier* driver_ = nullptr;
  bool paused_ = false;

  std::array<std::byte, kMaxHeaders> head_{};  // of the frame at hand, the device's own copy
  std::vector<iovec> pieces_;                  // likewise, kept for its memory
  std::optional<DescriptorChain> unsent_;      // for which the backend had no room
  bool paid_ = false;                          // it has had its tokens
  std::uint64_t busy_wait_;                    // nanoseconds
  TokenBucket send_tokens_;

  std::deque<DescriptorChain> buffers_;         // receive buffers that were taken and not used
  std::size_t room_ = 0;                        // bytes in them
  std::vector<Queue::Written> used_;            // of the frame at hand, kept for its memory
  std::optional<NetBackend::Received> kept_;    // a frame that waits for buffers
  std::deque<std::vector<std::byte>> answers_;  // our own frames, likewise
  // Answers that wait for release().
  struct Held {
    std::uint32_t number;
    std::uint64_t until;
    std::vector<std::byte> answer;
  };
  std::deque<Held> held_;
  std::uint32_t held_number_ = 0;
  TokenBucket receive_tokens_;
  TokenBucket denial_tokens_;

  Operation readable_;
  Operation writable_;
  Operation send_timer_;
  Operation receive_timer_;
  Operation held_timer_;
};

}  // namespace msb::virtio
