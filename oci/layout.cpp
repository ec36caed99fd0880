// SPDX-License-Identifier: Apache-2.0
#include "oci/layout.hpp"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace msb::oci {
namespace {

constexpr std::string_view kOs = "linux";
constexpr std::string_view kArchitecture = "amd64";
constexpr int kMaxNestedIndexes = 4;
constexpr std::size_t kMaxListedTags = 20;

bool is_directory(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

// Opens a regular file below `directory` without following symbolic links or waiting on a FIFO.
Result<Fd> open_regular(int directory, const std::string& path) {
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  Fd fd(static_cast<int>(::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how)));
  if (!fd) {
    return fail_errno(errno, "cannot open '{}'", path);
  }
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) {
    return fail_errno(errno, "cannot examine '{}'", path);
  }
  if (!S_ISREG(status.st_mode)) {
    return fail("'{}' is not a regular file", path);
  }
  return fd;
}

// All of `fd`, which may not be longer than `limit` bytes.
Result<std::string> read_all(int fd, std::size_t limit) {
  std::string content;
  std::size_t length = 0;
  for (;;) {
    content.resize(std::min(std::max<std::size_t>(2 * length, 16384), limit + 1));
    const ssize_t count = ::read(fd, content.data() + length, content.size() - length);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail_errno(errno, "cannot read it");
    }
    length += static_cast<std::size_t>(count);
    if (length > limit) {
      return fail("it is larger than {} bytes", limit);
    }
    if (count == 0) {
      content.resize(length);
      return content;
    }
  }
}

Result<std::string> read_file(int directory, const std::string& path) {
  const auto fd = open_regular(directory, path);
  if (!fd) {
    return std::unexpected(fd.error());
  }
  auto content = read_all(fd->get(), kMaxDocumentSize);
  if (!content) {
    return std::unexpected(content.error().within(fmt::format("'{}'", path)));
  }
  return content;
}

std::string blob_path(const Digest& digest) {
  return "blobs/sha256/" + digest.hex();
}

// The tags of an index as an error message shows them.
std::string list_tags(const Index& index) {
  std::vector<std::string_view> tags;
  for (const IndexEntry& entry : index.entries) {
    if (!entry.ref_name.empty()) {
      tags.emplace_back(entry.ref_name);
    }
  }
  std::ranges::sort(tags);
  tags.erase(std::ranges::unique(tags).begin(), tags.end());
  if (tags.empty()) {
    return "it has no tags";
  }
  const bool shortened = tags.size() > kMaxListedTags;
  if (shortened) {
    tags.resize(kMaxListedTags);
  }
  return fmt::format("it has {}{}", fmt::join(tags, ", "), shortened ? ", ..." : "");
}

// An entry without a platform says nothing, so it is taken when nothing better is there.
bool platform_matches(const IndexEntry& entry) {
  return entry.os == kOs && entry.architecture == kArchitecture;
}
bool platform_unknown(const IndexEntry& entry) {
  return entry.os.empty() && entry.architecture.empty();
}

// The entry for our platform among those that `eligible` accepts.
template <typename Eligible>
const IndexEntry* choose_platform(const Index& index, Eligible eligible) {
  for (const auto acceptable : {&platform_matches, &platform_unknown}) {
    for (const IndexEntry& entry : index.entries) {
      if (eligible(entry) && acceptable(entry)) {
        return &entry;
      }
    }
  }
  return nullptr;
}

}  // namespace

Result<LayoutReference> parse_layout_reference(std::string_view argument) {
  std::string whole(argument);
  if (is_directory(whole)) {
    return LayoutReference{std::move(whole), std::nullopt};
  }
  const auto colon = argument.rfind(':');
  if (colon != std::string_view::npos && colon + 1 < argument.size()) {
    std::string path(argument.substr(0, colon));
    if (is_directory(path)) {
      return LayoutReference{std::move(path), std::string(argument.substr(colon + 1))};
    }
  }
  return fail("image '{}' is not a directory with an OCI image layout (LAYOUT or LAYOUT:TAG)",
              argument);
}

Result<Layout> Layout::open(const std::string& path) {
  const auto context = [&](const Error& error) {
    return std::unexpected(error.within(fmt::format("image layout '{}'", path)));
  };
  Fd directory(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) {
    return fail_errno(errno, "image layout '{}': cannot open the directory", path);
  }
  const auto marker = read_file(directory.get(), "oci-layout");
  if (!marker) {
    return context(marker.error());
  }
  if (auto checked = check_layout_marker(*marker); !checked) {
    return context(checked.error().within("'oci-layout'"));
  }
  const auto index_text = read_file(directory.get(), "index.json");
  if (!index_text) {
    return context(index_text.error());
  }
  auto index = parse_index(*index_text);
  if (!index) {
    return context(index.error().within("'index.json'"));
  }
  return Layout(path, std::move(directory), std::move(*index));
}

Result<Image> Layout::image(const std::optional<std::string>& tag) const {
  const auto context = [&](const Error& error) {
    return std::unexpected(error.within(fmt::format("image layout '{}'", path_)));
  };
  const auto entry = find_tag(tag);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  auto manifest_descriptor = find_manifest((*entry)->descriptor);
  if (!manifest_descriptor) {
    return context(manifest_descriptor.error());
  }
  const auto manifest_text = read_document(*manifest_descriptor);
  if (!manifest_text) {
    return context(manifest_text.error());
  }
  const auto manifest = parse_manifest(*manifest_text);
  if (!manifest) {
    return context(manifest.error().within("manifest " + manifest_descriptor->digest.to_string()));
  }
  const auto config_text = read_document(manifest->config);
  if (!config_text) {
    return context(config_text.error());
  }
  auto config = parse_config(*config_text);
  if (!config) {
    return context(config.error().within("configuration " + manifest->config.digest.to_string()));
  }
  auto image = assemble_image(std::move(*manifest_descriptor), *manifest, std::move(*config));
  if (!image) {
    return context(image.error());
  }
  return image;
}

Result<Fd> Layout::open_blob(const Descriptor& blob) const {
  auto fd = open_regular(directory_.get(), blob_path(blob.digest));
  if (!fd) {
    return std::unexpected(fd.error().within(fmt::format("image layout '{}'", path_)));
  }
  struct stat status{};
  if (::fstat(fd->get(), &status) != 0) {
    return fail_errno(errno, "image layout '{}': cannot examine blob {}", path_,
                      blob.digest.to_string());
  }
  if (std::cmp_not_equal(status.st_size, blob.size)) {
    return fail("image layout '{}': blob {} has {} bytes, its descriptor says {}", path_,
                blob.digest.to_string(), status.st_size, blob.size);
  }
  return fd;
}

Result<const IndexEntry*> Layout::find_tag(const std::optional<std::string>& tag) const {
  const auto named = [&](std::string_view name) {
    return [name](const IndexEntry& entry) { return entry.ref_name == name; };
  };
  const auto any = [&](auto eligible) { return std::ranges::any_of(index_.entries, eligible); };

  std::string wanted = tag.value_or("latest");
  if (!any(named(wanted))) {
    if (tag) {
      return fail("image layout '{}' has no tag '{}'; {}", path_, wanted, list_tags(index_));
    }
    if (index_.entries.empty()) {
      return fail("image layout '{}' holds no image", path_);
    }
    wanted = index_.entries.front().ref_name;
    if (!std::ranges::all_of(index_.entries, named(wanted))) {
      return fail("image layout '{}' holds several images and none is tagged 'latest'; {}", path_,
                  list_tags(index_));
    }
  }
  const IndexEntry* entry = choose_platform(index_, named(wanted));
  if (entry == nullptr) {
    return fail("image layout '{}': image '{}' is not available for {}/{}", path_, wanted, kOs,
                kArchitecture);
  }
  return entry;
}

Result<Descriptor> Layout::find_manifest(const Descriptor& start) const {
  Descriptor current = start;
  for (int depth = 0; depth <= kMaxNestedIndexes; ++depth) {
    if (is_manifest(current.media_type)) {
      return current;
    }
    if (!is_index(current.media_type)) {
      return fail("{} is of media type '{}', which is neither an image nor an index",
                  current.digest.to_string(), current.media_type);
    }
    const auto text = read_document(current);
    if (!text) {
      return std::unexpected(text.error());
    }
    const auto index = parse_index(*text);
    if (!index) {
      return std::unexpected(index.error().within("index " + current.digest.to_string()));
    }
    const IndexEntry* entry = choose_platform(*index, [](const IndexEntry&) { return true; });
    if (entry == nullptr) {
      return fail("index {} has no image for {}/{}", current.digest.to_string(), kOs,
                  kArchitecture);
    }
    Descriptor next = entry->descriptor;
    current = std::move(next);
  }
  return fail("indexes nest deeper than {} levels", kMaxNestedIndexes);
}

Result<std::string> Layout::read_document(const Descriptor& blob) const {
  const std::string name = blob.digest.to_string();
  if (blob.size > kMaxDocumentSize) {
    return fail("document {} is larger than {} bytes", name, kMaxDocumentSize);
  }
  const auto fd = open_regular(directory_.get(), blob_path(blob.digest));
  if (!fd) {
    return std::unexpected(fd.error());
  }
  auto content = read_all(fd->get(), kMaxDocumentSize);
  if (!content) {
    return std::unexpected(content.error().within("document " + name));
  }
  if (content->size() != blob.size) {
    return fail("document {} has {} bytes, its descriptor says {}", name, content->size(),
                blob.size);
  }
  const Digest found = Digest::of(std::as_bytes(std::span(*content)));
  if (found != blob.digest) {
    return fail("document {} does not match its digest: its content is {}", name,
                found.to_string());
  }
  return content;
}

Result<Image> assemble_image(Descriptor manifest_descriptor, const Manifest& manifest,
                             ImageConfig config) {
  if (!(config.os.empty() || config.os == kOs) ||
      !(config.architecture.empty() || config.architecture == kArchitecture)) {
    return fail("the image is for {}/{}, not for {}/{}", config.os, config.architecture, kOs,
                kArchitecture);
  }
  if (manifest.layers.size() != config.diff_ids.size()) {
    return fail("the manifest lists {} layers but the configuration {} diff IDs",
                manifest.layers.size(), config.diff_ids.size());
  }
  std::vector<Layer> layers;
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    const Descriptor& blob = manifest.layers[i];
    const auto compression = layer_compression(blob.media_type);
    if (!compression) {
      return std::unexpected(compression.error().within("layer " + blob.digest.to_string()));
    }
    layers.push_back(Layer{blob, *compression, config.diff_ids[i]});
  }
  return Image{std::move(manifest_descriptor), std::move(config), std::move(layers)};
}

}  // namespace msb::oci
