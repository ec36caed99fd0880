// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a socket device between any guest and programs on the host that come, talk and
// go. Sockets answer late, short and with errors. The input is how the queues are set up, and
// steps. Whatever was done, the device comes to rest, a reset ends the programs' connections, and
// it works after that (hostile-input.md 9, 14, 17, 18, 25). Seeds: tests/corpus/virtio-vsock.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "virtio/testing/fuzz_driver.hpp"
#include "virtio/vsock/vsock_device.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

constexpr std::uint64_t kCid = 3;
constexpr std::uint32_t kOpenPort = 1000;  // and the next; what is behind them is refused
constexpr std::uint32_t kGuestPort = 5000;
constexpr std::uint32_t kFirstHostPort = 1U << 30;  // of connections that the host makes
constexpr std::size_t kMostPrograms = 8;
constexpr std::size_t kMostWritten = 4096;  // bytes, by a program at once
constexpr GuestAddress kPackets = FuzzRam::kStart + 4 * kPage;
constexpr std::size_t kSlots = 32;
constexpr GuestAddress kBuffers = FuzzRam::kStart + 5 * kPage;

class World {
 public:
  explicit World(FuzzInput& input) : driver_(device_, ram_, backend_) {
    backend_.check = [](const FakeIo::Request& request) {
      std::size_t length = 0;
      for (const iovec& piece : request.buffers) {
        length += piece.iov_len;
      }
      require(request.kind != FakeIo::Kind::kWrite || length <= VsockConnection::kBufferSize,
              "no more is kept for the host than its buffer");
    };
    driver_.activate(input);
  }

  void step(FuzzInput& input) {
    const std::size_t action = input.below(FuzzDriver::kActions + kActions);
    if (action < FuzzDriver::kActions) {
      driver_.act(static_cast<FuzzDriver::Action>(action), input);
    } else {
      act(static_cast<Action>(action - FuzzDriver::kActions), input);
    }
  }

  void finish() {
    driver_.settle();
    driver_.reset();
    for (const Fd& program : programs_) {
      require(at_end(program), "a reset ends the host's connections");
    }
    programs_.clear();
    check_works();
    driver_.reset();
  }

 private:
  enum class Action : std::uint8_t {
    kPacket,       // by the guest: see send_packet()
    kGiveBuffers,  // by the guest: how many, of how many bytes
    kConnect,      // by a program: guest port
    kTalk,         // by a program: which, how many bytes
    kListen,       // by a program: which
    kStopTalking,  // by a program: which
    kGo,           // by a program: which
  };
  static constexpr std::size_t kActions = 7;

  void act(Action action, FuzzInput& input) {
    switch (action) {
      case Action::kPacket:
        send_packet(input);
        break;
      case Action::kGiveBuffers: {
        const std::size_t count = input.below(8) + 1;
        const std::uint32_t size = input.take<std::uint16_t>() % (2 * kPage);
        for (std::size_t i = 0; i < count; ++i) {
          driver_.offer(kVsockRxQueue, std::array{Buffer{kBuffers, size, true}}, 0);
        }
        break;
      }
      case Action::kConnect: {
        const auto port = static_cast<std::uint32_t>(kGuestPort + input.below(3));
        if (programs_.size() < kMostPrograms) {
          device_.connect(make_program(), port);
        }
        break;
      }
      case Action::kTalk: {
        const Fd* program = pick(input);
        const std::size_t size = input.take<std::uint16_t>() % kMostWritten;
        if (program != nullptr) {
          static constexpr std::array<std::byte, kMostWritten> kBytes{};
          ::send(program->get(), kBytes.data(), size, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        break;
      }
      case Action::kListen:
        if (const Fd* program = pick(input)) {
          at_end(*program);
        }
        break;
      case Action::kStopTalking:
        if (const Fd* program = pick(input)) {
          ::shutdown(program->get(), SHUT_WR);
        }
        break;
      case Action::kGo:
        if (const Fd* program = pick(input)) {
          programs_.erase(programs_.begin() + (program - programs_.data()));
        }
        break;
    }
  }

  // A packet that is nearly one: operation, ports, flags, what is wrong with it, window, what the
  // guest has forwarded, payload, descriptors.
  void send_packet(FuzzInput& input) {
    VsockHeader header{};
    header.src_cid = kCid;
    header.dst_cid = kVsockHostCid;
    header.op = static_cast<VsockOp>(input.below(9));
    const std::size_t port = input.below(8);
    header.dst_port =
        static_cast<std::uint32_t>(port < 4 ? kOpenPort + port : kFirstHostPort + port - 4);
    header.src_port = static_cast<std::uint32_t>(kGuestPort + input.below(3));
    header.type = kVsockTypeStream;
    header.flags = input.byte();
    const std::uint8_t wrong = input.byte();
    const std::uint8_t window = input.byte();
    header.buffer_allocation = window < 0x80   ? 1U << (window % 24)
                               : window < 0xe0 ? 0
                                               : input.take<std::uint32_t>();
    const std::uint8_t forwarded = input.byte();
    header.forward_count = forwarded < 0xe0 ? forwarded * 64U : input.take<std::uint32_t>();
    const std::uint32_t payload =
        header.op == VsockOp::kReadWrite ? input.take<std::uint16_t>() : 0;
    header.length = payload;
    if (wrong < 0x20) {
      header.length = input.take<std::uint32_t>();
    } else if (wrong < 0x28) {
      header.type = input.byte();
    } else if (wrong < 0x30) {
      header.dst_cid = input.byte();
    } else if (wrong < 0x38) {
      header.src_cid = input.take<std::uint64_t>();
    }
    const GuestAddress at = kPackets + next_slot_++ % kSlots * sizeof header;
    ram_.poke(at, header);
    // The payload in one page, as often as it takes.
    const auto split = static_cast<std::uint32_t>(input.below(sizeof header + 1));
    const auto rest = static_cast<std::uint32_t>(sizeof header) - split;
    std::vector<Buffer> buffers{{at, split, false}, {at + split, rest, false}};
    for (std::uint32_t left = payload; left > 0;) {
      const auto piece = std::min<std::uint32_t>(left, 3 * kPage);
      buffers.push_back({kBuffers, piece, false});
      left -= piece;
    }
    driver_.offer(kVsockTxQueue, buffers, input.byte());
  }

  // Gives the device's end.
  Fd make_program() {
    std::array<int, 2> ends{};
    require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0,
            "the host has two more descriptors");
    programs_.emplace_back(ends[1]);
    return Fd(ends[0]);
  }
  const Fd* pick(FuzzInput& input) {
    const std::size_t which = input.byte();
    return programs_.empty() ? nullptr : &programs_[which % programs_.size()];
  }
  // Reads what is there; whether that is all there will ever be.
  static bool at_end(const Fd& program) {
    static std::array<std::byte, std::size_t{64} * 1024> bytes;
    ssize_t got = 0;
    do {
      got = ::recv(program.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    } while (got > 0);
    return got == 0 || errno == ECONNRESET;
  }

  // Connections one after the other, more packets than there are entries: none of them may be lost
  // (hostile-input.md 9).
  void check_works() {
    auto queues = driver_.start_well();
    for (std::uint32_t i = 0; i < 4; ++i) {
      const VsockConnectionKey key{kOpenPort, kGuestPort + i};
      send_well(queues, VsockOp::kRequest, key, {});
      expect_packet(queues, VsockOp::kResponse, key);
      require(programs_.size() == 1, "a listening program is connected to");
      for (int round = 0; round < 4; ++round) {
        send_well(queues, VsockOp::kReadWrite, key, "from the guest");
        std::array<char, 64> text{};
        const ssize_t got = ::recv(programs_[0].get(), text.data(), text.size(), MSG_DONTWAIT);
        require(got > 0 && std::string_view(text.data(), static_cast<std::size_t>(got)) ==
                               "from the guest",
                "the host gets what the guest sends");
        require(::send(programs_[0].get(), "from the host", 13, MSG_NOSIGNAL) == 13,
                "a program can talk");
        backend_.run(8);
        expect_packet(queues, VsockOp::kReadWrite, key, "from the host");
      }
      send_well(queues, VsockOp::kReset, key, {});
      require(at_end(programs_[0]), "the guest's reset is the end for the host");
      programs_.clear();
    }
    require(driver_.notifier().resets_wanted == 0 && driver_.notifier().interrupts > 0,
            "a driver is told of its packets");
  }

  void send_well(std::vector<DriverQueue>& queues, VsockOp op, VsockConnectionKey key,
                 std::string_view payload) {
    const VsockHeader header{.src_cid = kCid,
                             .dst_cid = kVsockHostCid,
                             .src_port = key.guest_port,
                             .dst_port = key.host_port,
                             .length = static_cast<std::uint32_t>(payload.size()),
                             .type = kVsockTypeStream,
                             .op = op,
                             .flags = 0,
                             .buffer_allocation = 1 << 20,
                             .forward_count = 0};
    ram_.poke(kPackets, header);
    ram_.poke(kPackets + sizeof header, std::as_bytes(std::span(payload)));
    queues[kVsockTxQueue].add(
        {{kPackets, static_cast<std::uint32_t>(sizeof header + payload.size()), false}});
    queues[kVsockRxQueue].add({{kBuffers, kPage, true}});
    driver_.kick(kVsockTxQueue);
    driver_.kick(kVsockRxQueue);
    backend_.run(8);
    require(queues[kVsockTxQueue].take_used().has_value(), "a packet is taken");
  }

  void expect_packet(std::vector<DriverQueue>& queues, VsockOp op, VsockConnectionKey key,
                     std::string_view payload = {}) {
    const auto used = queues[kVsockRxQueue].take_used();
    require(used.has_value(), "the guest is answered after a reset");
    const auto header = ram_.ram().get<VsockHeader>(kBuffers);
    require(header.op == op && header.src_port == key.host_port &&
                header.dst_port == key.guest_port && header.length == payload.size() &&
                used->length == sizeof header + payload.size(),
            "a packet is what it should be");
    require(std::ranges::equal(ram_.ram().bytes(kBuffers + sizeof header, payload.size()),
                               std::as_bytes(std::span(payload))),
            "the guest gets what the host sends");
  }

  FuzzRam ram_;
  FuzzBackend backend_{ram_};
  std::vector<Fd> programs_;  // the host's ends
  VsockDevice device_{
      kCid, backend_.io, [this](std::uint32_t port) -> std::optional<Fd> {
        if (port < kOpenPort || port > kOpenPort + 1 || programs_.size() >= kMostPrograms) {
          return std::nullopt;
        }
        return make_program();
      }};
  FuzzDriver driver_;
  std::size_t next_slot_ = 0;
};

}  // namespace
}  // namespace msb::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return msb::virtio::testing::run_world<msb::virtio::World>(data, size);
}
