// SPDX-License-Identifier: Apache-2.0
// Streams of some megabytes through the device on the real event loop: the host's programs write
// and read in chunks of random sizes, and the guest sends back what it gets.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/loop.hpp"
#include "virtio/testing/vsock_guest.hpp"

namespace msb::virtio {
namespace {

using testing::VsockGuest;

constexpr std::size_t kStreamSize = 3 << 20;
constexpr std::uint32_t kGuestRoom = 48 * 1024;

std::byte content(std::size_t offset) {
  return static_cast<std::byte>(offset * 31 + offset / 4093);
}

// Two threads around the host's end of a connection.
class HostProgram {
 public:
  HostProgram(Fd socket, std::string greeting, std::uint32_t seed)
      : socket_(std::move(socket)),
        writer_([this, seed] { write(seed); }),
        reader_([this, greeting = std::move(greeting), seed] { read(greeting, seed + 1); }) {}
  HostProgram(const HostProgram&) = delete;
  HostProgram& operator=(const HostProgram&) = delete;
  ~HostProgram() {
    ::shutdown(socket_.get(), SHUT_RDWR);
    join();
  }
  void join() {
    for (std::thread* thread : {&writer_, &reader_}) {
      if (thread->joinable()) {
        thread->join();
      }
    }
  }
  // How much came back as it was sent; complete only when the end of the stream came behind it.
  std::atomic<std::size_t> received = 0;
  std::atomic<bool> ended = false;

 private:
  void write(std::uint32_t seed) {
    std::minstd_rand random(seed);
    std::vector<std::byte> chunk;
    for (std::size_t at = 0; at < kStreamSize;) {
      chunk.resize(std::min<std::size_t>(1 + random() % 40'000, kStreamSize - at));
      for (std::size_t i = 0; i < chunk.size(); ++i) {
        chunk[i] = content(at + i);
      }
      for (std::size_t done = 0; done < chunk.size();) {
        const ssize_t count =
            ::send(socket_.get(), &chunk[done], chunk.size() - done, MSG_NOSIGNAL);
        if (count <= 0) {
          return;
        }
        done += static_cast<std::size_t>(count);
      }
      at += chunk.size();
    }
    ::shutdown(socket_.get(), SHUT_WR);
  }
  void read(const std::string& greeting, std::uint32_t seed) {
    std::minstd_rand random(seed);
    std::array<std::byte, 50'000> chunk;
    std::size_t greeted = 0;
    while (true) {
      const ssize_t count = ::recv(socket_.get(), chunk.data(), 1 + random() % chunk.size(), 0);
      if (count <= 0) {
        ended = count == 0;
        return;
      }
      for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
        if (greeted < greeting.size()) {
          if (chunk[i] != static_cast<std::byte>(greeting[greeted++])) {
            return;
          }
        } else if (chunk[i] != content(received)) {
          return;
        } else {
          ++received;
        }
      }
    }
  }

  Fd socket_;
  std::thread writer_, reader_;
};

// Sends back what comes, within the credit that it has, and gives credit back as it does.
class EchoGuest {
 public:
  EchoGuest(Loop& loop, VsockDevice::Accept accept) : loop_(loop), guest(loop, std::move(accept)) {
    guest.allocation = kGuestRoom;
    guest.notifier.on_used_buffers = [this] { wake(); };
    guest.give_buffers(32);
  }
  void connect(VsockConnectionKey key) { guest.send(VsockOp::kRequest, key); }
  void wake() {
    if (!std::exchange(woken_, true)) {
      loop_.post([this] { run(); });
    }
  }

 private:
  struct Stream {
    std::deque<std::byte> waiting;
    std::uint32_t forwarded = 0, told = 0, sent = 0, device_forwarded = 0;
    bool ended = false, answered = false;
  };

  std::uint32_t pick(std::uint32_t below) { return static_cast<std::uint32_t>(random_() % below); }

  void run() {
    woken_ = false;
    guest.reclaim();
    for (auto& packet : guest.receive()) {
      handle(packet);
    }
    guest.give_buffers(32 - (256 - guest.receive_queue.free()), 64 + pick(8000));
    for (auto& [key, stream] : streams_) {
      echo(key, stream);
    }
  }

  void handle(const VsockGuest::Packet& packet) {
    const VsockConnectionKey key{packet.host_port, packet.guest_port};
    if (packet.op == VsockOp::kReset) {
      streams_.erase(key);
      ++closed;
      if (on_closed) {
        on_closed();
      }
      return;
    }
    Stream& stream = streams_[key];
    stream.device_forwarded = packet.forward_count;
    if (packet.op == VsockOp::kRequest) {
      on_request(key);
      guest.forwarded = 0;
      guest.add_packet(guest.header_of(VsockOp::kResponse, key));
      guest.kick();
    } else if (packet.op == VsockOp::kReadWrite) {
      stream.waiting.insert(stream.waiting.end(), packet.payload.begin(), packet.payload.end());
      if (stream.waiting.size() > kGuestRoom) {
        overrun = true;
      }
    } else if (packet.op == VsockOp::kShutdown) {
      stream.ended = true;
    }
  }

  void echo(VsockConnectionKey key, Stream& stream) {
    while (!stream.waiting.empty() && guest.send_queue.free() > 4) {
      const std::uint32_t room =
          VsockConnection::kBufferSize - (stream.sent - stream.device_forwarded);
      const std::size_t size = std::min<std::size_t>({stream.waiting.size(), room, 1 + pick(9000)});
      if (size == 0) {
        break;
      }
      const auto end = stream.waiting.begin() + static_cast<std::ptrdiff_t>(size);
      const std::vector<std::byte> chunk(stream.waiting.begin(), end);
      stream.waiting.erase(stream.waiting.begin(), end);
      stream.sent += static_cast<std::uint32_t>(size);
      stream.forwarded += static_cast<std::uint32_t>(size);
      guest.forwarded = stream.told = stream.forwarded;
      const std::array<std::uint32_t, 2> pieces{pick(60), pick(60)};
      guest.add_packet(guest.header_of(VsockOp::kReadWrite, key, static_cast<std::uint32_t>(size)),
                       chunk, pieces);
    }
    if (stream.ended && stream.waiting.empty() && !std::exchange(stream.answered, true)) {
      guest.forwarded = stream.forwarded;
      guest.add_packet(
          guest.header_of(VsockOp::kShutdown, key, 0, kVsockShutdownSend | kVsockShutdownReceive));
    }
    guest.kick();
  }

  Loop& loop_;
  bool woken_ = false;
  std::mt19937 random_{99};
  std::map<VsockConnectionKey, Stream> streams_;

 public:
  VsockGuest guest;
  int closed = 0;
  bool overrun = false;
  std::function<void()> on_closed;
  std::function<void(VsockConnectionKey)> on_request;
};

TEST_CASE("megabytes pass both ways, whole and in order, through connections of either side") {
  ::signal(SIGPIPE, SIG_IGN);  // as the machine does
  auto loop = Loop::create();
  REQUIRE(loop);
  std::vector<std::unique_ptr<HostProgram>> programs;
  const auto make_pair = [] {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    return std::pair(Fd(ends[0]), Fd(ends[1]));
  };
  EchoGuest echo(**loop, [&](std::uint32_t) -> std::optional<Fd> {
    auto [device_end, host] = make_pair();
    programs.push_back(std::make_unique<HostProgram>(std::move(host), "", 1));
    return std::move(device_end);
  });
  auto [device_end, connecting] = make_pair();
  echo.on_request = [&](VsockConnectionKey key) {
    programs.push_back(std::make_unique<HostProgram>(
        std::move(connecting), "OK " + std::to_string(key.host_port) + "\n", 5));
  };
  echo.on_closed = [&] {
    if (echo.closed == 2) {
      (*loop)->stop();
    }
  };
  bool late = false;
  Operation deadline([&](std::int32_t result) {
    late = result == -ETIME;
    (*loop)->stop();
  });
  (*loop)->timeout(60'000'000'000, deadline);

  echo.guest.device.connect(std::move(device_end), 7);
  echo.connect({1000, 8});
  REQUIRE((*loop)->run());
  (*loop)->drain();
  CHECK_FALSE(late);
  CHECK_FALSE(echo.overrun);
  if (late) {
    echo.guest.device.reset([] {});  // the sockets close, the threads end
  }
  REQUIRE(programs.size() == 2);
  for (const auto& program : programs) {
    program->join();
    CHECK(program->received.load() == kStreamSize);
    CHECK(program->ended.load());
  }
  CHECK(echo.guest.notifier.resets_wanted == 0);
}

}  // namespace
}  // namespace msb::virtio
