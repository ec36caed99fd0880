// SPDX-License-Identifier: Apache-2.0
#include "oci/store/archive_writer.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <utility>

#include "oci/archive_documents.hpp"
#include "oci/decompressor.hpp"
#include "oci/layer.hpp"
#include "oci/tar_header.hpp"

namespace msb::oci {
namespace {

Result<void> write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail_errno(errno, "cannot write the archive");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return {};
}

// A tar (POSIX pax, "ustar Interchange Format") of files with short names, owned by root, at the
// time 0: nothing in it depends on when and where it is made.
class TarWriter {
 public:
  explicit TarWriter(int fd) : fd_(fd) {}

  Result<void> directory(const std::string& name) {
    return header(name, tar_type::kDirectory, 0755, 0);
  }

  Result<void> file(const std::string& name, std::string_view content) {
    if (auto begun = begin_file(name, content.size()); !begun) {
      return begun;
    }
    if (auto written = write(std::as_bytes(std::span(content))); !written) {
      return written;
    }
    return end_file();
  }

  // A file of exactly `size` bytes, which write() then gets before end_file().
  Result<void> begin_file(const std::string& name, std::uint64_t size) {
    return header(name, tar_type::kRegular, 0644, size);
  }
  Result<void> write(std::span<const std::byte> bytes) {
    written_ += bytes.size();
    return write_all(fd_, bytes);
  }
  Result<void> end_file() {
    const std::size_t rest = written_ % kTarBlockSize;
    written_ = 0;
    const std::array<std::byte, kTarBlockSize> zeros{};
    return rest == 0 ? Result<void>() : write_all(fd_, std::span(zeros).subspan(rest));
  }

  Result<void> finish() {
    const std::array<std::byte, 2 * kTarBlockSize> zeros{};
    return write_all(fd_, zeros);
  }

 private:
  Result<void> header(const std::string& name, char type, unsigned mode, std::uint64_t size) {
    std::array<char, kTarBlockSize> block{};
    const auto put = [&](std::size_t offset, std::string_view text) {
      std::copy_n(text.begin(), text.size(), block.begin() + static_cast<std::ptrdiff_t>(offset));
    };
    constexpr std::uint64_t kMaxOctal = (std::uint64_t{1} << 33U) - 1;  // eleven digits
    put(0, name);
    put(100, fmt::format("{:07o}", mode));
    put(108, "0000000");
    put(116, "0000000");
    if (size <= kMaxOctal) {
      put(124, fmt::format("{:011o}", size));
    } else {
      // GNU's base-256: big-endian, marked by the top bit of the first byte.
      block[124] = static_cast<char>(0x80);
      for (std::size_t i = 0; i < sizeof size; ++i) {
        block[135 - i] = static_cast<char>(size >> (8 * i));
      }
    }
    put(136, "00000000000");
    block[156] = type;
    put(257, std::string_view("ustar\00000", 8));
    put(148, "        ");
    unsigned sum = 0;
    for (const char c : block) {
      sum += static_cast<unsigned char>(c);
    }
    put(148, fmt::format("{:06o}", sum));
    block[154] = '\0';
    return write_all(fd_, std::as_bytes(std::span(block)));
  }

  int fd_;
  std::uint64_t written_ = 0;  // bytes of the current file
};

// Reads `source` to its end; `visit` gets every piece. Fails, after that, when the content is not
// of `digest`, for which `name` is what the store has.
template <typename Visit>
Result<void> read_verified(PieceSource& source, const Digest& digest, const std::string& name,
                           Visit visit) {
  Hasher hasher;
  auto read = for_each_piece(source, [&](std::span<const std::byte> piece) {
    hasher.update(piece);
    return visit(piece);
  });
  if (read && hasher.finish() != digest) {
    return fail("{} of the store is damaged; pull the image again", name);
  }
  return read;
}

template <typename Visit>
Result<void> read_blob(Store& store, const Descriptor& descriptor, Visit visit) {
  const auto source = store.blobs().blob(descriptor);
  if (!source) {
    return std::unexpected(source.error());
  }
  return read_verified(**source, descriptor.digest, "blob " + descriptor.digest.to_string(), visit);
}

// The tar that a layer unpacks to.
template <typename Visit>
Result<void> read_tar(Store& store, const Layer& layer, Visit visit) {
  const auto blob = store.blobs().blob(layer.blob);
  if (!blob) {
    return std::unexpected(blob.error());
  }
  const auto tar = make_decompressor(layer.compression, **blob);
  return read_verified(*tar, layer.diff_id, "layer " + layer.blob.digest.to_string(), visit);
}

// What was loaded of one image.
struct Loaded {
  const SavedImage* saved;
  Image image;
  std::string manifest;
  std::string config;
};

Result<std::vector<Loaded>> load_all(Store& store, const std::vector<SavedImage>& images) {
  std::vector<Loaded> loaded;
  for (const SavedImage& saved : images) {
    auto image = store.load(saved.entry);
    if (!image) {
      return std::unexpected(image.error());
    }
    auto manifest = store.blobs().document(image->manifest);
    auto config = store.blobs().document(image->config_blob);
    if (!manifest || !config) {
      return std::unexpected(manifest ? config.error() : manifest.error());
    }
    loaded.push_back({&saved, std::move(*image), std::move(*manifest), std::move(*config)});
  }
  return loaded;
}

Result<void> write_oci(TarWriter& tar, Store& store, const std::vector<Loaded>& images) {
  std::vector<NamedManifest> manifests;
  for (const Loaded& loaded : images) {
    manifests.push_back({loaded.image.manifest, loaded.saved->entry.reference, loaded.saved->tag});
  }
  auto done = tar.file("oci-layout", write_layout_marker());
  const auto then = [&](auto step) {
    if (done) {
      done = step();
    }
  };
  then([&] { return tar.file("index.json", write_layout_index(manifests)); });
  then([&] { return tar.directory("blobs/"); });
  then([&] { return tar.directory("blobs/sha256/"); });
  std::set<Digest> written;
  for (const Loaded& loaded : images) {
    for (const auto& [descriptor, content] :
         {std::pair(&loaded.image.manifest, &loaded.manifest),
          std::pair(&loaded.image.config_blob, &loaded.config)}) {
      if (written.insert(descriptor->digest).second) {
        then([&, name = BlobDirectory::path_of(descriptor->digest), text = content] {
          return tar.file(name, *text);
        });
      }
    }
    for (const Layer& layer : loaded.image.layers) {
      if (!written.insert(layer.blob.digest).second) {
        continue;
      }
      then([&] {
        return tar.begin_file(BlobDirectory::path_of(layer.blob.digest), layer.blob.size);
      });
      then([&] {
        return read_blob(store, layer.blob, [&](auto piece) { return tar.write(piece); });
      });
      then([&] { return tar.end_file(); });
    }
  }
  return done;
}

Result<void> write_docker(TarWriter& tar, Store& store, const std::vector<Loaded>& images) {
  Result<void> done;
  const auto then = [&](auto step) {
    if (done) {
      done = step();
    }
  };
  std::vector<DockerArchiveImage> index;
  std::set<Digest> written;
  for (const Loaded& loaded : images) {
    DockerArchiveImage listed{
        .config = loaded.image.config_blob.digest.hex() + ".json", .names = {}, .layers = {}};
    if (!loaded.saved->name.empty()) {
      listed.names.push_back(loaded.saved->name);
    }
    if (written.insert(loaded.image.config_blob.digest).second) {
      then([&] { return tar.file(listed.config, loaded.config); });
    }
    for (const Layer& layer : loaded.image.layers) {
      listed.layers.push_back(layer.diff_id.hex() + ".tar");
      if (!written.insert(layer.diff_id).second) {
        continue;
      }
      // A tar's header says the length, which only unpacking tells.
      std::uint64_t size = 0;
      then([&] {
        return read_tar(store, layer, [&](auto piece) {
          size += piece.size();
          return Result<void>();
        });
      });
      then([&] { return tar.begin_file(listed.layers.back(), size); });
      then([&] { return read_tar(store, layer, [&](auto piece) { return tar.write(piece); }); });
      then([&] { return tar.end_file(); });
    }
    index.push_back(std::move(listed));
  }
  then([&] { return tar.file("manifest.json", write_docker_archive(index)); });
  return done;
}

}  // namespace

Result<void> write_archive(int fd, Store& store, const std::vector<SavedImage>& images,
                           ArchiveKind kind) {
  const auto loaded = load_all(store, images);
  if (!loaded) {
    return std::unexpected(loaded.error());
  }
  TarWriter tar(fd);
  auto written = kind == ArchiveKind::kOci ? write_oci(tar, store, *loaded)
                                           : write_docker(tar, store, *loaded);
  return written ? tar.finish() : written;
}

}  // namespace msb::oci
