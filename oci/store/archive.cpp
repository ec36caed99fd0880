// SPDX-License-Identifier: Apache-2.0
#include "oci/store/archive.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "oci/archive_documents.hpp"
#include "oci/blob_directory.hpp"
#include "oci/block_stream.hpp"
#include "oci/decompressor.hpp"
#include "oci/file_source.hpp"
#include "oci/layer.hpp"
#include "oci/printable.hpp"
#include "oci/store/draft.hpp"
#include "oci/tar_reader.hpp"

namespace msb::oci {
namespace {

constexpr std::size_t kMaxEntries = 100'000;
constexpr int kMaxFollowedArchiveLinks = 8;
constexpr std::size_t kMagicLength = 4;  // bytes

// What cannot seek, as a stream.
class PipeSource final : public PieceSource {
 public:
  explicit PipeSource(int fd) : fd_(fd), buffer_(kBufferSize) {}

  Result<std::span<const std::byte>> next() override {
    for (;;) {
      const ssize_t count = ::read(fd_, buffer_.data(), buffer_.size());
      if (count >= 0) {
        return std::span<const std::byte>(buffer_).first(static_cast<std::size_t>(count));
      }
      if (errno != EINTR) {
        return fail_errno(errno, "cannot read the archive");
      }
    }
  }

 private:
  static constexpr std::size_t kBufferSize = std::size_t{256} << 10;  // bytes
  int fd_;
  std::vector<std::byte> buffer_;
};

std::string first_bytes(int fd) {
  std::array<char, kMagicLength> bytes{};
  const ssize_t count = ::pread(fd, bytes.data(), bytes.size(), 0);
  return {bytes.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

// Copies `source` into an unnamed file.
Result<Fd> spool_into(int directory, PieceSource& source) {
  const auto draft = Draft::create(directory);
  if (!draft) {
    return std::unexpected(draft.error());
  }
  const LayerLimits limits;
  std::uint64_t size = 0;
  auto spooled = for_each_piece(source, [&](std::span<const std::byte> piece) -> Result<void> {
    if (size + piece.size() > limits.tar_bytes) {
      return fail("the archive is longer than {} bytes", limits.tar_bytes);
    }
    auto written = write_at(draft->fd(), piece, size);
    size += piece.size();
    return written;
  });
  if (!spooled) {
    return std::unexpected(spooled.error());
  }
  Fd copy(::fcntl(draft->fd(), F_DUPFD_CLOEXEC, 0));
  if (!copy) {
    return fail_errno(errno, "cannot keep the archive open");
  }
  return copy;
}

// "./a//b/../c" as "a/c"; nothing that leads out of the archive.
std::optional<std::string> normalize(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const auto slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
    if (part == "..") {
      if (parts.empty()) {
        return std::nullopt;
      }
      parts.pop_back();
    } else if (!part.empty() && part != ".") {
      parts.push_back(part);
    }
  }
  std::string normalized;
  for (const std::string_view part : parts) {
    normalized += normalized.empty() ? "" : "/";
    normalized += part;
  }
  return normalized;
}

}  // namespace

Result<std::vector<ArchivedImage>> images_of(const Index& index) {
  std::vector<ArchivedImage> images;
  for (const IndexEntry& entry : index.entries) {
    // Several platforms may lie side by side; attestations call theirs unknown.
    if (!entry.os.empty() && (entry.os != kOs || entry.architecture != kArchitecture)) {
      continue;
    }
    const std::string& name = entry.image_name.empty() ? entry.ref_name : entry.image_name;
    ArchivedImage image{.target = entry.descriptor, .names = {}};
    if (!name.empty()) {
      image.names.push_back(name);
    }
    images.push_back(std::move(image));
  }
  if (images.empty() && !index.entries.empty()) {
    return fail("the index has no image for {}/{}; it has {}", kOs, kArchitecture,
                list_platforms(index));
  }
  return images;
}

Result<std::unique_ptr<Archive>> Archive::open(Fd file, int spool) {
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) {
    return fail_errno(errno, "cannot examine the archive");
  }
  if (S_ISDIR(status.st_mode)) {
    return fail("it is a directory without an image layout");
  }
  if (!S_ISREG(status.st_mode)) {
    PipeSource pipe(file.get());
    auto copy = spool_into(spool, pipe);
    if (!copy) {
      return std::unexpected(copy.error());
    }
    file = std::move(*copy);
  }
  const Compression compression = detect_compression(first_bytes(file.get()));
  if (compression != Compression::kNone) {
    FileSource packed(std::move(file));
    const auto unpacked = make_decompressor(compression, packed);
    auto copy = spool_into(spool, *unpacked);
    if (!copy) {
      return std::unexpected(copy.error());
    }
    file = std::move(*copy);
  }
  std::unique_ptr<Archive> archive(new Archive(std::move(file)));
  if (auto read = archive->read_entries(); !read) {
    return std::unexpected(read.error());
  }
  Result<void> read;
  if (archive->files_.contains("index.json") && archive->files_.contains("oci-layout")) {
    read = archive->read_layout();
  } else if (archive->files_.contains("manifest.json")) {
    read = archive->read_docker_archive();
  } else {
    return fail(
        "it is no archive of images: it has neither an OCI layout's 'index.json' nor the "
        "'manifest.json' of `docker save`");
  }
  if (!read) {
    return std::unexpected(read.error());
  }
  if (archive->images_.empty()) {
    return fail("the archive holds no image");
  }
  return archive;
}

Result<void> Archive::read_entries() {
  FileSource source(file_.get());
  TarReader reader(source);
  for (std::size_t count = 0;; ++count) {
    const auto entry = reader.next_entry();
    if (!entry) {
      return std::unexpected(entry.error());
    }
    if (!*entry) {
      return {};
    }
    if (count == kMaxEntries) {
      return fail("the archive has more than {} entries", kMaxEntries);
    }
    const TarEntry& found = **entry;
    const auto name = normalize(found.entry.path);
    if (!name) {
      return fail("the archive has an entry '{}' outside of itself", printable(found.entry.path));
    }
    if (found.content_offset) {
      links_.erase(*name);
      files_[*name] = Range{*found.content_offset, found.size};
      continue;
    }
    std::optional<std::string> target;
    if (found.hard_link) {
      target = normalize(*found.hard_link);
    } else if (found.entry.type == FileType::kSymlink &&
               !found.entry.link_target.starts_with('/')) {
      const auto slash = name->rfind('/');
      target = normalize(slash == std::string::npos ? std::string(found.entry.link_target)
                                                    : fmt::format("{}/{}", name->substr(0, slash),
                                                                  found.entry.link_target));
    }
    if (target) {
      files_.erase(*name);
      links_[*name] = *target;
    }
  }
}

Result<Archive::Range> Archive::find(const std::string& name) const {
  std::string current = normalize(name).value_or("");
  for (int links = 0; links <= kMaxFollowedArchiveLinks; ++links) {
    if (const auto file = files_.find(current); file != files_.end()) {
      return file->second;
    }
    const auto link = links_.find(current);
    if (link == links_.end()) {
      break;
    }
    current = link->second;
  }
  return fail("the archive has no file '{}'", printable(name));
}

Result<std::string> Archive::read(const Range& range) const {
  if (range.length > kMaxDocumentSize) {
    return fail("it is larger than {} bytes", kMaxDocumentSize);
  }
  std::string content;
  FileSource source(file_.get(), range.offset, range.length);
  auto read = for_each_piece(source, [&](std::span<const std::byte> piece) -> Result<void> {
    content.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    return {};
  });
  return read ? Result<std::string>(std::move(content)) : std::unexpected(read.error());
}

Result<std::string> Archive::read(const std::string& name) const {
  const auto range = find(name);
  if (!range) {
    return std::unexpected(range.error());
  }
  auto content = read(*range);
  if (!content) {
    return std::unexpected(content.error().within(fmt::format("'{}'", printable(name))));
  }
  return content;
}

Result<void> Archive::read_layout() {
  const auto marker = read("oci-layout");
  if (!marker) {
    return std::unexpected(marker.error());
  }
  if (auto checked = check_layout_marker(*marker); !checked) {
    return std::unexpected(checked.error().within("'oci-layout'"));
  }
  const auto text = read("index.json");
  if (!text) {
    return std::unexpected(text.error());
  }
  const auto index = parse_index(*text);
  if (!index) {
    return std::unexpected(index.error().within("'index.json'"));
  }
  auto images = images_of(*index);
  if (!images) {
    return std::unexpected(images.error());
  }
  images_ = std::move(*images);
  return {};
}

Result<void> Archive::read_docker_archive() {
  const auto text = read("manifest.json");
  if (!text) {
    return std::unexpected(text.error());
  }
  const auto images = parse_docker_archive(*text);
  if (!images) {
    return std::unexpected(images.error().within("'manifest.json'"));
  }
  for (const DockerArchiveImage& image : *images) {
    auto assembled = assemble(image);
    if (!assembled) {
      return std::unexpected(assembled.error());
    }
    images_.push_back(std::move(*assembled));
  }
  return {};
}

// Such an image has no manifest, so it gets one: of its configuration as it is, and its layers as
// they are.
Result<ArchivedImage> Archive::assemble(const DockerArchiveImage& image) {
  const auto config_text = read(image.config);
  if (!config_text) {
    return std::unexpected(config_text.error());
  }
  const auto parsed = parse_config(*config_text);
  if (!parsed) {
    return std::unexpected(
        parsed.error().within(fmt::format("configuration '{}'", printable(image.config))));
  }
  if (parsed->diff_ids.size() != image.layers.size()) {
    return fail("'manifest.json' lists {} layers but the configuration '{}' {} diff IDs",
                image.layers.size(), printable(image.config), parsed->diff_ids.size());
  }
  std::vector<Descriptor> layers;
  for (std::size_t i = 0; i < image.layers.size(); ++i) {
    const auto range = find(image.layers[i]);
    if (!range) {
      return std::unexpected(range.error());
    }
    auto layer = describe_layer(*range, parsed->diff_ids[i]);
    if (!layer) {
      return std::unexpected(
          layer.error().within(fmt::format("layer '{}'", printable(image.layers[i]))));
    }
    blobs_[layer->digest] = *range;
    layers.push_back(std::move(*layer));
  }
  const Descriptor config{std::string(kConfigMediaType),
                          Digest::of(std::as_bytes(std::span(*config_text))), config_text->size()};
  std::string manifest = write_manifest(config, layers);
  const Descriptor target{std::string(kManifestMediaType),
                          Digest::of(std::as_bytes(std::span(manifest))), manifest.size()};
  documents_[config.digest] = *config_text;
  documents_[target.digest] = std::move(manifest);
  return ArchivedImage{target, image.names};
}

// A plain tar's digest is its diff ID, which is checked when it is converted; that of a compressed
// one is nowhere, so it is computed.
Result<Descriptor> Archive::describe_layer(const Range& range, const Digest& diff_id) const {
  FileSource source(file_.get(), range.offset, range.length);
  auto piece = source.next();
  if (!piece) {
    return std::unexpected(piece.error());
  }
  const std::string_view start(reinterpret_cast<const char*>(piece->data()),
                               std::min(piece->size(), kMagicLength));
  const Compression compression = detect_compression(start);
  if (compression == Compression::kNone) {
    return Descriptor{std::string(kLayerMediaType), diff_id, range.length};
  }
  Hasher hasher;
  while (!piece->empty()) {
    hasher.update(*piece);
    piece = source.next();
    if (!piece) {
      return std::unexpected(piece.error());
    }
  }
  return Descriptor{
      std::string(compression == Compression::kGzip ? kGzipLayerMediaType : kZstdLayerMediaType),
      hasher.finish(), range.length};
}

Result<std::string> Archive::document(const Descriptor& descriptor) {
  const auto made = documents_.find(descriptor.digest);
  auto content = made != documents_.end() ? Result<std::string>(made->second)
                                          : read(BlobDirectory::path_of(descriptor.digest));
  if (!content) {
    return std::unexpected(content.error().within("document " + descriptor.digest.to_string()));
  }
  if (auto checked = check_document(descriptor, *content); !checked) {
    return std::unexpected(checked.error());
  }
  return content;
}

Result<std::unique_ptr<PieceSource>> Archive::blob(const Descriptor& descriptor) {
  const auto known = blobs_.find(descriptor.digest);
  const auto range = known != blobs_.end() ? Result<Range>(known->second)
                                           : find(BlobDirectory::path_of(descriptor.digest));
  if (!range) {
    return std::unexpected(range.error());
  }
  return std::make_unique<FileSource>(file_.get(), range->offset, range->length);
}

}  // namespace msb::oci
