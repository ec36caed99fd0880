// SPDX-License-Identifier: Apache-2.0
#include "oci/store/store.hpp"

#include <doctest/doctest.h>

#include <filesystem>

#include "oci/erofs_writer.hpp"
#include "oci/store/lookup.hpp"
#include "oci/store/store_lock.hpp"
#include "oci/store/test_image.hpp"

namespace msb::oci {
namespace {

using testing::layer_of;
using testing::MemorySource;
using testing::TemporaryDirectory;

// A store with images a (layers base, a) and b (layers base, b).
struct Fixture {
  Fixture() {
    auto opened = Store::open(home());
    REQUIRE(opened);
    store.emplace(std::move(*opened));
    a = add("docker.io/library/a:1", {base, layer_a});
    b = add("docker.io/library/b:1", {base, layer_b});
  }

  [[nodiscard]] std::string home() const { return directory / "home"; }

  Descriptor add(const std::string& name, const std::vector<testing::PackedLayer>& layers) {
    const Descriptor target = source.add(layers);
    REQUIRE(store->import(source, target, {name}, {}));
    return target;
  }

  [[nodiscard]] CatalogEntry entry(const std::string& name) {
    const auto found = store->find(name);
    REQUIRE(found);
    REQUIRE(*found);
    return **found;
  }

  [[nodiscard]] std::vector<Fd> open_layers(const std::string& name) {
    const auto image = store->load(entry(name));
    REQUIRE(image);
    auto layers = store->open_layers(*image);
    REQUIRE(layers);
    return std::move(*layers);
  }

  [[nodiscard]] bool has_blob(const testing::PackedLayer& layer) const {
    return std::filesystem::exists(home() + "/blobs/sha256/" + layer.layer.blob.digest.hex());
  }
  [[nodiscard]] bool has_image(const testing::PackedLayer& layer) const {
    return std::filesystem::exists(fmt::format("{}/layers/erofs-v{}/{}.erofs", home(),
                                               kErofsWriterVersion, layer.layer.diff_id.hex()));
  }

  TemporaryDirectory directory;
  MemorySource source;
  testing::PackedLayer base = layer_of("base");
  testing::PackedLayer layer_a = layer_of("a", 20'000);
  testing::PackedLayer layer_b = layer_of("b");
  std::optional<Store> store;
  Descriptor a{"", testing::digest_of(""), 0};
  Descriptor b{"", testing::digest_of(""), 0};
};

TEST_CASE("removing an image deletes its files but for those that another one has") {
  Fixture fixture;
  const auto report = fixture.store->remove(fixture.entry("docker.io/library/a:1"));
  REQUIRE(report);
  CHECK(report->bytes >= fixture.layer_a.blob.size());
  CHECK_FALSE(report->postponed);
  CHECK_FALSE(fixture.has_blob(fixture.layer_a));
  CHECK_FALSE(fixture.has_image(fixture.layer_a));
  CHECK(fixture.has_blob(fixture.base));
  CHECK(fixture.store->load_complete(fixture.entry("docker.io/library/b:1"))->has_value());
}

TEST_CASE("removing one of two names keeps the image") {
  Fixture fixture;
  fixture.add("docker.io/library/a:2", {fixture.base, fixture.layer_a});
  REQUIRE(fixture.store->remove(fixture.entry("docker.io/library/a:1")));
  CHECK_FALSE(*fixture.store->find("docker.io/library/a:1"));
  CHECK(fixture.store->load_complete(fixture.entry("docker.io/library/a:2"))->has_value());
}

TEST_CASE("layers that a sandbox has open stay when their image is removed and pruned") {
  Fixture fixture;
  auto running = fixture.open_layers("docker.io/library/a:1");
  REQUIRE(fixture.store->remove(fixture.entry("docker.io/library/a:1")));
  CHECK(fixture.has_image(fixture.layer_a));
  REQUIRE(fixture.store->prune({.all = true}));
  CHECK(fixture.has_image(fixture.layer_a));
  CHECK_FALSE(fixture.has_image(fixture.layer_b));

  running.clear();
  REQUIRE(fixture.store->prune({}));
  CHECK_FALSE(fixture.has_image(fixture.layer_a));
}

TEST_CASE("prune of all keeps the image that a sandbox uses, whole") {
  Fixture fixture;
  const auto running = fixture.open_layers("docker.io/library/a:1");
  const auto report = fixture.store->prune({.all = true});
  REQUIRE(report);
  REQUIRE(report->images.size() == 1);
  CHECK(report->images[0].reference == "docker.io/library/b:1");
  CHECK(fixture.store->load_complete(fixture.entry("docker.io/library/a:1"))->has_value());
}

TEST_CASE("prune takes images without a name and files of no image, and a dry run nothing") {
  Fixture fixture;
  fixture.add("docker.io/library/a:1", {layer_of("new")});  // the old one loses its name
  testing::write_file(fixture.home() + "/blobs/sha256/" + testing::digest_of("stray").hex(),
                      "stray");
  const auto dry = fixture.store->prune({.dry_run = true});
  REQUIRE(dry);
  CHECK(dry->images.size() == 1);
  CHECK(fixture.has_blob(fixture.layer_a));
  const auto report = fixture.store->prune({});
  REQUIRE(report);
  CHECK(report->images.size() == 1);
  CHECK(report->bytes == dry->bytes);
  CHECK_FALSE(fixture.has_blob(fixture.layer_a));
  CHECK(fixture.has_blob(fixture.base));
  CHECK(testing::list_directory(fixture.home() + "/blobs/sha256").size() == 7);
}

TEST_CASE("image removed while another is added keeps its files until the next prune") {
  Fixture fixture;
  {
    const auto importing = StoreLock::acquire(fixture.home(), StoreLock::Kind::kShared);
    REQUIRE(importing);
    const auto report = fixture.store->remove(fixture.entry("docker.io/library/a:1"));
    REQUIRE(report);
    CHECK(report->postponed);
    CHECK(fixture.has_blob(fixture.layer_a));
  }
  REQUIRE(fixture.store->prune({}));
  CHECK_FALSE(fixture.has_blob(fixture.layer_a));
}

TEST_CASE("image is found by reference, alias, digest and first digits") {
  Fixture fixture;
  Settings settings = default_settings();
  settings.aliases["mine"] = "a:1";
  const auto find = [&](std::string_view text) {
    const auto found = find_image(*fixture.store, settings, text);
    REQUIRE_MESSAGE(found, (found ? "" : found.error().message));
    return *found ? (*found)->manifest.digest.hex() : std::string("none");
  };
  const std::string hex = fixture.a.digest.hex();
  CHECK(find("a:1") == hex);
  CHECK(find("docker.io/library/a:1") == hex);
  CHECK(find("mine") == hex);
  CHECK(find("a@sha256:" + hex) == hex);
  CHECK(find("sha256:" + hex) == hex);
  CHECK(find(hex.substr(0, 6)) == hex);
  CHECK(find(hex.substr(0, 5)) == "none");
  CHECK(find("a:2") == "none");
  CHECK(find("b@sha256:" + hex) == "none");
  const auto missing = get_image(*fixture.store, settings, "nowhere");
  REQUIRE_FALSE(missing);
  CHECK(missing.error().message ==
        "there is no image 'nowhere' here; pull it with `msb pull nowhere`");
}

TEST_CASE("store that cannot be made says where and why") {
  const TemporaryDirectory directory;
  testing::write_file(directory / "file", "x");
  const auto store = Store::open(directory / "file/home");
  REQUIRE_FALSE(store);
  CHECK(store.error().message.find(directory / "file") != std::string::npos);
}

}  // namespace
}  // namespace msb::oci
