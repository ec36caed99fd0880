// SPDX-License-Identifier: Apache-2.0
#include "oci/layout.hpp"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "oci/printable.hpp"

namespace msb::oci {
namespace {

constexpr std::size_t kMaxListedTags = 20;

bool is_directory(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

// The tags of an index as an error message shows them.
std::string list_tags(const Index& index) {
  std::vector<std::string> tags;
  for (const IndexEntry& entry : index.entries) {
    if (!entry.ref_name.empty()) {
      tags.push_back(printable(entry.ref_name));
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
  std::string name = fmt::format("image layout '{}'", path);
  const auto context = [&](const Error& error) { return std::unexpected(error.within(name)); };
  Fd directory(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) {
    return fail_errno(errno, "{}: cannot open the directory", name);
  }
  const auto marker = read_document_file(directory.get(), "oci-layout");
  if (!marker) {
    return context(marker.error());
  }
  if (auto checked = check_layout_marker(*marker); !checked) {
    return context(checked.error().within("'oci-layout'"));
  }
  const auto index_text = read_document_file(directory.get(), "index.json");
  if (!index_text) {
    return context(index_text.error());
  }
  auto index = parse_index(*index_text);
  if (!index) {
    return context(index.error().within("'index.json'"));
  }
  return Layout(name, BlobDirectory(std::move(directory)), std::move(*index));
}

Result<Image> Layout::image(const std::optional<std::string>& tag) {
  const auto entry = find_tag(tag);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  const auto manifest = find_manifest(blobs_, (*entry)->descriptor);
  auto image =
      manifest ? load_image(blobs_, *manifest) : Result<Image>(std::unexpected(manifest.error()));
  if (!image) {
    return std::unexpected(image.error().within(name_));
  }
  return image;
}

Result<const IndexEntry*> Layout::find_tag(const std::optional<std::string>& tag) const {
  const auto named = [&](std::string_view name) {
    return [name](const IndexEntry& entry) { return entry.ref_name == name; };
  };
  const auto any = [&](auto eligible) { return std::ranges::any_of(index_.entries, eligible); };

  std::string wanted = tag.value_or("latest");
  if (!any(named(wanted))) {
    if (tag) {
      return fail("{} has no tag '{}'; {}", name_, wanted, list_tags(index_));
    }
    if (index_.entries.empty()) {
      return fail("{} holds no image", name_);
    }
    wanted = index_.entries.front().ref_name;
    if (!std::ranges::all_of(index_.entries, named(wanted))) {
      return fail("{} holds several images and none is tagged 'latest'; {}", name_,
                  list_tags(index_));
    }
  }
  const IndexEntry* entry = choose_platform(index_, named(wanted));
  if (entry == nullptr) {
    return fail("{}: image '{}' is not available for {}/{}", name_, printable(wanted), kOs,
                kArchitecture);
  }
  return entry;
}

}  // namespace msb::oci
