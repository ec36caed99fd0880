// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a network device between any guest and a backend that is full, silent, broken
// and gone. The input is how the card and its queues are set up, and steps. Whatever was done,
// frames go straight between guest memory and the backend and nowhere else, the device comes to
// rest, and after a reset frames go through in both directions as they are (hostile-input.md 9, 14,
// 16, 25). Seeds: tests/corpus/virtio-net.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "virtio/net/net_device.hpp"
#include "virtio/testing/frames.hpp"
#include "virtio/testing/fuzz_driver.hpp"
#include "virtio/testing/net_guest.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

constexpr std::uint64_t kTick = 20'000'000;  // nanoseconds, between two looks at the clock
constexpr std::uint64_t kRate = 1'000'000;   // bytes per second, where there is one
constexpr std::size_t kMostPieces = 8;       // of what the guest sends
constexpr GuestAddress kSend = FuzzRam::kStart + kPage;
constexpr GuestAddress kBuffers = FuzzRam::kStart + 2 * kPage;
constexpr std::uint32_t kGoodBuffer = 1536;  // the largest of a driver that does as it should
constexpr std::size_t kGoodBuffers = FuzzDriver::kGoodSize;

// What a backend does instead of its work.
enum class Answer : std::uint8_t { kHonest, kNot, kLost, kGone };
constexpr std::size_t kAnswers = 4;

// What the backend and the world around it know of each other.
struct Shared {
  const FuzzRam& ram;
  std::deque<Answer> answers;
  std::set<int> living;  // descriptors of backends

  Answer next() {
    if (answers.empty()) {
      return Answer::kHonest;
    }
    const Answer answer = answers.front();
    answers.pop_front();
    return answer;
  }
};

// A real one, which looks at what it is given.
class CheckedBackend final : public NetBackend {
 public:
  CheckedBackend(std::unique_ptr<NetBackend> backend, Shared& shared)
      : backend_(std::move(backend)), shared_(shared) {
    shared_.living.insert(descriptor());
  }
  CheckedBackend(const CheckedBackend&) = delete;
  CheckedBackend& operator=(const CheckedBackend&) = delete;
  ~CheckedBackend() override { shared_.living.erase(descriptor()); }

  [[nodiscard]] int descriptor() const override { return backend_->descriptor(); }
  [[nodiscard]] std::uint64_t features() const override { return backend_->features(); }
  void set_features(std::uint64_t features) override { backend_->set_features(features); }
  Sent send(std::span<const iovec> pieces) override {
    const std::size_t size = check(pieces);
    require(size >= sizeof(NetHeader) + kEthernetHeader && size <= sizeof(NetHeader) + kMaxFrame,
            "what is sent is a frame");
    switch (shared_.next()) {
      case Answer::kNot:
        return Sent::kFull;
      case Answer::kLost:
        return Sent::kLost;
      case Answer::kGone:
        return Sent::kGone;
      case Answer::kHonest:
        break;
    }
    return backend_->send(pieces);
  }
  Received receive() override {
    const auto outcome = other_outcome();
    return outcome ? Received{*outcome, {}, {}} : backend_->receive();
  }
  [[nodiscard]] bool receives_in_place() const override { return backend_->receives_in_place(); }
  InPlace receive_in_place(std::span<const iovec> pieces) override {
    check(pieces);
    const auto outcome = other_outcome();
    return outcome ? InPlace{*outcome, 0} : backend_->receive_in_place(pieces);
  }

 private:
  // The header and the first bytes of a frame, which are looked at, are the device's; the others
  // are in RAM. Gives their size.
  std::size_t check(std::span<const iovec> pieces) const {
    require(pieces.size() >= 2 && pieces[0].iov_len == sizeof(NetHeader) &&
                pieces[1].iov_len <= kMaxHeaders,
            "a frame has its header and its first bytes in front");
    std::size_t size = 0;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      size += pieces[i].iov_len;
      require(shared_.ram.holds(pieces[i]) == (i >= 2),
              "what is looked at is copied, and what is not goes to and from RAM");
    }
    return size;
  }
  std::optional<Outcome> other_outcome() {
    const Answer answer = shared_.next();
    if (answer == Answer::kHonest || answer == Answer::kLost) {
      return std::nullopt;
    }
    return answer == Answer::kGone ? Outcome::kGone : Outcome::kNothing;
  }

  std::unique_ptr<NetBackend> backend_;
  Shared& shared_;
};

Frame pattern(std::size_t size, std::size_t seed) {
  Frame frame(size);
  for (std::size_t i = 0; i < size; ++i) {
    frame[i] = static_cast<std::byte>(i * 7 + seed);
  }
  return frame;
}

class World {
 public:
  explicit World(FuzzInput& input)
      : setup_(input.byte()),
        sizes_(input.take<std::uint16_t>()),
        device_(options(), make_backend(), filter(), backend_.io),
        driver_(device_, ram_, backend_, kNetFeatureChecksum | kNetFeatureGuestChecksum,
                accepted()) {
    // The kernel polls what can be polled.
    backend_.io.answer = nullptr;
    driver_.activate(input);
  }

  void step(FuzzInput& input) {
    const std::size_t action = input.below(FuzzDriver::kActions + kActions);
    if (action == static_cast<std::size_t>(FuzzDriver::Action::kReset)) {
      reset();
      driver_.activate(input);
    } else if (action < FuzzDriver::kActions) {
      driver_.act(static_cast<FuzzDriver::Action>(action), input);
    } else {
      act(static_cast<Action>(action - FuzzDriver::kActions), input);
    }
    check_polls();
  }

  void finish() {
    settle();
    reset();
    settle();
    require(device_.report().sent >= taken_, "no frame is sent that is not counted");
    if (lost_ || torn_) {
      replace();
      settle();
    }
    require(stream_.empty(), "a frame is sent to its end");
    // With and without large frames in merged buffers.
    const std::array<std::uint64_t, 3> left_out{0, kSegments,
                                                kSegments | kNetFeatureMergeableBuffers};
    check_works((device_.features() & ~left_out[sizes_ % left_out.size()]) | kFeatureVersion1);
    backend_.io.drain();
  }

 private:
  enum class Action : std::uint8_t {
    kFrame,        // by the guest: where to, how large, pieces
    kGiveBuffers,  // by the guest: how many, of how many bytes
    kArrive,       // by the backend: a frame of how many bytes
    kBytes,        // by the backend: bytes
    kTake,         // by the backend: reads what there is
    kAnswer,       // by the backend: what it does next
    kReplace,
    kHangUp,   // by the backend, if it is a stream
    kPause,    // and what arrives meanwhile
    kRelease,  // which
  };
  static constexpr std::size_t kActions = 10;
  static constexpr std::uint64_t kSegments = kNetFeatureGuestTso4 | kNetFeatureGuestTso6;

  // --- the set-up: which backend, with little room, the rates, and two features ---

  [[nodiscard]] bool tap() const { return (setup_ & 1) != 0; }
  NetOptions options() {
    NetOptions options;
    options.mac = kGuestMac;
    options.receive_rate = (setup_ & 4) != 0 ? kRate : 0;
    options.send_rate = (setup_ & 8) != 0 ? kRate : 0;
    options.clock = [this] { return now_ += kTick; };
    options.denied = [this](const NetworkDenial&, std::uint32_t number) {
      last_held_ = std::max(last_held_, number);
    };
    options.lost = [this] {
      require(!lost_, "a backend is lost once");
      lost_ = true;
    };
    return options;
  }
  [[nodiscard]] std::uint64_t accepted() const {
    std::uint64_t features = kNetFeatureMac | kNetFeatureMtu;
    features |= (setup_ & 16) != 0 ? kNetFeatureMergeableBuffers : 0;
    features |= (setup_ & 32) != 0 ? kSegments : 0;
    return features & device_.features();
  }
  static FrameFilter filter() {
    NetworkRule deny;
    deny.destination = prefix("192.0.2.0", 24);
    std::vector<NetworkRule> rules = NetGuest::everything();
    rules.insert(rules.begin(), deny);
    return FrameFilter({.mac = kGuestMac,
                        .addresses = {prefix("10.0.2.15", 24), prefix("fd00::15", 64)},
                        .rules = std::move(rules),
                        .host = {},
                        .proxied = false});
  }
  std::unique_ptr<NetBackend> make_backend() {
    BackendPair pair = BackendPair::create(tap());
    constexpr int kLeast = 0;
    if ((setup_ & 2) != 0) {
      ::setsockopt(pair.backend->descriptor(), SOL_SOCKET, SO_SNDBUF, &kLeast, sizeof kLeast);
    }
    ours_ = std::move(pair.ours);
    return std::make_unique<CheckedBackend>(std::move(pair.backend), shared_);
  }

  // --- steps ---

  void act(Action action, FuzzInput& input) {
    switch (action) {
      case Action::kFrame:
        send_frame(input);
        break;
      case Action::kGiveBuffers: {
        const std::size_t count = input.below(8) + 1;
        const std::uint32_t size = input.take<std::uint16_t>() % (2 * kPage);
        for (std::size_t i = 0; i < count; ++i) {
          driver_.offer(kNetReceiveQueue, std::array{Buffer{kBuffers, size, true}}, 0);
        }
        driver_.kick(kNetReceiveQueue);
        break;
      }
      case Action::kArrive:
        arrive(pattern(input.take<std::uint16_t>() + kEthernetHeader, 1));
        break;
      case Action::kBytes: {
        const auto bytes = input.take_bytes(input.byte());
        if (!bytes.empty()) {
          torn_ = torn_ || !tap();
          ::send(ours_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        break;
      }
      case Action::kTake:
        take_all();
        break;
      case Action::kAnswer:
        for (std::size_t i = input.below(4) + 1; i > 0 && shared_.answers.size() < 64; --i) {
          shared_.answers.push_back(static_cast<Answer>(input.below(kAnswers)));
        }
        break;
      case Action::kReplace:
        replace();
        break;
      case Action::kHangUp:
        if (!tap()) {
          ours_.reset();
          torn_ = true;
        }
        break;
      case Action::kPause:
        pause();
        break;
      case Action::kRelease:
        device_.release(last_held_ - static_cast<std::uint32_t>(input.below(4)));
        break;
    }
  }

  // To where it may go or not, of TCP, UDP or anything; the payload is the same page as often as it
  // takes.
  void send_frame(FuzzInput& input) {
    const std::uint8_t shape = input.byte();
    const std::uint32_t payload = input.take<std::uint16_t>();
    const bool denied = (shape & 1) != 0;
    const Ipv4Fields fields{
        .source = (shape & 0x70) == 0x70 ? "10.0.2.16" : "10.0.2.15",
        .destination = denied ? "192.0.2.9" : "198.51.100.9",
        .protocol = (shape & 2) != 0 ? kIpTcp : std::uint8_t{99},
        .total =
            static_cast<int>(std::min<std::uint32_t>(65535, kIpv4Header + kTcpHeader + payload)),
    };
    const Frame frame = ethernet(kEtherTypeIpv4, ipv4(fields, tcp(40000, 443, kTcpSyn)));
    NetHeader header{};
    if ((shape & 4) != 0) {
      header = {.flags = kNetHeaderNeedsChecksum,
                .gso_type = kNetGsoTcp4,
                .header_length = 54,
                .gso_size = 1400,
                .checksum_start = kEthernetHeader + kIpv4Header,
                .checksum_offset = kTcpChecksum,
                .buffers = 0};
    }
    const auto size = static_cast<std::uint32_t>(sizeof header + frame.size());
    ram_.poke(kSend, header);
    ram_.poke(kSend + sizeof header, frame);
    const auto split = static_cast<std::uint32_t>(input.below(size + 1));
    std::vector<Buffer> buffers{{kSend, split, false}, {kSend + split, size - split, false}};
    for (std::uint32_t left = payload; left > 0 && buffers.size() < kMostPieces;) {
      const auto piece = std::min<std::uint32_t>(left, 3 * kPage);
      buffers.push_back({kBuffers, piece, false});
      left -= piece;
    }
    driver_.offer(kNetTransmitQueue, buffers, input.byte());
    driver_.kick(kNetTransmitQueue);
  }

  void arrive(const Frame& frame) {
    Frame bytes;
    if (tap()) {
      bytes.resize(sizeof(NetHeader));
    } else {
      append32(bytes, static_cast<std::uint32_t>(frame.size()));
    }
    append(bytes, frame);
    const ssize_t sent =
        ::send(ours_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    torn_ = torn_ || (!tap() && sent != std::ssize(bytes));
  }

  void replace() {
    lost_ = false;
    torn_ = false;
    stream_.clear();
    device_.replace(make_backend());
  }

  void pause() {
    bool done = false;
    device_.pause([&] { done = true; });
    require(done, "a card is at rest at once");
    MemoryWatch watch(ram_);
    arrive(pattern(100, 2));
    backend_.run(4);
    watch.check("guest memory is left alone in a pause");
    device_.resume();
    driver_.kick(kNetReceiveQueue);
    driver_.kick(kNetTransmitQueue);
  }

  void reset() {
    bool done = false;
    device_.reset([&] { done = true; });
    require(done, "nothing is under way on guest memory between calls");
    MemoryWatch watch(ram_);
    backend_.hold(0);
    arrive(pattern(200, 3));
    backend_.run(8);
    watch.check("guest memory is left alone once a reset is over");
  }

  // --- what must hold ---

  // FuzzDriver's, with somebody who reads.
  void settle() {
    constexpr std::size_t kRounds = 2000;  // far more than frames and timers take
    backend_.behave();
    shared_.answers.clear();
    std::size_t rounds = 0;
    while (take_all() + backend_.io.run_once() > 0) {
      require(++rounds < kRounds, "a card does not ask again and again");
    }
    check_polls();
  }

  void check_polls() const {
    for (const FakeIo::Request& request : backend_.io.requests()) {
      require(request.kind == FakeIo::Kind::kTimeout || shared_.living.contains(request.fd),
              "a backend lives as long as it is polled");
    }
  }

  // Frames that came out of the backend; gives how many bytes there were.
  std::size_t take_all() {
    static Frame bytes(sizeof(NetHeader) + kMaxFrame + 1);
    std::size_t count = 0;
    while (ours_.valid()) {
      const ssize_t got = ::recv(ours_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
      if (got <= 0) {
        break;
      }
      const auto size = static_cast<std::size_t>(got);
      count += size;
      if (tap()) {
        require(size >= sizeof(NetHeader) + kEthernetHeader, "a frame has its header");
        last_.assign(bytes.begin() + sizeof(NetHeader), bytes.begin() + got);
        ++taken_;
      } else {
        stream_.insert(stream_.end(), bytes.begin(), bytes.begin() + got);
        take_frames();
      }
    }
    return count;
  }
  void take_frames() {
    while (stream_.size() >= 4) {
      const std::size_t length = load32(stream_, 0);
      require(length >= kEthernetHeader && length <= kMaxFrame, "frames have their lengths");
      if (stream_.size() < 4 + length) {
        return;
      }
      const auto end = stream_.begin() + 4 + static_cast<std::ptrdiff_t>(length);
      last_.assign(stream_.begin() + 4, end);
      stream_.erase(stream_.begin(), end);
      ++taken_;
    }
  }

  // More frames in each direction than there are entries: none of them may be lost
  // (hostile-input.md 9). Buffers are of all sizes where they are merged.
  void check_works(std::uint64_t features) {
    const bool merge = (features & kNetFeatureMergeableBuffers) != 0;
    std::vector<DriverQueue> queues = driver_.start_well(features);
    given_.clear();
    while (receive(queues[kNetReceiveQueue], merge)) {
      // What arrived before, and waited.
    }
    for (std::size_t i = 0; i < FuzzDriver::kGoodSize + 2; ++i) {
      const Frame payload = pattern(i * 89 + sizes_ % 1000 % 460, i);
      const Frame frame =
          ethernet(kEtherTypeIpv4, ipv4({.destination = "198.51.100.9", .protocol = 99}, payload));
      last_.clear();
      send_well(queues[kNetTransmitQueue], frame);
      require(last_ == frame, "the backend gets what the guest sends");

      const Frame incoming = pattern(kEthernetHeader + (i * 97 + sizes_) % 1500, i);
      arrive(incoming);
      const auto received = receive(queues[kNetReceiveQueue], merge);
      require(received && *received == incoming, "the guest gets what arrives");
    }
    send_well(queues[kNetTransmitQueue], ethernet(kEtherTypeIpv4, ipv4({.destination = "192.0.2.9"},
                                                                       tcp(40000, 443, kTcpSyn))));
    const auto answer = receive(queues[kNetReceiveQueue], merge);
    require(answer && parse_packet(*answer, answer->size())->tcp_flags == (kTcpReset | kTcpAck),
            "the guest is told of what is not let out");
    require(driver_.notifier().resets_wanted == 0 && driver_.notifier().interrupts > 0,
            "a driver is told of its frames");
    reset();
    settle();
  }

  void send_well(DriverQueue& queue, const Frame& frame) {
    ram_.poke(kSend, NetHeader{});
    ram_.ram().put_bytes(kSend + sizeof(NetHeader), frame);
    queue.add(
        {{kSend, 1, false},
         {kSend + 1, static_cast<std::uint32_t>(sizeof(NetHeader) + frame.size() - 1), false}});
    driver_.kick(kNetTransmitQueue);
    settle();
    require(queue.take_used().has_value() && !queue.take_used(), "a frame is taken once");
  }

  // The next frame, after the ring was filled up.
  std::optional<Frame> receive(DriverQueue& queue, bool merge) {
    while (given_.size() < kGoodBuffers) {
      std::size_t slot = 0;
      while (std::ranges::any_of(given_, [&](const Given& each) { return each.slot == slot; })) {
        ++slot;
      }
      const auto size = merge ? sizeof(NetHeader) + (slot * 211 + sizes_) % 1500 : kGoodBuffer;
      const GuestAddress at = kBuffers + slot * kGoodBuffer;
      given_.push_back({queue.add({{at, static_cast<std::uint32_t>(size), true}}), slot});
    }
    driver_.kick(kNetReceiveQueue);
    settle();
    std::optional<Frame> bytes;
    for (int left = 1; left > 0; --left) {
      const auto used = queue.take_used();
      if (!used) {
        require(!bytes, "a frame has all of its buffers");
        return std::nullopt;
      }
      const auto given = std::ranges::find(given_, used->id, &Given::head);
      require(given != given_.end(), "a buffer comes back once");
      const GuestAddress at = kBuffers + given->slot * kGoodBuffer;
      given_.erase(given);
      Frame piece = ram_.ram().bytes(at, used->length);
      if (!bytes) {
        require(piece.size() >= sizeof(NetHeader), "the first buffer has the header");
        left = ram_.ram().get<NetHeader>(at).buffers;
        require(left > 0 && (merge || left == 1), "a frame has as many buffers as it may");
        bytes.emplace();
        piece.erase(piece.begin(), piece.begin() + sizeof(NetHeader));
      }
      append(*bytes, piece);
    }
    return bytes;
  }

  struct Given {
    std::uint32_t head;
    std::size_t slot;
  };

  const std::uint8_t setup_;
  const std::size_t sizes_;
  FuzzRam ram_;
  Shared shared_{ram_, {}, {}};
  FuzzBackend backend_{ram_};
  Fd ours_;  // the backend's other end
  std::uint64_t now_ = 0;
  bool lost_ = false;
  bool torn_ = false;  // what it says is no stream of frames any more
  std::uint32_t last_held_ = 0;
  Frame stream_;  // that came out and is no whole frame
  Frame last_;    // frame that came out
  std::uint64_t taken_ = 0;
  std::vector<Given> given_;
  NetDevice device_;
  FuzzDriver driver_;
};

}  // namespace
}  // namespace msb::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return msb::virtio::testing::run_world<msb::virtio::World>(data, size);
}
