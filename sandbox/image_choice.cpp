// SPDX-License-Identifier: Apache-2.0
#include "sandbox/image_choice.hpp"

#include <filesystem>
#include <system_error>

#include "oci/layout.hpp"
#include "oci/printable.hpp"
#include "oci/reference.hpp"
#include "oci/store/lookup.hpp"

namespace msb::sandbox {

namespace {

namespace fs = std::filesystem;

Result<ImageChoice> choose_local(const std::string& image, const std::string& directory) {
  const std::string path = (fs::path(directory) / image).lexically_normal().string();
  ImageChoice choice;
  choice.pin.reference = image;
  const auto layout = oci::parse_layout_reference(path);
  std::error_code error;
  if (!layout) {
    return fail("there is no directory '{}' for the image '{}'", oci::printable(path),
                oci::printable(image));
  }
  if (!fs::exists(layout->path + "/oci-layout", error)) {
    if (layout->tag) {
      return fail("'{}' is no OCI image layout, so that it has no tag '{}'",
                  oci::printable(layout->path), oci::printable(*layout->tag));
    }
    choice.rootfs = path;
    return choice;
  }
  auto opened = oci::Layout::open(layout->path);
  if (!opened) {
    return std::unexpected(opened.error());
  }
  const auto found = opened->image(layout->tag);
  if (!found) {
    return std::unexpected(found.error());
  }
  choice.image = path;
  choice.pin.digest = found->manifest.digest.to_string();
  return choice;
}

Result<ImageChoice> choose_from_store(oci::Store& store, const oci::Settings& settings,
                                      const std::string& image,
                                      const std::optional<PinnedImage>& pinned) {
  ImageChoice choice;
  choice.pin.reference = image;
  if (pinned) {
    const auto entry = store.find_digest(pinned->digest);
    if (!entry) {
      return std::unexpected(entry.error());
    }
    choice.pin = *pinned;
    if (*entry) {
      choice.image = pinned->digest;
      return choice;
    }
    auto reference = oci::resolve_reference(settings, image);
    const auto digest = oci::Digest::parse(pinned->digest);
    if (!reference || !digest) {
      return fail("the image '{}' ({}) that the sandbox was made of is not here any more",
                  oci::printable(image), pinned->digest);
    }
    reference->tag.reset();
    reference->digest = *digest;
    choice.missing = reference->to_string();
    return choice;
  }
  const auto entry = oci::find_image(store, settings, image);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  if (!*entry) {
    choice.missing = image;
    return choice;
  }
  choice.pin.digest = (*entry)->manifest.digest.to_string();
  choice.image = choice.pin.digest;
  return choice;
}

std::unexpected<Error> other_image(const std::string& what, const std::string& name,
                                   std::string_view afresh) {
  const std::string way =
      afresh.empty() ? fmt::format("start afresh with `msb clean {}`", name) : std::string(afresh);
  return std::unexpected(Error{fmt::format("{}, or {}", what, way), kOtherImage});
}

}  // namespace

bool is_local_image(std::string_view image) {
  return image.starts_with('/') || image.starts_with("./") || image.starts_with("../");
}

std::string short_name(std::string_view image) {
  const bool local = is_local_image(image);
  image = image.substr(0, image.find('@'));
  image.remove_prefix(image.rfind('/') + 1);  // 0 where there is none
  const std::size_t colon = image.find(':');
  if (colon == std::string_view::npos) {
    return std::string(image);
  }
  return std::string(local ? image.substr(colon + 1) : image.substr(0, colon));
}

Result<ImageChoice> choose_image(oci::Store& store, const oci::Settings& settings,
                                 const std::string& image, const std::string& directory,
                                 const StateDirectory* state, std::string_view afresh) {
  std::optional<PinnedImage> pinned;
  if (state != nullptr) {
    auto found = state->image();
    if (!found) {
      return std::unexpected(found.error());
    }
    pinned = std::move(*found);
  }
  const std::string name = fs::path(state != nullptr ? state->path() : "").filename();
  if (pinned && pinned->reference != image) {
    return other_image(
        fmt::format("what '{}' has written lies on the image '{}', and cannot go on with '{}': go "
                    "back to that image",
                    name, oci::printable(pinned->reference), oci::printable(image)),
        name, afresh);
  }
  if (!is_local_image(image)) {
    return choose_from_store(store, settings, image, pinned);
  }
  auto choice = choose_local(image, directory);
  if (choice && pinned && pinned->digest != choice->pin.digest) {
    return other_image(
        fmt::format("the image '{}' has changed since '{}' was made of it, and what that has "
                    "written does not fit it any more: go back to the one of that time",
                    oci::printable(image), name),
        name, afresh);
  }
  return choice;
}

}  // namespace msb::sandbox
