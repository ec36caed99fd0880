// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <mutex>
#include <set>

#include "base/fd.hpp"
#include "oci/erofs_writer.hpp"
#include "oci/store/store.hpp"
#include "oci/store/test_image.hpp"

namespace msb::oci {
namespace {

using testing::layer_of;
using testing::MemorySource;
using testing::TemporaryDirectory;

constexpr const char* kName = "docker.io/library/x:1";

Store open(const TemporaryDirectory& directory) {
  auto store = Store::open(directory / "home");
  REQUIRE_MESSAGE(store, (store ? "" : store.error().message));
  return std::move(*store);
}

Imported import(Store& store, ImageSource& source, const Descriptor& target,
                const ImportOptions& options = {}) {
  auto imported = store.import(source, target, {kName}, options);
  REQUIRE_MESSAGE(imported, (imported ? "" : imported.error().message));
  return std::move(*imported);
}

std::string import_error(Store& store, ImageSource& source, const Descriptor& target,
                         const ImportOptions& options = {}) {
  const auto imported = store.import(source, target, {kName}, options);
  REQUIRE_FALSE(imported);
  return imported.error().message;
}

// Every file of the store that is not of SQLite or a lock.
std::set<std::string> files_of(const TemporaryDirectory& directory) {
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory / "home")) {
    const std::string name = entry.path().filename();
    // A writer that was killed can leave its journal, which SQLite deals with.
    if (entry.is_regular_file() && !name.starts_with("images.db") && name != "store.lock") {
      files.insert(name);
    }
  }
  return files;
}

// Remembers what was said of each layer.
class Record final : public Progress {
 public:
  void begin(const std::vector<Layer>& layers) override { states.resize(layers.size()); }
  void update(std::size_t layer, LayerState state, std::uint64_t received) override {
    const std::lock_guard lock(mutex);
    states[layer].push_back(state);
    last_received = received;
  }
  std::mutex mutex;
  std::vector<std::vector<LayerState>> states;
  std::uint64_t last_received = 0;
};

TEST_CASE("imported image is found, complete, and its layers open lowest first") {
  const TemporaryDirectory directory;
  Store store = open(directory);
  MemorySource source;
  const auto one = layer_of("one");
  const auto two = layer_of("two", 100, Compression::kZstd);
  const auto three = layer_of("three", 100, Compression::kNone);
  const Descriptor target = source.add({one, two, three}, "someone");
  const Imported imported = import(store, source, target);
  CHECK(imported.received == one.blob.size() + two.blob.size() + three.blob.size());

  const auto entry = store.find(kName);
  REQUIRE(entry);
  REQUIRE(*entry);
  CHECK((*entry)->target == target.digest);
  CHECK(store.load_complete(**entry)->has_value());
  const auto image = store.load(**entry);
  REQUIRE(image);
  CHECK(image->config.user == "someone");
  const auto layers = store.open_layers(*image);
  REQUIRE(layers);
  REQUIRE(layers->size() == 3);
  CHECK(testing::read_image((*layers)[0].get()).contains("one"));
  CHECK(testing::read_image((*layers)[2].get()).contains("three"));
}

TEST_CASE("layer that another image has is neither fetched nor converted again") {
  const TemporaryDirectory directory;
  Store store = open(directory);
  MemorySource source;
  const auto shared = layer_of("shared");
  import(store, source, source.add({shared, layer_of("a")}));
  CHECK(source.blobs_given() == 2);
  Record record;
  const Imported second =
      import(store, source, source.add({shared, layer_of("b")}), {.progress = &record});
  CHECK(source.blobs_given() == 3);
  CHECK(second.received == layer_of("b").blob.size());
  CHECK(record.states[0] == std::vector{LayerState::kPresent});
  CHECK(record.states[1].back() == LayerState::kDone);
}

TEST_CASE("layer that an image has twice is fetched once") {
  const TemporaryDirectory directory;
  Store store = open(directory);
  MemorySource source;
  const auto layer = layer_of("x", 100'000);
  import(store, source, source.add({layer, layer, layer}));
  CHECK(source.blobs_given() == 1);
}

TEST_CASE("index leads to the image of our platform") {
  const TemporaryDirectory directory;
  Store store = open(directory);
  MemorySource source;
  const Descriptor manifest = source.add({layer_of("x")});
  const auto index_with = [&](std::string_view architecture) {
    return source.add_document(
        kIndexMediaType,
        fmt::format(
            R"({{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{}","size":{},)"
            R"("platform":{{"os":"linux","architecture":"{}"}}}}]}})",
            manifest.media_type, manifest.digest.to_string(), manifest.size, architecture));
  };
  const Descriptor index = index_with("amd64");
  import(store, source, index);
  const auto entry = store.find(kName);
  REQUIRE(*entry);
  CHECK((*entry)->target == index.digest);
  CHECK((*entry)->manifest.digest == manifest.digest);
  CHECK(import_error(store, source, index_with("arm64")).find("it has linux/arm64") !=
        std::string::npos);
}

TEST_CASE("layer that is wrong fails the import and leaves nothing of itself") {
  const TemporaryDirectory directory;
  Store store = open(directory);
  MemorySource source;
  const auto good = layer_of("good");
  const auto bad = layer_of("bad", 300'000);
  const Descriptor target = source.add({good, bad});
  std::string other = bad.blob;
  other[other.size() / 2] ^= 1;
  SUBCASE("other bytes") {
    source.replace(bad.layer.blob.digest, other);
  }
  SUBCASE("cut off") {
    source.replace(bad.layer.blob.digest, bad.blob.substr(0, bad.blob.size() / 2));
  }
  SUBCASE("too long") {
    source.replace(bad.layer.blob.digest, bad.blob + "x");
  }
  const std::string error = import_error(store, source, target);
  CHECK(error.find(bad.layer.blob.digest.to_string()) != std::string::npos);
  CHECK_FALSE(*store.find(kName));
  CHECK_FALSE(files_of(directory).contains(bad.layer.blob.digest.hex()));
  CHECK_FALSE(files_of(directory).contains(bad.layer.diff_id.hex() + ".erofs"));

  source.replace(bad.layer.blob.digest, bad.blob);
  const int before = source.blobs_given();
  import(store, source, target);
  // What was good the first time is not fetched again.
  CHECK(source.blobs_given() <= before + 2);
  CHECK(store.load_complete(**store.find(kName))->has_value());
}

TEST_CASE("layer beyond the limits is refused with its name") {
  const TemporaryDirectory directory;
  Store store = open(directory);
  MemorySource source;
  const auto layer = layer_of("x", 100'000);
  const Descriptor target = source.add({layer});
  const std::string error =
      import_error(store, source, target, {.limits = {.tar_bytes = 50'000, .entries = 100}});
  CHECK(error.find(layer.layer.blob.digest.to_string()) != std::string::npos);
  CHECK(error.find("50000") != std::string::npos);
}

TEST_CASE("damaged file of the store is made again by the next import") {
  const TemporaryDirectory directory;
  Store store = open(directory);
  MemorySource source;
  const auto layer = layer_of("x");
  const Descriptor target = source.add({layer});
  import(store, source, target);
  const std::string blob =
      directory / fmt::format("home/blobs/sha256/{}", layer.layer.blob.digest.hex());
  const std::string manifest = directory / fmt::format("home/blobs/sha256/{}", target.digest.hex());
  const auto replace = [](const std::string& file, std::string_view content) {
    std::filesystem::remove(file);
    testing::write_file(file, content);
  };
  SUBCASE("blob cut off") {
    replace(blob, "x");
  }
  SUBCASE("blob missing") {
    std::filesystem::remove(blob);
  }
  SUBCASE("manifest damaged") {
    replace(manifest, std::string(target.size, ' '));
  }
  import(store, source, target);
  const auto entry = store.find(kName);
  CHECK(store.load_complete(**entry)->has_value());
  CHECK(store.load(**entry));
  CHECK(std::filesystem::file_size(blob) == layer.blob.size());
}

TEST_CASE("layer whose image alone is missing is converted from the blob that is kept") {
  const TemporaryDirectory directory;
  Store store = open(directory);
  MemorySource source;
  const Descriptor target = source.add({layer_of("x")});
  import(store, source, target);
  for (const auto& file :
       std::filesystem::recursive_directory_iterator(directory / "home/layers")) {
    if (file.is_regular_file()) {
      std::filesystem::remove(file.path());
    }
  }
  CHECK_FALSE(store.load_complete(**store.find(kName))->has_value());
  import(store, source, target);
  CHECK(source.blobs_given() == 1);
  CHECK(store.load_complete(**store.find(kName))->has_value());
}

TEST_CASE("processes that import the same image at once fetch each layer once") {
  const TemporaryDirectory directory;
  static_cast<void>(open(directory));
  std::vector<testing::PackedLayer> layers;
  for (int i = 0; i < 4; ++i) {
    layers.push_back(layer_of(fmt::format("layer{}", i), 500'000));
  }
  std::vector<pid_t> children;
  std::vector<Fd> counts;
  for (int i = 0; i < 4; ++i) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      MemorySource source;
      const Descriptor target = source.add(layers);
      auto store = Store::open(directory / "home");
      const bool done = store && store->import(source, target, {kName}, {});
      const char given = static_cast<char>(source.blobs_given());
      ::_exit(::write(ends[1], &given, 1) == 1 && done ? 0 : 1);
    }
    ::close(ends[1]);
    counts.emplace_back(ends[0]);
    children.push_back(child);
  }
  int given = 0;
  for (std::size_t i = 0; i < children.size(); ++i) {
    char count = 0;
    CHECK(::read(counts[i].get(), &count, 1) == 1);
    given += count;
    int status = 0;
    REQUIRE(::waitpid(children[i], &status, 0) == children[i]);
    CHECK(status == 0);
  }
  CHECK(given == 4);
  Store store = open(directory);
  CHECK(store.load_complete(**store.find(kName))->has_value());
}

TEST_CASE("killing an import at any time leaves only whole files, and the next one completes it") {
  const TemporaryDirectory directory;
  std::vector<testing::PackedLayer> layers;
  for (int i = 0; i < 5; ++i) {
    layers.push_back(layer_of(fmt::format("layer{}", i), 2'000'000));
  }
  MemorySource source;
  const Descriptor target = source.add(layers);
  for (useconds_t delay = 0; delay < 120'000; delay += 6000) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      auto store = Store::open(directory / "home");
      ::_exit(store && store->import(source, target, {kName}, {}) ? 0 : 1);
    }
    ::usleep(delay);
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    Store store = open(directory);
    for (const std::string& file : files_of(directory)) {
      CAPTURE(file);
      if (file.ends_with(".erofs")) {
        const auto diff_id = Digest::parse("sha256:" + file.substr(0, 64));
        REQUIRE(diff_id);
        const Fd fd(
            ::open((directory / fmt::format("home/layers/erofs-v{}/{}", kErofsWriterVersion, file))
                       .c_str(),
                   O_RDONLY | O_CLOEXEC));
        CHECK(testing::read_image(fd.get()).size() == 2);
        continue;
      }
      const Fd fd(
          ::open((directory / fmt::format("home/blobs/sha256/{}", file)).c_str(), O_RDONLY));
      std::string content(3'000'000, '\0');
      const ssize_t length = ::read(fd.get(), content.data(), content.size());
      content.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
      CHECK(testing::digest_of(content).hex() == file);
    }
    const auto entry = store.find(kName);
    REQUIRE(entry);
    CHECK((!*entry || store.load_complete(**entry)->has_value()));
    if (*entry) {
      REQUIRE(store.remove(**entry));
      REQUIRE(store.prune({}));
      CHECK(files_of(directory).empty());
    }
  }
  Store store = open(directory);
  import(store, source, target);
  CHECK(store.load_complete(**store.find(kName))->has_value());
  CHECK(files_of(directory).size() == 12);
}

}  // namespace
}  // namespace msb::oci
