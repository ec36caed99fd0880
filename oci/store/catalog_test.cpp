// SPDX-License-Identifier: Apache-2.0
#include "oci/store/catalog.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::TemporaryDirectory;

constexpr std::int64_t kPulled = 1'700'000'000;

Image image_of(std::string_view seed, std::size_t layers) {
  Image image{.manifest = {std::string(kManifestMediaType), testing::digest_of(seed), 100},
              .config_blob = {std::string(kConfigMediaType),
                              testing::digest_of(fmt::format("{} config", seed)), 50},
              .config = {},
              .layers = {}};
  image.config.created = "2026-01-02T03:04:05Z";
  for (std::size_t i = 0; i < layers; ++i) {
    image.layers.push_back({{std::string(kLayerMediaType),
                             testing::digest_of(fmt::format("{} blob {}", seed, i)), 1000},
                            Compression::kNone,
                            testing::digest_of(fmt::format("{} diff {}", seed, i))});
  }
  return image;
}

TEST_CASE("recorded image is found by its name, with all that belongs to it") {
  const TemporaryDirectory directory;
  const Image image = image_of("a", 2);
  const Digest target = testing::digest_of("index");
  {
    auto catalog = Catalog::open(directory / "images.db");
    REQUIRE_MESSAGE(catalog, (catalog ? "" : catalog.error().message));
    REQUIRE(catalog->record("docker.io/library/a:1", target, image, kPulled));
  }
  auto catalog = Catalog::open(directory / "images.db");
  REQUIRE(catalog);
  const auto entry = catalog->find("docker.io/library/a:1");
  REQUIRE(entry);
  REQUIRE(*entry);
  CHECK((*entry)->target == target);
  CHECK((*entry)->manifest.digest == image.manifest.digest);
  CHECK((*entry)->manifest.size == 100);
  CHECK((*entry)->created == "2026-01-02T03:04:05Z");
  CHECK((*entry)->pulled == kPulled);
  CHECK((*entry)->size == 2150);
  CHECK((*entry)->layers == 2);
  const auto parts = catalog->parts(image.manifest.digest);
  REQUIRE(parts);
  CHECK(parts->documents == std::vector{image.manifest.digest, image.config_blob.digest});
  REQUIRE(parts->layers.size() == 2);
  CHECK(parts->layers[1].blob == image.layers[1].blob.digest);
  CHECK(parts->layers[1].diff_id == image.layers[1].diff_id);
  CHECK_FALSE(*catalog->find("docker.io/library/a:2"));
}

TEST_CASE("name that moves leaves its old image without one") {
  const TemporaryDirectory directory;
  auto catalog = Catalog::open(directory / "images.db");
  REQUIRE(catalog);
  const Image one = image_of("one", 1);
  const Image two = image_of("two", 1);
  REQUIRE(catalog->record("x:1", one.manifest.digest, one, kPulled));
  REQUIRE(catalog->record("x:1", two.manifest.digest, two, kPulled + 1));
  const auto entries = catalog->list();
  REQUIRE(entries);
  REQUIRE(entries->size() == 2);
  CHECK((*entries)[0].reference == "x:1");
  CHECK((*entries)[0].manifest.digest == two.manifest.digest);
  CHECK((*entries)[1].reference.empty());
  CHECK((*entries)[1].manifest.digest == one.manifest.digest);
}

TEST_CASE("removing a name keeps the image and removing the image takes its names and layers") {
  const TemporaryDirectory directory;
  auto catalog = Catalog::open(directory / "images.db");
  REQUIRE(catalog);
  const Image image = image_of("a", 3);
  REQUIRE(catalog->record("x:1", image.manifest.digest, image, kPulled));
  REQUIRE(catalog->record("x:2", image.manifest.digest, image, kPulled));
  REQUIRE(catalog->remove_name("x:1"));
  CHECK(catalog->find_manifest(image.manifest.digest)->size() == 1);
  CHECK(catalog->parts(image.manifest.digest)->layers.size() == 3);
  REQUIRE(catalog->remove_image(image.manifest.digest));
  CHECK(catalog->list()->empty());
  CHECK(catalog->parts(image.manifest.digest)->layers.empty());
}

TEST_CASE("images are found by the first digits of their digest") {
  const TemporaryDirectory directory;
  auto catalog = Catalog::open(directory / "images.db");
  REQUIRE(catalog);
  const Image image = image_of("a", 1);
  REQUIRE(catalog->record("x:1", image.manifest.digest, image, kPulled));
  CHECK(catalog->find_prefix(image.manifest.digest.hex().substr(0, 8))->size() == 1);
  CHECK(catalog->find_prefix("000000000000")->empty());
}

TEST_CASE("damaged database is refused with what to do") {
  const TemporaryDirectory directory;
  testing::write_file(directory / "images.db", std::string(8192, 'x'));
  const auto catalog = Catalog::open(directory / "images.db");
  REQUIRE_FALSE(catalog);
  CHECK(catalog.error().message.find(directory / "images.db") != std::string::npos);
  CHECK(catalog.error().message.find("delete that file and pull") != std::string::npos);
}

TEST_CASE("database of a newer version is refused") {
  const TemporaryDirectory directory;
  REQUIRE(Catalog::open(directory / "images.db"));
  {
    const Fd file(::open((directory / "images.db").c_str(), O_WRONLY | O_CLOEXEC));
    const unsigned char version = 2;
    // The database header keeps user_version in bytes 60 to 63, big-endian.
    REQUIRE(::pwrite(file.get(), &version, 1, 63) == 1);
  }
  const auto catalog = Catalog::open(directory / "images.db");
  REQUIRE_FALSE(catalog);
  CHECK(catalog.error().message.find("newer") != std::string::npos);
}

TEST_CASE("killing a writer at any time leaves every recorded image whole") {
  const TemporaryDirectory directory;
  for (int round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto catalog = Catalog::open(directory / "images.db");
      for (int i = 0; catalog; ++i) {
        const Image image = image_of(fmt::format("{} {}", round, i), 5);
        if (!catalog->record(fmt::format("x:{}-{}", round, i), image.manifest.digest, image,
                             kPulled)) {
          break;
        }
      }
      ::_exit(1);
    }
    ::usleep(static_cast<useconds_t>(2000 * round));
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    auto catalog = Catalog::open(directory / "images.db");
    REQUIRE_MESSAGE(catalog, (catalog ? "" : catalog.error().message));
    const auto entries = catalog->list();
    REQUIRE(entries);
    for (const CatalogEntry& entry : *entries) {
      CHECK_FALSE(entry.reference.empty());
      CHECK(entry.layers == 5);
    }
  }
}

}  // namespace
}  // namespace msb::oci
