// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a shared tree between any guest and files that answer late, short and with
// errors. The input is how the queues are set up, and steps. Whatever was done, only the tree's
// files are read, within what they are, the device comes to rest, and it works after a reset
// (hostile-input.md 9 to 14, 30). Seeds: tests/corpus/virtio-fs.
#include <linux/fuse.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "virtio/fs/fs_device.hpp"
#include "virtio/fs/fuse_server.hpp"
#include "virtio/fs/shared_tree.hpp"
#include "virtio/testing/fuzz_driver.hpp"

namespace msb::virtio {
namespace {

using namespace testing;

constexpr std::size_t kFileSize = 10'000;
constexpr GuestAddress kRequests = FuzzRam::kStart + 4 * kPage;
constexpr std::size_t kRequestRoom = 128;  // bytes: the longest that ask() writes
constexpr std::size_t kSlots = 16;
constexpr GuestAddress kReplies = FuzzRam::kStart + 5 * kPage;

const std::vector<std::byte>& file_bytes() {
  static const std::vector<std::byte> bytes = [] {
    std::vector<std::byte> pattern(kFileSize);
    for (std::size_t i = 0; i < pattern.size(); ++i) {
      pattern[i] = static_cast<std::byte>(i * 7 + i / 256);
    }
    return pattern;
  }();
  return bytes;
}

class World {
 public:
  explicit World(FuzzInput& input)
      : device_("shared", make_server(), backend_.io), driver_(device_, ram_, backend_) {
    backend_.check = [this](const FakeIo::Request& request) {
      if (request.kind == FakeIo::Kind::kOffload) {
        return;
      }
      std::uint64_t length = 0;
      for (const iovec& piece : request.buffers) {
        length += piece.iov_len;
      }
      require(request.kind == FakeIo::Kind::kRead && request.fd == file_, "files are only read");
      require(request.offset < kFileSize && length <= kFileSize - request.offset,
              "a file is read where it has bytes");
    };
    driver_.activate(input);
  }

  void step(FuzzInput& input) {
    const std::size_t action = input.below(FuzzDriver::kActions + 1);
    if (action < FuzzDriver::kActions) {
      driver_.act(static_cast<FuzzDriver::Action>(action), input);
    } else {
      ask(input);
    }
  }

  void finish() {
    driver_.settle();
    driver_.reset();
    check_works();
    driver_.reset();
  }

 private:
  FuseServer make_server() {
    static const Fd file = [] {
      Fd made(::memfd_create("file", MFD_CLOEXEC));
      require(
          ::write(made.get(), file_bytes().data(), kFileSize) == static_cast<ssize_t>(kFileSize),
          "the host has room for a small file");
      return made;
    }();
    SharedTree tree;
    Fd copy(::dup(file.get()));
    file_ = copy.get();
    require(tree.add_file("data", std::move(copy)).has_value() &&
                tree.add_text("folder/settings", std::string(300, 's')).has_value() &&
                tree.add_text("folder/empty", "").has_value(),
            "a tree is made");
    return {std::move(tree), OwnerRule(0, 0), ShareLimits{}};
  }

  // A request that is nearly one: queue, operation, node, what its length is off by, its argument
  // (up to 64 bytes, or offset and size of a read), and the room for an answer.
  void ask(FuzzInput& input) {
    constexpr std::array<std::uint32_t, 16> kOperations{
        FUSE_READ,     FUSE_READDIR, FUSE_LOOKUP, FUSE_GETATTR, FUSE_INIT,         FUSE_STATFS,
        FUSE_READLINK, FUSE_FORGET,  FUSE_OPEN,   FUSE_WRITE,   FUSE_BATCH_FORGET, FUSE_INTERRUPT,
        FUSE_DESTROY,  FUSE_CREATE,  FUSE_FLUSH,  FUSE_SETXATTR};
    const std::size_t queue = input.below(2);
    const std::size_t operation = input.below(kOperations.size() + 1);
    fuse_in_header header{};
    header.opcode =
        operation < kOperations.size() ? kOperations.at(operation) : input.take<std::uint32_t>();
    const std::uint8_t node = input.byte();
    header.nodeid = node < 0xf0 ? node % 8U : input.take<std::uint64_t>();
    header.unique = ++unique_;
    const auto wrong = static_cast<std::int8_t>(input.byte());
    std::vector<std::byte> body;
    if (header.opcode == FUSE_READ || header.opcode == FUSE_READDIR) {
      fuse_read_in read{};
      const auto offset = input.take<std::uint16_t>();
      read.offset = offset < 0xff00 ? offset : ~std::uint64_t{0xff} | offset;
      read.size = std::uint32_t{input.take<std::uint16_t>()} << input.below(17);
      const auto bytes = std::as_bytes(std::span(&read, 1));
      body.assign(bytes.begin(), bytes.end());
    } else {
      const auto bytes = input.take_bytes(input.below(kRequestRoom - sizeof header));
      body.assign(bytes.begin(), bytes.end());
    }
    const auto size = static_cast<std::uint32_t>(sizeof header + body.size());
    header.len = size + static_cast<std::uint32_t>(wrong / 64);
    const GuestAddress at = kRequests + next_slot_++ % kSlots * kRequestRoom;
    ram_.poke(at, header);
    ram_.poke(at + sizeof header, body);
    std::vector<Buffer> buffers{{at, size, false}};
    const std::vector<Buffer> room = FuzzDriver::take_buffers(input, true);
    buffers.insert(buffers.end(), room.begin(), room.end());
    driver_.offer(queue, buffers, input.byte());
  }

  struct Answer {
    std::int32_t error;
    std::vector<std::byte> payload;
  };
  Answer answer(DriverQueue& queue, std::uint32_t operation, std::uint64_t node,
                std::span<const std::byte> body) {
    const fuse_in_header header{.len = static_cast<std::uint32_t>(sizeof header + body.size()),
                                .opcode = operation,
                                .unique = ++unique_,
                                .nodeid = node,
                                .uid = 0,
                                .gid = 0,
                                .pid = 0,
                                .total_extlen = 0,
                                .padding = 0};
    ram_.poke(kRequests, header);
    ram_.poke(kRequests + sizeof header, body);
    queue.add({{kRequests, header.len, false}, {kReplies, kPage + sizeof(fuse_out_header), true}});
    driver_.kick(kFsFirstRequestQueue);
    backend_.run(8);
    const auto used = queue.take_used();
    require(used.has_value(), "a good request is answered after a reset");
    const auto out = ram_.ram().get<fuse_out_header>(kReplies);
    require(out.unique == unique_ && out.len == used->length && out.len >= sizeof out,
            "an answer is that of its request");
    return {out.error, ram_.ram().bytes(kReplies + sizeof out, out.len - sizeof out)};
  }

  // More requests than there are entries: none of them may be lost (hostile-input.md 9).
  void check_works() {
    auto queues = driver_.start_well();
    DriverQueue& queue = queues[kFsFirstRequestQueue];
    for (std::size_t i = 0; i <= FuzzDriver::kGoodSize; ++i) {
      const std::string name("data\0", 5);
      const Answer found =
          answer(queue, FUSE_LOOKUP, SharedTree::kRoot, std::as_bytes(std::span(name)));
      require(found.error == 0 && found.payload.size() == sizeof(fuse_entry_out),
              "a name is looked up");
      fuse_entry_out entry{};
      std::memcpy(&entry, found.payload.data(), sizeof entry);
      fuse_read_in read{};
      read.offset = i * 500;
      read.size = kPage;
      const Answer got = answer(queue, FUSE_READ, entry.nodeid, std::as_bytes(std::span(&read, 1)));
      const auto expected = std::span(file_bytes())
                                .subspan(read.offset)
                                .first(std::min<std::size_t>(kPage, kFileSize - read.offset));
      require(got.error == 0 && std::ranges::equal(got.payload, expected), "a file is read");
    }
    require(driver_.notifier().resets_wanted == 0 && driver_.notifier().interrupts > 0,
            "a driver is told of its answers");
  }

  int file_ = -1;  // the device's own descriptor
  FuzzRam ram_;
  FuzzBackend backend_{ram_};
  FsDevice device_;
  FuzzDriver driver_;
  std::uint64_t unique_ = 0;
  std::size_t next_slot_ = 0;
};

}  // namespace
}  // namespace msb::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return msb::virtio::testing::run_world<msb::virtio::World>(data, size);
}
