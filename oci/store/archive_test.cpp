// SPDX-License-Identifier: Apache-2.0
#include "oci/store/archive.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <thread>

#include "oci/blob_directory.hpp"
#include "oci/store/archive_writer.hpp"
#include "oci/store/test_image.hpp"

namespace msb::oci {
namespace {

using testing::layer_of;
using testing::MemorySource;
using testing::Tar;
using testing::TemporaryDirectory;

constexpr const char* kName = "docker.io/library/x:1";

struct Fixture {
  [[nodiscard]] Store store(const std::string& name = "home") const {
    auto opened = Store::open(directory / name);
    REQUIRE(opened);
    return std::move(*opened);
  }

  [[nodiscard]] Result<std::unique_ptr<Archive>> open(std::string_view content) const {
    const Fd spool(::open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return Archive::open(testing::temporary_file(content), spool.get());
  }

  [[nodiscard]] std::string open_error(std::string_view content) const {
    const auto archive = open(content);
    REQUIRE_FALSE(archive);
    return archive.error().message;
  }

  TemporaryDirectory directory;
};

std::string config_for(const std::vector<testing::PackedLayer>& layers) {
  std::string diff_ids;
  for (const auto& packed : layers) {
    diff_ids +=
        fmt::format(R"({}"{}")", diff_ids.empty() ? "" : ",", packed.layer.diff_id.to_string());
  }
  return fmt::format(R"({{"rootfs":{{"type":"layers","diff_ids":[{}]}}}})", diff_ids);
}

// An archive as `docker save` wrote it for years, with a layer that is a link to another.
std::string docker_archive(const std::string& config, std::string_view layers,
                           const std::vector<testing::PackedLayer>& packed,
                           std::string_view names = R"(["x:1"])") {
  Tar tar;
  tar.file("config.json", config);
  for (std::size_t i = 0; i < packed.size(); ++i) {
    tar.directory(fmt::format("{}/", i)).file(fmt::format("{}/layer.tar", i), packed[i].blob);
  }
  tar.file("manifest.json",
           fmt::format(R"([{{"Config":"config.json","RepoTags":{},"Layers":{}}}])", names, layers));
  return tar.bytes();
}

std::string content_of(int fd) {
  std::string content(10'000'000, '\0');
  const ssize_t length = ::pread(fd, content.data(), content.size(), 0);
  content.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
  return content;
}

std::string saved(Store& store, ArchiveKind kind) {
  const auto entry = store.find(kName);
  REQUIRE(*entry);
  const Fd file = testing::temporary_file();
  const auto written =
      write_archive(file.get(), store, {{.entry = **entry, .tag = "1", .name = "x:1"}}, kind);
  REQUIRE_MESSAGE(written, (written ? "" : written.error().message));
  return content_of(file.get());
}

TEST_CASE("image saved as an OCI archive loads elsewhere with the same digests") {
  const Fixture fixture;
  Store store = fixture.store();
  MemorySource source;
  const Descriptor target =
      source.add({layer_of("one"), layer_of("two", 5000, Compression::kZstd)});
  REQUIRE(store.import(source, target, {kName}, {}));
  const std::string content = saved(store, ArchiveKind::kOci);
  CHECK(content == saved(store, ArchiveKind::kOci));

  const auto archive = fixture.open(content);
  REQUIRE_MESSAGE(archive, (archive ? "" : archive.error().message));
  REQUIRE((*archive)->images().size() == 1);
  CHECK((*archive)->images()[0].target.digest == target.digest);
  CHECK((*archive)->images()[0].names == std::vector<std::string>{kName});
  Store other = fixture.store("other");
  REQUIRE(other.import(**archive, (*archive)->images()[0].target, {kName}, {}));
  CHECK(other.load_complete(**other.find(kName))->has_value());
}

TEST_CASE("image saved as a Docker archive keeps configuration and diff IDs") {
  const Fixture fixture;
  Store store = fixture.store();
  MemorySource source;
  const auto layer = layer_of("one", 5000);
  const auto imported = store.import(source, source.add({layer, layer_of("two")}), {kName}, {});
  REQUIRE(imported);
  const auto archive = fixture.open(saved(store, ArchiveKind::kDocker));
  REQUIRE_MESSAGE(archive, (archive ? "" : archive.error().message));
  REQUIRE((*archive)->images().size() == 1);
  CHECK((*archive)->images()[0].names == std::vector<std::string>{"x:1"});
  Store other = fixture.store("other");
  const auto again = other.import(**archive, (*archive)->images()[0].target, {kName}, {});
  REQUIRE_MESSAGE(again, (again ? "" : again.error().message));
  CHECK(again->image.config_blob.digest == imported->image.config_blob.digest);
  CHECK(again->image.layers[0].diff_id == layer.layer.diff_id);
}

TEST_CASE("archive is read from a pipe and when it is compressed") {
  const Fixture fixture;
  const auto layer = layer_of("one", 300'000, Compression::kNone);
  const std::string content = docker_archive(config_for({layer}), R"(["0/layer.tar"])", {layer});
  CHECK(fixture.open(testing::gzip(content)));
  CHECK(fixture.open(testing::zstd(content)));

  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  std::jthread writer([&, end = Fd(ends[1])] {
    std::size_t done = 0;
    while (done < content.size()) {
      const ssize_t count = ::write(end.get(), content.data() + done, content.size() - done);
      if (count <= 0) {
        return;
      }
      done += static_cast<std::size_t>(count);
    }
  });
  const Fd spool(::open(fixture.directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto archive = Archive::open(Fd(ends[0]), spool.get());
  REQUIRE_MESSAGE(archive, (archive ? "" : archive.error().message));
  CHECK((*archive)->images().size() == 1);
  CHECK(testing::list_directory(fixture.directory.path()).empty());
}

TEST_CASE("Docker archive's links and compressed layers are understood") {
  const Fixture fixture;
  const auto plain = layer_of("one", 1000, Compression::kNone);
  const auto packed = layer_of("two", 1000, Compression::kGzip);
  Tar tar;
  tar.file("config.json", config_for({plain, packed, plain}))
      .file("./a/layer.tar", plain.blob)
      .file("b/layer.tar", packed.blob)
      .symlink("c/layer.tar", "../a/layer.tar")
      .file("manifest.json", R"([{"Config":"config.json","RepoTags":null,)"
                             R"("Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}])");
  const auto archive = fixture.open(tar.bytes());
  REQUIRE_MESSAGE(archive, (archive ? "" : archive.error().message));
  Store store = fixture.store();
  const auto imported = store.import(**archive, (*archive)->images()[0].target, {kName}, {});
  REQUIRE_MESSAGE(imported, (imported ? "" : imported.error().message));
  CHECK(imported->image.layers[1].compression == Compression::kGzip);
  CHECK(imported->image.layers[2].diff_id == plain.layer.diff_id);
}

TEST_CASE("what is no archive of images is refused with what it lacks") {
  const Fixture fixture;
  const auto layer = layer_of("one", 1000, Compression::kNone);
  const std::string config = config_for({layer});
  const auto says = [](const std::string& message, std::string_view part) {
    INFO(message);
    return message.find(part) != std::string::npos;
  };
  CHECK(says(fixture.open_error(""), "no archive of images"));
  CHECK(says(fixture.open_error(std::string(2000, 'x')), "tar archive is broken"));
  CHECK(says(fixture.open_error(Tar().file("readme").bytes()), "no archive of images"));
  CHECK(says(fixture.open_error(Tar().file("../x").bytes()), "outside of itself"));
  CHECK(says(fixture.open_error(docker_archive(config, R"(["9/layer.tar"])", {layer})),
             "no file '9/layer.tar'"));
  CHECK(says(fixture.open_error(docker_archive(config, R"([])", {layer})), "0 layers"));
  CHECK(says(fixture.open_error(docker_archive("{}", R"(["0/layer.tar"])", {layer})), "'rootfs'"));
  CHECK(says(fixture.open_error(docker_archive(config, R"("0/layer.tar")", {layer})), "'Layers'"));
  CHECK(says(fixture.open_error(Tar().file("manifest.json", "[]").bytes()), "no image"));
  CHECK(says(fixture.open_error(Tar()
                                    .symlink("a", "b")
                                    .symlink("b", "a")
                                    .file("manifest.json", R"([{"Config":"a","Layers":[]}])")
                                    .bytes()),
             "no file 'a'"));
  const std::string whole = docker_archive(config, R"(["0/layer.tar"])", {layer});
  CHECK(says(fixture.open_error(whole.substr(0, 3000)), ""));
  CHECK(says(fixture.open_error(testing::gzip(whole).substr(0, 500)), "ends early"));
}

TEST_CASE("archive whose layer is not what its configuration says is refused at the import") {
  const Fixture fixture;
  const auto layer = layer_of("one", 1000, Compression::kNone);
  const auto other = layer_of("two", 1000, Compression::kNone);
  const auto archive =
      fixture.open(docker_archive(config_for({layer}), R"(["0/layer.tar"])", {other}));
  REQUIRE(archive);
  Store store = fixture.store();
  const auto imported = store.import(**archive, (*archive)->images()[0].target, {kName}, {});
  REQUIRE_FALSE(imported);
  CHECK(imported.error().message.find(layer.layer.diff_id.to_string()) != std::string::npos);
}

TEST_CASE("damaged blob is not saved") {
  const Fixture fixture;
  Store store = fixture.store();
  MemorySource source;
  const auto layer = layer_of("one", 5000, Compression::kNone);
  REQUIRE(store.import(source, source.add({layer}), {kName}, {}));
  const std::string file =
      fixture.directory / fmt::format("home/blobs/sha256/{}", layer.layer.blob.digest.hex());
  ::unlink(file.c_str());
  std::string damaged = layer.blob;
  damaged[700] ^= 1;
  testing::write_file(file, damaged);
  for (const ArchiveKind kind : {ArchiveKind::kOci, ArchiveKind::kDocker}) {
    const Fd output = testing::temporary_file();
    const auto entry = store.find(kName);
    const auto written =
        write_archive(output.get(), store, {{.entry = **entry, .tag = {}, .name = {}}}, kind);
    REQUIRE_FALSE(written);
    CHECK(written.error().message.find("damaged") != std::string::npos);
  }
}

}  // namespace
}  // namespace msb::oci
