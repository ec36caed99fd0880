// SPDX-License-Identifier: Apache-2.0
// The device over queues in plain memory, with a backend that is short, late or failing
// (hostile-input.md 9, 10, 11, 13, 14).
#include "virtio/fs/fs_device.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/fake_io.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/recording_notifier.hpp"

namespace msb::virtio {
namespace {

using testing::Buffer;
using testing::DriverQueue;
using testing::FakeIo;
using testing::GuestRam;
using testing::kPage;
using testing::RecordingNotifier;

constexpr std::size_t kFileSize = 3 * kPage + 100;
constexpr std::uint64_t kText = 2;
constexpr std::uint64_t kFile = 3;

std::byte content(std::size_t offset) {
  return static_cast<std::byte>(offset * 7 + offset / 251);
}

struct Reply {
  fuse_out_header header{};
  std::vector<std::byte> payload;
  std::uint32_t used = 0;
};

struct Fixture {
  GuestRam ram{64 * kPage};
  DriverQueue priority{ram, GuestRam::kStart, 8};
  DriverQueue requests{ram, GuestRam::kStart + kPage, 32};
  RecordingNotifier notifier;
  FakeIo io;
  FsDevice device{"share", make_server(), io};

  static constexpr GuestAddress kIn = GuestRam::kStart + 8 * kPage;
  static constexpr GuestAddress kOut = GuestRam::kStart + 16 * kPage;

  Fixture() { activate(); }
  ~Fixture() { io.drain(); }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  static FuseServer make_server() {
    SharedTree tree;
    Fd file(::memfd_create("shared", MFD_CLOEXEC));
    std::vector<std::byte> bytes(kFileSize);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = content(i);
    }
    REQUIRE(::write(file.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    REQUIRE(tree.add_text("text", "hello world"));
    REQUIRE(tree.add_file("file", std::move(file)));
    return {std::move(tree), OwnerRule(0, 0), ShareLimits{}};
  }
  void activate() {
    device.activate({priority.device_side(), requests.device_side()}, kFeatureVersion1, notifier);
  }

  template <typename T>
  std::uint32_t put_request(std::uint32_t opcode, std::uint64_t node, const T& body,
                            GuestAddress at = kIn) {
    fuse_in_header header{};
    header.len = sizeof header + sizeof body;
    header.opcode = opcode;
    header.unique = 0x1122'3344'5566'7788;
    header.nodeid = node;
    ram.put(at, header);
    ram.put(at + sizeof header, body);
    return header.len;
  }
  // Makes a READ available; the reply goes to kOut.
  void offer_read(std::uint64_t node, std::uint64_t offset, std::uint32_t size,
                  std::uint32_t room) {
    fuse_read_in in{};
    in.offset = offset;
    in.size = size;
    const std::uint32_t length = put_request(FUSE_READ, node, in);
    if (room > 16) {
      requests.add({{kIn, length, false}, {kOut, 16, true}, {kOut + 16, room - 16, true}});
    } else {
      requests.add({{kIn, length, false}, {kOut, room, true}});
    }
  }
  std::optional<Reply> take_reply() {
    const auto used = requests.take_used();
    if (!used) {
      return std::nullopt;
    }
    Reply reply;
    reply.used = used->length;
    if (used->length >= sizeof reply.header) {
      reply.header = ram.get<fuse_out_header>(kOut);
      CHECK(reply.header.len == used->length);
      CHECK(reply.header.unique == 0x1122'3344'5566'7788);
      reply.payload = ram.bytes(kOut + sizeof reply.header, used->length - sizeof reply.header);
    }
    return reply;
  }
  Reply read(std::uint64_t node, std::uint64_t offset, std::uint32_t size,
             std::uint32_t room = 8 * kPage) {
    offer_read(node, offset, size, room);
    device.on_queue(kFsFirstRequestQueue);
    io.run();
    auto reply = take_reply();
    REQUIRE(reply);
    return *reply;
  }
  static void check_content(const Reply& reply, std::size_t offset, std::size_t size) {
    CHECK(reply.header.error == 0);
    REQUIRE(reply.payload.size() == size);
    for (std::size_t i = 0; i < size; ++i) {
      if (reply.payload[i] != content(offset + i)) {
        FAIL("byte ", offset + i, " is wrong");
      }
    }
  }
};

TEST_CASE_FIXTURE(Fixture, "the configuration has the tag and one request queue") {
  CHECK(device.type() == 26);
  CHECK(device.features() == 0);
  REQUIRE(device.config().size() == 40);
  FsConfig config;
  std::memcpy(&config, device.config().data(), sizeof config);
  CHECK(std::string(config.tag) == "share");
  CHECK(config.request_queues == 1);
  const FsDevice longer(std::string(50, 'x'), {SharedTree(), OwnerRule(0, 0), ShareLimits{}}, io);
  std::memcpy(&config, longer.config().data(), sizeof config);
  CHECK(std::string(config.tag, sizeof config.tag) == std::string(36, 'x'));
  CHECK(config.request_queues == 1);
}

TEST_CASE_FIXTURE(Fixture, "a file is read into the guest's buffers, from any offset to its end") {
  check_content(read(kFile, 0, kFileSize), 0, kFileSize);
  check_content(read(kFile, 1, 100), 1, 100);
  check_content(read(kFile, kFileSize - 1, 4096), kFileSize - 1, 1);
  check_content(read(kFile, 0, 4096, 16 + 1000), 0, 1000);
  CHECK(read(kFile, kFileSize, 4096).used == sizeof(fuse_out_header));
  CHECK(read(kFile, ~std::uint64_t{0}, 0xffff'ffff).used == sizeof(fuse_out_header));
  CHECK(notifier.interrupts == 6);
  CHECK(notifier.resets_wanted == 0);
}

TEST_CASE_FIXTURE(Fixture, "a text is read like a file") {
  const Reply reply = read(kText, 6, 100);
  REQUIRE(reply.payload.size() == 5);
  CHECK(std::memcmp(reply.payload.data(), "world", 5) == 0);
  CHECK(read(kText, 11, 100).payload.empty());
}

TEST_CASE_FIXTURE(Fixture, "request and reply may be split over descriptors at any byte") {
  fuse_read_in in{};
  in.offset = 5;
  in.size = 50;
  const std::uint32_t length = put_request(FUSE_READ, kFile, in);
  constexpr std::uint32_t kReply = 16 + 50;
  for (std::uint32_t split = 0; split <= length; ++split) {
    requests.add({{kIn, split, false}, {kIn + split, length - split, false}, {kOut, kReply, true}});
    device.on_queue(kFsFirstRequestQueue);
    io.run();
    check_content(*take_reply(), 5, 50);
  }
  for (std::uint32_t split = 0; split <= kReply; ++split) {
    requests.add({{kIn, length, false}, {kOut, split, true}, {kOut + split, kReply - split, true}});
    device.on_queue(kFsFirstRequestQueue);
    io.run();
    check_content(*take_reply(), 5, 50);
  }
  // One byte per descriptor, as far as the ring goes.
  std::vector<Buffer> buffers{{kIn, length, false}};
  for (std::uint32_t i = 0; i < 30; ++i) {
    buffers.push_back({kOut + i, 1, true});
  }
  requests.add(buffers);
  device.on_queue(kFsFirstRequestQueue);
  io.run();
  check_content(*take_reply(), 5, 14);
}

TEST_CASE_FIXTURE(Fixture, "a reply without room goes back with length 0 and nothing written") {
  for (const std::uint32_t room : {0U, 1U, 15U}) {
    CAPTURE(room);
    CHECK(read(kFile, 0, 100, room).used == 0);
    CHECK(ram.get<std::uint64_t>(kOut) == 0);
  }
  CHECK(read(kFile, 0, 100, 16).used == 16);  // the header alone
  // A reply of a fixed size that does not fit is none.
  const std::uint32_t length = put_request(FUSE_GETATTR, kFile, fuse_getattr_in{});
  requests.add({{kIn, length, false}, {kOut, 16 + sizeof(fuse_attr_out) - 1, true}});
  device.on_queue(kFsFirstRequestQueue);
  CHECK(take_reply()->used == 0);
}

TEST_CASE_FIXTURE(Fixture, "requests of every shape come back, and then a good one is served") {
  const std::uint32_t length = put_request(FUSE_GETATTR, kFile, fuse_getattr_in{});
  // All readable and writable flags of three descriptors.
  for (unsigned flags = 0; flags < 8; ++flags) {
    for (int n = 0; n < 20; ++n) {
      requests.add({{kIn, length, (flags & 1) != 0},
                    {kOut, 200, (flags & 2) != 0},
                    {kOut + 200, 16, (flags & 4) != 0}});
      device.on_queue(kFsFirstRequestQueue);
      const auto used = requests.take_used();
      REQUIRE(used);
      if ((flags & 7) == 7 || (flags & 1) != 0) {
        CHECK(used->length == 0);  // nothing that can be read, or readable after writable
      }
      put_request(FUSE_GETATTR, kFile, fuse_getattr_in{});
    }
  }
  // Bytes that are no request at all, and buffers that are not RAM.
  for (std::uint32_t size = 0; size < 40; ++size) {
    requests.add({{kIn, size, false}, {kOut, 4096, true}});
    requests.add({{kIn, size, false}, {ram.end() - 8, 4096, true}});
    device.on_queue(kFsFirstRequestQueue);
    CHECK(requests.take_used()->length == 0);
    CHECK(requests.take_used()->length == 0);
  }
  check_content(read(kFile, 0, 100), 0, 100);
  CHECK(notifier.resets_wanted == 0);
}

TEST_CASE_FIXTURE(Fixture, "the priority queue is served too, and FORGET comes back empty") {
  const std::uint32_t length = put_request(FUSE_FORGET, kFile, fuse_forget_in{});
  priority.add({{kIn, length, false}});
  device.on_queue(kFsHighPriorityQueue);
  io.run();
  CHECK(priority.take_used()->length == 0);
  CHECK(notifier.interrupts == 1);
}

TEST_CASE_FIXTURE(Fixture, "a broken ring needs a reset, after which the device works again") {
  requests.offer(0xffff);
  device.on_queue(kFsFirstRequestQueue);
  CHECK(notifier.resets_wanted == 1);
  bool done = false;
  device.reset([&] { done = true; });
  io.run();
  CHECK(done);
  priority.restart();
  requests.restart();
  activate();
  check_content(read(kFile, 0, 100), 0, 100);
}

TEST_CASE_FIXTURE(Fixture, "a failing read is its error, with no data") {
  io.answer = [](const FakeIo::Request&) { return -EIO; };
  const Reply reply = read(kFile, 0, 100);
  CHECK(reply.header.error == -EIO);
  CHECK(reply.used == sizeof(fuse_out_header));
  io.answer = nullptr;
  check_content(read(kFile, 0, 100), 0, 100);
}

// Found by this test: a short read was passed on, and the guest took it for the end of the file.
TEST_CASE_FIXTURE(Fixture,
                  "a backend that reads in small pieces, interrupted, still gives the whole") {
  std::size_t turn = 0;
  io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    if (++turn % 3 == 0) {
      return -EINTR;
    }
    const iovec& first = request.buffers.front();
    return static_cast<std::int32_t>(::pread(request.fd, first.iov_base,
                                             std::min<std::size_t>(first.iov_len, turn * 37),
                                             static_cast<off_t>(request.offset)));
  };
  check_content(read(kFile, 0, kFileSize), 0, kFileSize);
  check_content(read(kFile, kPage + 1, 999), kPage + 1, 999);
  CHECK(read(kFile, 0, 4096).used == 16 + 4096);
}

TEST_CASE_FIXTURE(
    Fixture,
    "a file that was cut short meanwhile ends where it ends, and an error later is the reply") {
  int turn = 0;
  io.answer = [&](const FakeIo::Request& request) -> std::optional<std::int32_t> {
    const iovec& first = request.buffers.front();
    return ++turn % 2 == 0 ? 0
                           : static_cast<std::int32_t>(::pread(request.fd, first.iov_base, 10, 0));
  };
  check_content(read(kFile, 0, 4096), 0, 10);
  io.answer = [&](const FakeIo::Request&) -> std::optional<std::int32_t> {
    return ++turn % 2 == 0 ? -EIO : 10;
  };
  CHECK(read(kFile, 0, 4096).header.error == -EIO);
}

TEST_CASE_FIXTURE(Fixture, "a reset ends a read that came back short instead of continuing it") {
  io.hold = [](const FakeIo::Request&) { return true; };
  offer_read(kFile, 0, 1000, 2000);
  device.on_queue(kFsFirstRequestQueue);
  bool done = false;
  device.reset([&] { done = true; });
  io.hold = nullptr;
  io.answer = [](const FakeIo::Request&) { return 10; };
  io.run_once();
  io.run_once();
  CHECK(done);
  CHECK(io.pending() == 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "many reads at a time complete in any order, each into its own buffers") {
  fuse_read_in in{};
  in.size = 8;
  io.hold = [](const FakeIo::Request& request) { return request.offset % 16 == 0; };
  for (std::uint32_t i = 0; i < 8; ++i) {
    in.offset = 8 * i;
    const std::uint32_t length = put_request(FUSE_READ, kFile, in, kIn + 256 * i);
    requests.add({{kIn + 256 * i, length, false}, {kOut + 64 * i, 24, true}});
  }
  device.on_queue(kFsFirstRequestQueue);
  CHECK(io.pending() == 8);
  io.run();
  CHECK(io.pending() == 4);
  CHECK(requests.used_index() == 4);
  io.hold = nullptr;
  io.run();
  CHECK(requests.used_index() == 8);
  for (std::uint32_t i = 0; i < 8; ++i) {
    CHECK(ram.get<std::byte>(kOut + 64 * i + 16 + 3) == content(8 * i + 3));
  }
}

TEST_CASE_FIXTURE(Fixture, "a reset waits for the reads under way and touches nothing afterwards") {
  io.hold = [](const FakeIo::Request&) { return true; };
  for (int i = 0; i < 5; ++i) {
    offer_read(kFile, 0, 1000, 2000);
  }
  device.on_queue(kFsFirstRequestQueue);
  REQUIRE(io.pending() == 5);
  const auto at_reset = ram.snapshot();
  bool done = false;
  device.reset([&] { done = true; });
  io.run();
  CHECK_FALSE(done);  // the backend is slow to cancel
  int completed = 0;
  io.hold = nullptr;
  io.answer = [&](const FakeIo::Request&) {
    CHECK_FALSE(done);  // not before the last
    ++completed;
    return -ECANCELED;
  };
  io.run();
  CHECK(completed == 6);  // and what the guest had open is closed
  CHECK(done);
  CHECK(requests.used_index() == 0);
  CHECK(notifier.interrupts == 0);
  io.answer = nullptr;

  // From done() on the memory is the guest's alone.
  const auto at_done = ram.snapshot();
  io.run();
  CHECK(ram.snapshot() == at_done);
  const auto rings = requests.end() - GuestRam::kStart;
  CHECK(std::memcmp(at_done.data(), at_reset.data(), rings) == 0);
  priority.restart();
  requests.restart();
  activate();
  check_content(read(kFile, 0, 100), 0, 100);
}

TEST_CASE_FIXTURE(Fixture,
                  "a reset with a read that succeeds late returns nothing to the old ring") {
  io.hold = [](const FakeIo::Request&) { return true; };
  offer_read(kFile, 0, 1000, 2000);
  device.on_queue(kFsFirstRequestQueue);
  bool done = false;
  device.reset([&] { done = true; });
  io.hold = nullptr;
  io.answer = [](const FakeIo::Request& request) {
    return FakeIo::perform(request);
  };  // too late to cancel
  io.run();
  CHECK(done);
  CHECK(io.pending() == 0);
  CHECK(requests.used_index() == 0);
  CHECK(notifier.interrupts == 0);
}

TEST_CASE_FIXTURE(Fixture, "a reset of an idle device is done at once, again and again") {
  for (int i = 0; i < 3; ++i) {
    bool done = false;
    device.reset([&] { done = true; });
    io.run();
    CHECK(done);
  }
}

TEST_CASE_FIXTURE(Fixture, "shares are added and removed beside each other") {
  char name[] = "/tmp/msb-fs-device-XXXXXX";
  REQUIRE(::mkdtemp(name) != nullptr);
  const auto open_root = [&] { return Fd(::open(name, O_PATH | O_DIRECTORY | O_CLOEXEC)); };
  std::vector<std::string> said;
  const auto say = [&](const std::string& what) {
    return [&said, what](const Result<void>& done) {
      said.push_back(what + (done ? "" : ": " + done.error().message));
    };
  };
  device.add_share("a/share-0", open_root(), false, ShareCache::kAuto, say("one"));
  device.add_share("a/share-1", open_root(), false, ShareCache::kAuto, say("two"));
  device.add_share("text", open_root(), false, ShareCache::kAuto, say("taken"));
  device.add_share("b", Fd(::open("/dev/null", O_PATH | O_CLOEXEC)), false, ShareCache::kAuto,
                   say("device"));
  device.remove_share("a/share-0", say("early"));
  io.run();
  CHECK(said == std::vector<std::string>{"early: nothing is shared at \"a/share-0\"", "one", "two",
                                         "device: only directories and regular files can be shared",
                                         "taken: shared path \"text\" is taken"});
  said.clear();
  device.remove_share("b", say("none"));
  device.remove_share("text", say("file"));
  device.remove_share("a/share-0", say("gone"));
  device.remove_share("a/share-0", say("twice"));
  device.add_share("a/share-0", open_root(), true, ShareCache::kNever, say("again"));
  io.run();
  CHECK(said == std::vector<std::string>{
                    "none: nothing is shared at \"b\"", "file: nothing is shared at \"text\"",
                    "twice: nothing is shared at \"a/share-0\"", "gone", "again"});
  REQUIRE(::rmdir(name) == 0);
}

TEST_CASE_FIXTURE(Fixture, "a share has ended once nothing of it is written any more") {
  char name[] = "/tmp/msb-fs-device-XXXXXX";
  REQUIRE(::mkdtemp(name) != nullptr);
  device.add_share("share", Fd(::open(name, O_PATH | O_CLOEXEC)), false, ShareCache::kAuto,
                   [](const Result<void>& done) { CHECK(done); });
  io.run();
  const auto ask = [&](std::uint32_t length, std::uint32_t room) {
    requests.add({{kIn, length, false}, {kOut, 16, true}, {kOut + 16, room, true}});
    device.on_queue(kFsFirstRequestQueue);
    io.run();
  };
  ask(put_request(FUSE_LOOKUP, 1, std::to_array("share")), sizeof(fuse_entry_out));
  REQUIRE(take_reply()->header.error == 0);
  struct {
    fuse_create_in in{};
    char file[8] = "written";
  } create;
  create.in.flags = O_RDWR;
  create.in.mode = 0600;
  ask(put_request(FUSE_CREATE, ram.get<fuse_entry_out>(kOut + 16).nodeid, create),
      sizeof(fuse_entry_out) + sizeof(fuse_open_out));
  REQUIRE(take_reply()->header.error == 0);
  const std::uint64_t node = ram.get<fuse_entry_out>(kOut + 16).nodeid;
  fuse_fsync_in sync{};
  sync.fh = ram.get<fuse_open_out>(kOut + 16 + sizeof(fuse_entry_out)).fh;
  io.hold = [](const FakeIo::Request& request) { return request.kind == FakeIo::Kind::kSync; };
  ask(put_request(FUSE_FSYNC, node, sync), 8);
  CHECK(io.pending(FakeIo::Kind::kSync) == 1);

  bool gone = false;
  device.remove_share("share", [&](const Result<void>& done) { gone = done.has_value(); });
  io.run();
  CHECK_FALSE(gone);
  io.hold = nullptr;
  io.run();
  CHECK(gone);
  CHECK(take_reply());
  ask(put_request(FUSE_GETATTR, node, fuse_getattr_in{}), sizeof(fuse_attr_out));
  CHECK(take_reply()->header.error == -ESTALE);
  REQUIRE(::unlink((std::string(name) + "/written").c_str()) == 0);
  REQUIRE(::rmdir(name) == 0);
}

}  // namespace
}  // namespace msb::virtio
