// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a shared directory between any guest and a host that changes it meanwhile. The
// input is steps: requests, most of them nearly right, and what the host plants. Whatever was done,
// nothing outside the share is touched, nothing but files and directories is opened, what the guest
// holds is bounded, and all of it is let go when the guest is gone (hostile-input.md 30, 38).
// Seeds: tests/corpus/virtio-shares.
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "virtio/fs/fuse_server.hpp"
#include "virtio/testing/fuse_client.hpp"
#include "virtio/testing/fuzz_input.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio {
namespace {

namespace fs = std::filesystem;
using testing::FuseClient;
using testing::FuzzInput;
using testing::require;

constexpr ShareLimits kLimits{
    .nodes = 24, .node_descriptors = 4, .handles = 8, .locks = 12, .lock_owners = 4};
constexpr std::size_t kMaxSteps = 60;

// Where all inputs play: in memory where there is such a place. scripts/fuzz removes it.
const fs::path& place() {
  static const fs::path made = [] {
    const bool in_memory = std::getenv("TMPDIR") == nullptr && fs::is_directory("/dev/shm");
    std::string name =
        (in_memory ? fs::path("/dev/shm") : fs::temp_directory_path()) / "msb-fuzz-shares-XXXXXX";
    require(::mkdtemp(name.data()) != nullptr, "there is room for a directory");
    std::atexit([] { fs::remove_all(place()); });
    return fs::path(name);
  }();
  return made;
}

class World {
 public:
  World() {
    ::umask(0);
    fs::remove_all(host());
    fs::remove_all(outside());
    fs::create_directories(host() / "folder");
    fs::create_directory(outside());
    std::ofstream(outside() / "canary") << "alive";
    std::ofstream(host() / "file") << "content";
    Fd root(::open(host().c_str(), O_PATH | O_CLOEXEC));
    require(server_.add_share("work", std::move(root), false, ShareCache::kAuto).has_value(),
            "a directory is shared");
    guest_.init();
    nodes_.push_back(guest_.walk(1, "work"));
  }

  void step(FuzzInput& input) {
    input.below(5) == 0 ? host_acts(input) : guest_asks(input);
    require(server_.files().nodes().size() <= kLimits.nodes &&
                server_.files().open_handles() <= kLimits.handles &&
                server_.files().locks().ranges() <= kLimits.locks &&
                server_.files().locks().owners() <= kLimits.lock_owners &&
                server_.files().nodes().open_descriptors() <= kLimits.node_descriptors,
            "what a guest holds is bounded");
  }

  void finish() {
    guest_.ask(FUSE_DESTROY, 0);
    require(server_.files().nodes().size() == 1 && server_.files().open_handles() == 0 &&
                server_.files().locks().owners() == 0,
            "nothing is left of a guest that is gone");
    struct stat canary{};
    require(::stat((outside() / "canary").c_str(), &canary) == 0 && canary.st_size == 5 &&
                (canary.st_mode & 07777) == 0666 && canary.st_nlink == 1,
            "what is outside is as it was");
    require(std::distance(fs::directory_iterator(outside()), {}) == 1, "nothing is added outside");
  }

 private:
  static fs::path host() { return place() / "host"; }
  static fs::path outside() { return place() / "outside"; }

  static std::string_view name(FuzzInput& input) {
    static constexpr std::array<std::string_view, 12> kNames{
        "file", "folder", "a", "b", "link", "pipe", "..", ".", "../outside", "a/b", "", "canary"};
    return kNames.at(input.below(kNames.size()));
  }

  void host_acts(FuzzInput& input) {
    std::error_code ignored;
    const std::size_t action = input.below(6);
    const fs::path at = host() / (input.below(2) == 0 ? "a" : "folder");
    fs::remove_all(at, ignored);
    switch (action) {
      case 0:
        fs::create_symlink("../outside", at, ignored);
        break;
      case 1:
        fs::create_symlink(outside() / "canary", at, ignored);
        break;
      case 2:
        ::mkfifo(at.c_str(), 0666);
        break;
      case 3:
        fs::create_directory(at, ignored);
        break;
      case 4:
        std::ofstream(at) << "planted";
        break;
      default:
        break;
    }
  }

  std::uint64_t node(FuzzInput& input) {
    const std::size_t which = input.below(nodes_.size() + 1);
    return which < nodes_.size() ? nodes_[which] : input.take<std::uint64_t>();
  }
  std::uint64_t handle(FuzzInput& input) {
    const std::size_t which = input.below(handles_.size() + 1);
    return which < handles_.size() ? handles_[which] : input.byte();
  }
  void learn(const FuseClient::Reply& reply) {
    if (reply.error == 0 && reply.payload.size() >= sizeof(fuse_entry_out)) {
      nodes_.push_back(FuseClient::entry(reply).nodeid);
    }
    if (reply.error == 0 &&
        reply.payload.size() == sizeof(fuse_entry_out) + sizeof(fuse_open_out)) {
      handles_.push_back(FuseClient::handle(reply));
    }
  }

  void guest_asks(FuzzInput& input) {
    const std::size_t operation = input.below(21);
    guest_.uid = static_cast<std::uint32_t>(input.below(2)) * 1000;
    const std::uint64_t at = node(input);
    const std::string_view first = name(input);
    const auto number = input.take<std::uint32_t>();
    const auto mode = static_cast<std::uint32_t>(number & 0xffff);
    switch (operation) {
      case 0:
      case 1:
        learn(guest_.lookup(at, first));
        break;
      case 2:
        learn(guest_.create(at, first, mode & 07777, number >> 8));
        break;
      case 3:
        learn(guest_.mkdir(at, first, mode));
        break;
      case 4:
        learn(guest_.mknod(at, first, mode, number >> 16));
        break;
      case 5:
        learn(guest_.symlink(at, first, "../outside/canary"));
        break;
      case 6:
        learn(guest_.link(node(input), at, first));
        break;
      case 7:
        guest_.unlink(at, first);
        break;
      case 8:
        guest_.rmdir(at, first);
        break;
      case 9: {
        const std::uint64_t to = node(input);
        guest_.rename(at, first, to, name(input), number % 8);
        break;
      }
      case 10: {
        const auto reply = guest_.open(at, number, number >> 24);
        if (reply.error == 0 && reply.payload.size() == sizeof(fuse_open_out)) {
          handles_.push_back(reply.as<fuse_open_out>().fh);
        }
        break;
      }
      case 11:
        guest_.read(at, handle(input), mode, number >> 16);
        break;
      case 12:
        guest_.write(at, handle(input), mode, "written", number >> 29, number);
        break;
      case 13:
        guest_.release(at, handle(input));
        break;
      case 14:
        guest_.chmod(at, mode);
        break;
      case 15:
        guest_.chown(at, number, mode);
        break;
      case 16:
        guest_.truncate(at, mode);
        break;
      case 17:
        guest_.forget(at, number);
        break;
      case 18:
        guest_.set_xattr(at, (number & 1) == 0 ? "user.note" : "security.capability", "value");
        break;
      case 19: {
        fuse_lk_in in{};
        in.fh = handle(input);
        in.owner = number % 6;
        in.lk = {mode % 64, (mode % 64) + (number >> 26), number >> 24 & 3, 0};
        in.lk_flags = number >> 10 & FUSE_LK_FLOCK;
        guest_.ask_with(FUSE_GETLK + (number >> 11) % 3, at, in);
        break;
      }
      default: {
        const auto body = input.take_bytes(input.below(120));
        learn(guest_.ask(number % 60, at, {body.begin(), body.end()}, mode));
        break;
      }
    }
  }

  FuseServer server_{SharedTree(), OwnerRule(::geteuid(), ::getegid()), kLimits};
  FuseClient guest_{server_};
  std::vector<std::uint64_t> nodes_;
  std::vector<std::uint64_t> handles_{0};
};

}  // namespace
}  // namespace msb::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  msb::virtio::World world;
  msb::virtio::testing::FuzzInput input(data, size);
  for (std::size_t step = 0; step < msb::virtio::kMaxSteps && !input.empty(); ++step) {
    world.step(input);
  }
  world.finish();
  return 0;
}
