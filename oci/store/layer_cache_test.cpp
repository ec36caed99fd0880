// SPDX-License-Identifier: Apache-2.0
#include "oci/store/layer_cache.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "oci/erofs_writer.hpp"
#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::PackedLayer;
using testing::Tar;
using testing::TemporaryDirectory;

// A layout with one image, and a cache beside it.
struct Fixture {
  explicit Fixture(std::vector<PackedLayer> packed) : layers(std::move(packed)) {
    testing::write_layout(directory / "layout", layers, "v1");
  }

  [[nodiscard]] Layout layout() const { return std::move(*Layout::open(directory / "layout")); }
  [[nodiscard]] LayerCache cache() const {
    return std::move(*LayerCache::open(directory / "a/cache"));
  }
  // Through a cache and a layout of its own.
  [[nodiscard]] Result<Fd> open(const Layer& layer) const {
    Layout source = layout();
    return cache().open_layer(source.blobs(), layer);
  }
  [[nodiscard]] std::string images() const {
    return directory / fmt::format("a/cache/erofs-v{}", kErofsWriterVersion);
  }
  [[nodiscard]] std::string image_of(std::size_t i) const {
    return images() + "/" + layers[i].layer.diff_id.hex() + ".erofs";
  }

  TemporaryDirectory directory;
  std::vector<PackedLayer> layers;
};

PackedLayer layer_with(const std::string& name, std::size_t size = 100) {
  return testing::pack(Tar().file(name, std::string(size, 'x')).bytes());
}

TEST_CASE("layer is converted once and then opened from the cache") {
  const Fixture fixture({layer_with("f")});
  const Layer& layer = fixture.layers[0].layer;
  const auto first = fixture.open(layer);
  REQUIRE_MESSAGE(first, (first ? "" : first.error().message));
  CHECK(testing::read_image(first->get()).contains("f"));
  CHECK((::fcntl(first->get(), F_GETFL) & O_ACCMODE) == O_RDONLY);
  CHECK(testing::list_directory(fixture.images()) ==
        std::vector<std::string>{layer.diff_id.hex() + ".erofs"});

  std::filesystem::remove_all(fixture.directory / "layout/blobs");
  const auto second = fixture.open(layer);
  REQUIRE(second);
  struct stat one{};
  struct stat two{};
  REQUIRE(::fstat(first->get(), &one) == 0);
  REQUIRE(::fstat(second->get(), &two) == 0);
  CHECK(one.st_ino == two.st_ino);
}

TEST_CASE("failed conversion leaves nothing in the cache") {
  Fixture fixture({layer_with("f")});
  Layer wrong = fixture.layers[0].layer;
  wrong.diff_id = testing::digest_of("something else");
  const auto opened = fixture.open(wrong);
  REQUIRE_FALSE(opened);
  CHECK(opened.error().message.find("diff ID") != std::string::npos);
  CHECK(testing::list_directory(fixture.images()).empty());
}

TEST_CASE("image that was cut off is made again") {
  const Fixture fixture({layer_with("f")});
  REQUIRE(fixture.open(fixture.layers[0].layer));
  for (const off_t length : {0, 1500, 4096}) {
    REQUIRE(::truncate(fixture.image_of(0).c_str(), length) == 0);
    const auto opened = fixture.open(fixture.layers[0].layer);
    REQUIRE(opened);
    CHECK(testing::read_image(opened->get()).contains("f"));
  }
}

TEST_CASE("symbolic link in the cache is not followed") {
  const Fixture fixture({layer_with("f")});
  const LayerCache cache = fixture.cache();
  testing::write_file(fixture.directory / "elsewhere", "x");
  std::filesystem::create_symlink(fixture.directory / "elsewhere", fixture.image_of(0));
  Layout layout = fixture.layout();
  CHECK_FALSE(cache.open_layer(layout.blobs(), fixture.layers[0].layer));
}

TEST_CASE("cache that cannot be made says where and why") {
  const TemporaryDirectory directory;
  testing::write_file(directory / "file", "x");
  const auto cache = LayerCache::open(directory / "file/cache");
  REQUIRE_FALSE(cache);
  CHECK(cache.error().message.find(directory / "file") != std::string::npos);
  CHECK(cache.error().code == ENOTDIR);
}

TEST_CASE("layers come lowest first and those below an opaque root are left out") {
  const Fixture fixture({layer_with("lowest"),
                         testing::pack(Tar().file(".wh..wh..opq").file("middle").bytes()),
                         layer_with("top")});
  Layout layout = fixture.layout();
  const auto image = layout.image("v1");
  REQUIRE(image);
  const auto opened = fixture.cache().open_layers(layout.blobs(), *image);
  REQUIRE(opened);
  REQUIRE(opened->size() == 2);
  CHECK(testing::read_image((*opened)[0].get()).contains("middle"));
  CHECK(testing::read_image((*opened)[1].get()).contains("top"));
}

TEST_CASE("processes that want the same layer at once all get it and one image stays") {
  const Fixture fixture({layer_with("f", 5'000'000)});
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto opened = fixture.open(fixture.layers[0].layer);
      ::_exit(opened && testing::read_image(opened->get()).contains("f") ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  CHECK(testing::list_directory(fixture.images()).size() == 1);
}

TEST_CASE("layer that a process has open is in use and another is not") {
  const Fixture fixture({layer_with("f")});
  const Digest diff_id = fixture.layers[0].layer.diff_id;
  const LayerCache cache = fixture.cache();
  CHECK_FALSE(cache.in_use(diff_id));
  auto opened = fixture.open(fixture.layers[0].layer);
  REQUIRE(opened);
  CHECK(cache.in_use(diff_id));
  const Fd passed_on(::dup(opened->get()));
  opened->reset();
  CHECK(cache.in_use(diff_id));
}

TEST_CASE("images of other versions of the writer are removed and ours stay") {
  const Fixture fixture({layer_with("f")});
  REQUIRE(fixture.open(fixture.layers[0].layer));
  std::filesystem::create_directory(fixture.directory / "a/cache/erofs-v0");
  testing::write_file(fixture.directory / "a/cache/erofs-v0/x.erofs", "12345");
  const auto removed = fixture.cache().remove_other_versions();
  REQUIRE(removed);
  CHECK(*removed == 5);
  CHECK(testing::list_directory(fixture.directory / "a/cache").size() == 1);
  CHECK(std::filesystem::exists(fixture.image_of(0)));
}

TEST_CASE("killing a process at any time leaves a whole image or none") {
  const Fixture fixture({layer_with("f", 20'000'000)});
  int made = 0;
  for (useconds_t delay = 0; delay < 60'000 && made < 3; delay += 4000) {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto opened = fixture.open(fixture.layers[0].layer);
      ::_exit(opened ? 0 : 1);
    }
    ::usleep(delay);
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    if (!std::filesystem::exists(fixture.images())) {
      continue;
    }
    static_cast<void>(fixture.cache());  // takes away the lock of the one that was killed
    for (const std::string& name : testing::list_directory(fixture.images())) {
      REQUIRE(fixture.images() + "/" + name == fixture.image_of(0));
      const Fd fd(::open(fixture.image_of(0).c_str(), O_RDONLY | O_CLOEXEC));
      CHECK(testing::read_image(fd.get()).at("f").content.size() == 20'000'000);
      ++made;
      std::filesystem::remove(fixture.image_of(0));
    }
  }
}

TEST_CASE("abandoned drafts are removed and those in the making are not") {
  const Fixture fixture({layer_with("f")});
  static_cast<void>(fixture.cache());
  testing::write_file(fixture.images() + "/.new-abandoned", "x");
  testing::write_file(fixture.images() + "/.new-locked", "x");
  const Fd locked(::open((fixture.images() + "/.new-locked").c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(::flock(locked.get(), LOCK_EX) == 0);
  static_cast<void>(fixture.cache());
  CHECK(testing::list_directory(fixture.images()) == std::vector<std::string>{".new-locked"});
}

}  // namespace
}  // namespace msb::oci
