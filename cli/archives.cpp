// SPDX-License-Identifier: Apache-2.0
#include "cli/archives.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "cli/output_file.hpp"
#include "cli/progress_display.hpp"
#include "oci/layout.hpp"
#include "oci/printable.hpp"
#include "oci/reference.hpp"
#include "oci/store/archive.hpp"
#include "oci/store/lookup.hpp"

namespace msb::cli {
namespace {

// What images are loaded from, and which ones.
struct Input {
  std::unique_ptr<oci::Archive> archive;  // one of these two
  std::unique_ptr<oci::Layout> layout;
  std::vector<oci::ArchivedImage> images;

  [[nodiscard]] oci::ImageSource& source() const {
    return archive ? static_cast<oci::ImageSource&>(*archive) : layout->blobs();
  }
};

// All of a layout's images, or the one that has the tag.
Result<Input> open_layout(const oci::LayoutReference& reference) {
  auto layout = oci::Layout::open(reference.path);
  if (!layout) {
    return std::unexpected(layout.error());
  }
  auto images = oci::images_of(layout->index());
  if (!images) {
    return std::unexpected(images.error());
  }
  if (reference.tag) {
    std::erase_if(*images, [&](const oci::ArchivedImage& image) {
      return std::ranges::count(image.names, *reference.tag) == 0;
    });
    if (images->empty()) {
      return fail("it has no image with the tag '{}'", oci::printable(*reference.tag));
    }
  }
  return Input{.archive = nullptr,
               .layout = std::make_unique<oci::Layout>(std::move(*layout)),
               .images = std::move(*images)};
}

Result<Input> open_archive(const std::string& path, int scratch) {
  Fd file(path == "-" ? ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0)
                      : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!file) {
    return fail_errno(errno, "cannot open it");
  }
  if (::isatty(file.get()) == 1) {
    return fail("it is a terminal; name a file with `-i FILE`, or pipe one in");
  }
  auto archive = oci::Archive::open(std::move(file), scratch);
  if (!archive) {
    return std::unexpected(archive.error());
  }
  std::vector<oci::ArchivedImage> images = (*archive)->images();
  return Input{.archive = std::move(*archive), .layout = nullptr, .images = std::move(images)};
}

// The full references that an image gets. What an OCI layout has is often a mere tag, which names
// nothing.
Result<std::vector<std::string>> names_of(const oci::ArchivedImage& image,
                                          const std::string& wanted) {
  std::vector<std::string> names;
  const std::vector<std::string> given = wanted.empty() ? image.names : std::vector{wanted};
  for (const std::string& name : given) {
    if (wanted.empty() && name.find_first_of("/:") == std::string::npos) {
      continue;
    }
    const auto reference = oci::parse_reference(name);
    if (!reference) {
      return std::unexpected(
          wanted.empty() ? Error{fmt::format("the archive names an image '{}': {}; give it another "
                                             "name with --name",
                                             oci::printable(name), reference.error().message)}
                         : reference.error());
    }
    names.push_back(reference->to_string());
  }
  return names;
}

Result<void> load_all(Context& context, const Input& input, const LoadOptions& options) {
  if (!options.name.empty() && input.images.size() > 1) {
    return fail("it holds {} images, so --name cannot name one of them", input.images.size());
  }
  Json documents = Json::array();
  for (const oci::ArchivedImage& image : input.images) {
    const auto names = names_of(image, options.name);
    if (!names) {
      return std::unexpected(names.error());
    }
    ProgressDisplay display(
        stderr, options.quiet ? ProgressDisplay::Kind::kQuiet : ProgressDisplay::kind_for(stderr));
    oci::ImportOptions import;
    import.progress = &display;
    const auto imported = context.store.import(input.source(), image.target, *names, import);
    if (!imported) {
      return std::unexpected(imported.error());
    }
    const std::string digest = imported->image.manifest.digest.to_string();
    if (options.format == Format::kJson) {
      documents.push_back({{"references", *names},
                           {"digest", image.target.digest.to_string()},
                           {"manifest", digest}});
      continue;
    }
    std::string lines;
    for (const std::string& name : *names) {
      lines += fmt::format("Loaded {}\n", oci::parse_reference(name)->familiar());
    }
    if (auto printed = print(names->empty() ? fmt::format("Loaded {}\n", digest) : lines);
        !printed) {
      return printed;
    }
  }
  return options.format == Format::kJson ? print_json(documents) : Result<void>();
}

}  // namespace

Result<void> load(const LoadOptions& options) {
  auto context = Context::open();
  if (!context) {
    return std::unexpected(context.error());
  }
  const std::string name =
      options.input == "-" ? "standard input" : fmt::format("archive '{}'", options.input);
  const auto layout = oci::parse_layout_reference(options.input);
  const auto input =
      layout ? open_layout(*layout) : open_archive(options.input, context->store.scratch());
  const auto loaded =
      input ? load_all(*context, *input, options) : Result<void>(std::unexpected(input.error()));
  if (!loaded) {
    // A layout names itself.
    return std::unexpected(layout && !input ? loaded.error() : loaded.error().within(name));
  }
  return {};
}

Result<void> save(const SaveOptions& options) {
  auto context = Context::open();
  if (!context) {
    return std::unexpected(context.error());
  }
  std::vector<oci::SavedImage> images;
  for (const std::string& text : options.references) {
    auto entry = oci::get_image(context->store, context->settings, text);
    if (!entry) {
      return std::unexpected(entry.error());
    }
    oci::SavedImage saved{.entry = std::move(*entry), .tag = {}, .name = {}};
    if (const auto reference = oci::parse_reference(saved.entry.reference);
        reference && reference->tag) {
      saved.tag = *reference->tag;
      saved.name = reference->familiar();
    }
    images.push_back(std::move(saved));
  }
  auto output = OutputFile::create(options.output);
  if (!output) {
    return std::unexpected(output.error());
  }
  if (auto written = oci::write_archive(output->fd(), context->store, images, options.kind);
      !written) {
    return std::unexpected(written.error().within(fmt::format("archive '{}'", options.output)));
  }
  return output->finish();
}

}  // namespace msb::cli
