// SPDX-License-Identifier: Apache-2.0
#include "oci/layout.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::Tar;
using testing::TemporaryDirectory;

constexpr std::string_view kIndexType = "application/vnd.oci.image.index.v1+json";
constexpr std::string_view kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr std::string_view kConfigType = "application/vnd.oci.image.config.v1+json";

testing::PackedLayer sample_layer(std::string_view content = "content") {
  return testing::pack(Tar().file("file", content).bytes());
}

// A descriptor with a tag, a platform, or both.
std::string annotated(std::string descriptor, std::string_view tag,
                      std::string_view architecture = {}) {
  descriptor.pop_back();
  if (!tag.empty()) {
    descriptor +=
        fmt::format(R"(,"annotations":{{"org.opencontainers.image.ref.name":"{}"}})", tag);
  }
  if (!architecture.empty()) {
    descriptor += fmt::format(R"(,"platform":{{"os":"linux","architecture":"{}"}})", architecture);
  }
  return descriptor + "}";
}

// Writes an image without layers whose configuration says `user`; gives its descriptor.
std::string write_image(const std::string& path, std::string_view user,
                        std::string_view rest = {}) {
  const std::string config = testing::write_blob(
      path, kConfigType,
      fmt::format(R"({{"config":{{"User":"{}"}},"rootfs":{{"diff_ids":[]}}{}}})", user, rest));
  return testing::write_blob(
      path, kManifestType, fmt::format(R"({{"schemaVersion":2,"config":{},"layers":[]}})", config));
}

std::string blob_file(const TemporaryDirectory& layout, const Digest& digest) {
  return layout / ("blobs/sha256/" + digest.hex());
}

std::string open_error(const std::string& path) {
  auto layout = Layout::open(path);
  REQUIRE_FALSE(layout);
  return layout.error().message;
}

std::string image_error(const std::string& path,
                        const std::optional<std::string>& tag = std::nullopt) {
  auto layout = Layout::open(path);
  REQUIRE(layout);
  const auto image = layout->image(tag);
  REQUIRE_FALSE(image);
  return image.error().message;
}

bool contains(const std::string& text, std::string_view part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

TEST_CASE("layout reference prefers an existing directory and else splits at the last colon") {
  const TemporaryDirectory directory;
  const std::string plain = directory / "plain";
  const std::string colon = directory / "with:colon";
  std::filesystem::create_directory(plain);
  std::filesystem::create_directory(colon);

  CHECK(parse_layout_reference(plain)->path == plain);
  CHECK_FALSE(parse_layout_reference(plain)->tag);
  CHECK(parse_layout_reference(plain + ":v1")->path == plain);
  CHECK(parse_layout_reference(plain + ":v1")->tag == "v1");
  CHECK(parse_layout_reference(colon)->path == colon);
  CHECK_FALSE(parse_layout_reference(colon)->tag);
  CHECK(parse_layout_reference(colon + ":v1")->path == colon);

  for (const std::string& wrong :
       {plain + ":", plain + ":a:b", directory / "missing", std::string(), std::string(":x")}) {
    CAPTURE(wrong);
    const auto reference = parse_layout_reference(wrong);
    REQUIRE_FALSE(reference);
    CHECK(contains(reference.error().message, "'" + wrong + "'"));
  }
}

TEST_CASE("image of a layout has its layers, lowest first, with blobs that open") {
  const TemporaryDirectory path;
  const auto first = sample_layer("one");
  const auto second = testing::pack(Tar().file("two").bytes(), Compression::kZstd);
  testing::write_layout(path.path(), {first, second}, "v1");

  auto layout = Layout::open(path.path());
  REQUIRE(layout);
  const auto image = layout->image("v1");
  REQUIRE(image);
  REQUIRE(image->layers.size() == 2);
  CHECK(image->layers[0].diff_id == first.layer.diff_id);
  CHECK(image->layers[0].compression == Compression::kGzip);
  CHECK(image->layers[1].blob.digest == second.layer.blob.digest);
  CHECK(image->layers[1].compression == Compression::kZstd);

  const auto blob = layout->blobs().open(image->layers[0].blob);
  REQUIRE(blob);
  std::string content(first.blob.size(), '\0');
  CHECK(::read(blob->get(), content.data(), content.size()) == std::ssize(content));
  CHECK(content == first.blob);
}

TEST_CASE("image without a tag is the only one or the one tagged latest") {
  const TemporaryDirectory path;
  const std::string one = write_image(path.path(), "one");
  const std::string two = write_image(path.path(), "two");
  const auto user_of = [&](const std::optional<std::string>& tag) {
    return Layout::open(path.path())->image(tag)->config.user;
  };

  testing::write_index(path.path(), one);
  CHECK(user_of(std::nullopt) == "one");
  testing::write_index(path.path(), annotated(one, "v1"));
  CHECK(user_of(std::nullopt) == "one");
  testing::write_index(path.path(), annotated(one, "v1") + "," + annotated(two, "latest"));
  CHECK(user_of(std::nullopt) == "two");
  CHECK(user_of("v1") == "one");

  CHECK(contains(image_error(path.path(), "v3"), "no tag 'v3'; it has latest, v1"));
  testing::write_index(path.path(), annotated(one, "v1") + "," + annotated(two, "v2"));
  CHECK(contains(image_error(path.path()), "none is tagged 'latest'; it has v1, v2"));
  testing::write_index(path.path(), "");
  CHECK(contains(image_error(path.path()), "holds no image"));
  CHECK(contains(image_error(path.path(), "x"), "it has no tags"));
}

TEST_CASE("nested index and entries of one tag are searched for our platform") {
  const TemporaryDirectory path;
  const std::string arm = annotated(write_image(path.path(), "arm"), "", "arm64");
  const std::string amd = annotated(write_image(path.path(), "amd"), "", "amd64");
  const std::string attestation = annotated(write_image(path.path(), "none"), "", "unknown");
  const std::string index = testing::write_blob(
      path.path(), kIndexType,
      fmt::format(R"({{"schemaVersion":2,"manifests":[{},{},{}]}})", attestation, arm, amd));
  testing::write_index(path.path(), annotated(index, "multi"));
  CHECK(Layout::open(path.path())->image("multi")->config.user == "amd");

  testing::write_index(path.path(), annotated(write_image(path.path(), "arm"), "t", "arm64") + "," +
                                        annotated(write_image(path.path(), "amd"), "t", "amd64"));
  CHECK(Layout::open(path.path())->image("t")->config.user == "amd");

  const std::string foreign = testing::write_blob(
      path.path(), kIndexType, fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", arm));
  testing::write_index(path.path(), annotated(foreign, "arm"));
  CHECK(contains(image_error(path.path()), "no image for linux/amd64"));
}

TEST_CASE("index nested without end is refused") {
  const TemporaryDirectory path;
  std::string descriptor = write_image(path.path(), "x");
  for (int i = 0; i < 10; ++i) {
    descriptor =
        testing::write_blob(path.path(), kIndexType,
                            fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", descriptor));
  }
  testing::write_index(path.path(), descriptor);
  CHECK(contains(image_error(path.path()), "nest deeper"));
}

TEST_CASE("index that claims to contain itself is refused for its digest") {
  const TemporaryDirectory path;
  const std::string self = testing::write_blob(path.path(), kIndexType, "placeholder");
  const auto digest = testing::digest_of("placeholder");
  testing::write_file(blob_file(path, digest),
                      fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", self));
  testing::write_index(path.path(), self);
  CHECK(contains(image_error(path.path()), "its descriptor says"));
}

TEST_CASE("document that does not match its digest or size is refused") {
  const TemporaryDirectory path;
  testing::write_layout(path.path(), {sample_layer()}, "v1");
  const auto image = Layout::open(path.path())->image("v1");
  REQUIRE(image);
  const std::string file = blob_file(path, image->manifest.digest);
  std::string content(image->manifest.size, ' ');

  SUBCASE("same size, other content") {
    testing::write_file(file, content);
    CHECK(contains(image_error(path.path()), "does not match its digest"));
  }
  SUBCASE("shorter") {
    content.pop_back();
    testing::write_file(file, content);
    CHECK(contains(image_error(path.path()), "its descriptor says"));
  }
  SUBCASE("missing") {
    std::filesystem::remove(file);
    CHECK(contains(image_error(path.path()), "No such file"));
  }
  SUBCASE("larger than any document") {
    testing::write_file(file, std::string(kMaxDocumentSize + 10, ' '));
    CHECK(contains(image_error(path.path()), "larger than"));
  }
  SUBCASE("a FIFO does not hang") {
    std::filesystem::remove(file);
    REQUIRE(::mkfifo(file.c_str(), 0600) == 0);
    CHECK(contains(image_error(path.path()), "not a regular file"));
  }
  SUBCASE("a symbolic link is not followed") {
    std::filesystem::rename(file, path / "elsewhere");
    std::filesystem::create_symlink(path / "elsewhere", file);
    CHECK(contains(image_error(path.path()), "cannot open"));
  }
}

TEST_CASE("layer blob of another size than its descriptor says is refused") {
  const TemporaryDirectory path;
  const auto packed = sample_layer();
  testing::write_layout(path.path(), {packed}, "v1");
  testing::write_file(blob_file(path, packed.layer.blob.digest), packed.blob + "x");
  auto layout = Layout::open(path.path());
  const auto blob = layout->blobs().open(packed.layer.blob);
  REQUIRE_FALSE(blob);
  CHECK(contains(blob.error().message, packed.layer.blob.digest.to_string()));
}

TEST_CASE("image whose parts do not fit together is refused") {
  const TemporaryDirectory path;
  const std::string layer =
      testing::write_blob(path.path(), "application/vnd.oci.image.layer.v1.tar", Tar().bytes());
  const auto write = [&](std::string_view config_json, std::string_view layers) {
    const std::string config = testing::write_blob(path.path(), kConfigType, config_json);
    testing::write_index(
        path.path(),
        testing::write_blob(
            path.path(), kManifestType,
            fmt::format(R"({{"schemaVersion":2,"config":{},"layers":[{}]}})", config, layers)));
  };
  write(R"({"rootfs":{"diff_ids":[]}})", layer);
  CHECK(contains(image_error(path.path()), "1 layers but the configuration 0 diff IDs"));

  write(R"({"os":"windows","architecture":"amd64","rootfs":{"diff_ids":[]}})", "");
  CHECK(contains(image_error(path.path()), "windows/amd64"));

  const std::string foreign = testing::write_blob(
      path.path(), "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "x");
  write(fmt::format(R"({{"rootfs":{{"diff_ids":["{}"]}}}})", testing::digest_of("x").to_string()),
        foreign);
  CHECK(contains(image_error(path.path()), "foreign"));

  testing::write_index(path.path(), testing::write_blob(path.path(), "text/plain", "x"));
  CHECK(contains(image_error(path.path()), "'text/plain'"));
}

TEST_CASE("directory that is no layout is refused") {
  const TemporaryDirectory path;
  CHECK(contains(open_error(path / "missing"), "missing"));
  CHECK(contains(open_error(path.path()), "oci-layout"));
  testing::write_index(path.path(), "");
  testing::write_file(path / "oci-layout", R"({"imageLayoutVersion":"9"})");
  CHECK(contains(open_error(path.path()), "version '9'"));
  testing::write_index(path.path(), "nonsense");
  CHECK(contains(open_error(path.path()), "'index.json'"));
}

}  // namespace
}  // namespace msb::oci
