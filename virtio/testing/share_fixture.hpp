// SPDX-License-Identifier: Apache-2.0
// A shared directory, its guest, and what is beside it on the host.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <linux/posix_acl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "virtio/fs/fuse_server.hpp"
#include "virtio/fs/posix_acl.hpp"
#include "virtio/fs/xattr_names.hpp"
#include "virtio/testing/acl_bytes.hpp"
#include "virtio/testing/fuse_client.hpp"

namespace msb::virtio::testing {

namespace fs = std::filesystem;

inline constexpr std::uint64_t kUnknown = ~std::uint64_t{0};

inline std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void put(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline mode_t mode_of(const fs::path& path) {
  struct stat status{};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status.st_mode;
}

inline std::string xattr_of(const fs::path& path, const std::string& name) {
  std::string value(256, '\0');
  const ssize_t size = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
  return size < 0 ? "" : value.substr(0, static_cast<std::size_t>(size));
}

// A share at /work, and beside its directory on the host what nobody may reach by it.
struct ShareFixture {
  explicit ShareFixture(bool read_only = false, const ShareLimits& limits = {})
      : server(SharedTree(), OwnerRule(::geteuid(), ::getegid()), limits), guest(server) {
    ::umask(0);  // as in the machine's process
    REQUIRE(::mkdtemp(place.data()) != nullptr);
    fs::create_directory(host());
    fs::create_directory(outside());
    put(outside() / "canary", "alive");
    fs::permissions(outside() / "canary", fs::perms(0640));
    Fd root(::open(host().c_str(), O_PATH | O_CLOEXEC));
    REQUIRE(server.add_share("work", std::move(root), read_only, ShareCache::kAuto));
    guest.init();
    work = guest.walk(1, "work");
    REQUIRE(work != 0);
  }
  ~ShareFixture() {
    CHECK(content_of(outside() / "canary") == "alive");
    CHECK((mode_of(outside() / "canary") & 07777) == 0640);
    CHECK(std::distance(fs::directory_iterator(outside()), {}) == 1);
    fs::remove_all(place);
  }
  ShareFixture(const ShareFixture&) = delete;
  ShareFixture& operator=(const ShareFixture&) = delete;

  [[nodiscard]] fs::path host() const { return fs::path(place) / "host"; }
  [[nodiscard]] fs::path outside() const { return fs::path(place) / "outside"; }

  std::string place = "/tmp/msb-shares-test-XXXXXX";
  FuseServer server;
  FuseClient guest;
  std::uint64_t work = 0;
};

}  // namespace msb::virtio::testing
