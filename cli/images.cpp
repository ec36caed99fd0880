// SPDX-License-Identifier: Apache-2.0
#include "cli/images.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "cli/text.hpp"
#include "oci/printable.hpp"
#include "oci/reference.hpp"
#include "oci/store/lookup.hpp"

namespace msb::cli {
namespace {

using oci::CatalogEntry;

constexpr std::size_t kDigestDigits = 12;
constexpr std::size_t kCommandLength = 60;

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string age_of(std::optional<std::int64_t> time) {
  return time ? format_age(std::chrono::seconds(now() - *time)) : "unknown";
}

std::string short_name(const CatalogEntry& entry) {
  const auto reference = oci::parse_reference(entry.reference);
  return reference ? reference->familiar() : "<none>";
}

std::string short_digest(const oci::Digest& digest) {
  return digest.hex().substr(0, kDigestDigits);
}

Json summary_of(const CatalogEntry& entry) {
  return {{"reference", entry.reference.empty() ? Json(nullptr) : Json(entry.reference)},
          {"digest", entry.target.to_string()},
          {"manifest", entry.manifest.digest.to_string()},
          {"created", entry.created.empty() ? Json(nullptr) : Json(entry.created)},
          {"pulled", format_time(entry.pulled)},
          {"size", entry.size},
          {"layers", entry.layers}};
}

Json history_of(const oci::Image& image) {
  Json history = Json::array();
  std::size_t next_layer = 0;
  for (const oci::HistoryEntry& entry : image.config.history) {
    Json step = {{"created", entry.created}, {"createdBy", entry.created_by}};
    if (!entry.comment.empty()) {
      step["comment"] = entry.comment;
    }
    step["emptyLayer"] = entry.empty_layer;
    if (!entry.empty_layer && next_layer < image.layers.size()) {
      step["layer"] = image.layers[next_layer].blob.digest.to_string();
      step["size"] = image.layers[next_layer].blob.size;
      ++next_layer;
    }
    history.push_back(std::move(step));
  }
  return history;
}

Json describe(const CatalogEntry& entry, const oci::Image& image) {
  const oci::ImageConfig& config = image.config;
  Json layers = Json::array();
  for (const oci::Layer& layer : image.layers) {
    layers.push_back({{"mediaType", layer.blob.media_type},
                      {"digest", layer.blob.digest.to_string()},
                      {"size", layer.blob.size},
                      {"diffId", layer.diff_id.to_string()}});
  }
  Json document = summary_of(entry);
  document["mediaType"] = image.manifest.media_type;
  document["config"] = image.config_blob.digest.to_string();
  document["os"] = config.os;
  document["architecture"] = config.architecture;
  document["author"] = config.author;
  document["execution"] = {{"user", config.user},
                           {"environment", config.env},
                           {"entrypoint", config.entrypoint},
                           {"command", config.cmd},
                           {"workingDirectory", config.working_dir},
                           {"volumes", config.volumes},
                           {"exposedPorts", config.exposed_ports},
                           {"stopSignal", config.stop_signal},
                           {"labels", config.labels}};
  document["layers"] = std::move(layers);
  document["history"] = history_of(image);
  return document;
}

Json describe(const oci::PruneReport& report) {
  Json images = Json::array();
  for (const CatalogEntry& entry : report.images) {
    images.push_back(summary_of(entry));
  }
  return {{"images", std::move(images)}, {"bytes", report.bytes}, {"postponed", report.postponed}};
}

struct NamedImage {
  CatalogEntry entry;
  oci::Image image;
};

Result<NamedImage> load(Context& context, const std::string& text) {
  auto entry = oci::get_image(context.store, context.settings, text);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  auto image = context.store.load(*entry);
  if (!image) {
    return std::unexpected(image.error());
  }
  return NamedImage{std::move(*entry), std::move(*image)};
}

constexpr std::string_view kPostponed =
    "an image is being pulled or loaded, so no files were deleted; `msb image prune` does it later";

}  // namespace

Result<void> list_images(Format format) {
  auto context = Context::open();
  if (!context) {
    return std::unexpected(context.error());
  }
  const auto entries = context->store.list();
  if (!entries) {
    return std::unexpected(entries.error());
  }
  if (format == Format::kJson) {
    Json documents = Json::array();
    for (const CatalogEntry& entry : *entries) {
      documents.push_back(summary_of(entry));
    }
    return print_json(documents);
  }
  std::vector<std::vector<std::string>> rows = {{"IMAGE", "DIGEST", "CREATED", "SIZE", "LAYERS"}};
  for (const CatalogEntry& entry : *entries) {
    rows.push_back({short_name(entry), short_digest(entry.manifest.digest),
                    age_of(parse_time(entry.created)), format_size(entry.size),
                    fmt::format("{}", entry.layers)});
  }
  return print(format_table(rows));
}

Result<void> inspect_images(const std::vector<std::string>& references) {
  auto context = Context::open();
  if (!context) {
    return std::unexpected(context.error());
  }
  Json documents = Json::array();
  for (const std::string& text : references) {
    const auto named = load(*context, text);
    if (!named) {
      return std::unexpected(named.error());
    }
    documents.push_back(describe(named->entry, named->image));
  }
  return print_json(documents);
}

Result<void> show_history(const std::string& text, bool whole, Format format) {
  auto context = Context::open();
  if (!context) {
    return std::unexpected(context.error());
  }
  const auto named = load(*context, text);
  if (!named) {
    return std::unexpected(named.error());
  }
  const Json history = history_of(named->image);
  if (format == Format::kJson) {
    return print_json(history);
  }
  std::vector<std::vector<std::string>> rows = {{"CREATED", "SIZE", "CREATED BY"}};
  // The newest first, as it stands on top.
  for (auto step = history.rbegin(); step != history.rend(); ++step) {
    std::string command = (*step)["createdBy"].get<std::string>();
    if (!whole && command.size() > kCommandLength) {
      command = command.substr(0, kCommandLength - 3) + "...";
    }
    rows.push_back({age_of(parse_time((*step)["created"].get<std::string>())),
                    format_size(step->value("size", std::uint64_t{0})),
                    oci::printable(command, command.size())});
  }
  return print(format_table(rows));
}

Result<void> remove_images(const std::vector<std::string>& references, Format format) {
  auto context = Context::open();
  if (!context) {
    return std::unexpected(context.error());
  }
  oci::PruneReport all;
  std::vector<Error> missing;
  for (const std::string& text : references) {
    const auto entry = oci::get_image(context->store, context->settings, text);
    if (!entry) {
      missing.push_back(entry.error());
      continue;
    }
    const auto report = context->store.remove(*entry);
    if (!report) {
      return std::unexpected(report.error());
    }
    all.images.push_back(*entry);
    all.bytes += report->bytes;
    all.postponed = all.postponed || report->postponed;
    if (format == Format::kTable) {
      const bool named = !entry->reference.empty();
      if (auto printed = print(fmt::format(
              "Removed {}\n", named ? short_name(*entry) : short_digest(entry->manifest.digest)));
          !printed) {
        return printed;
      }
    }
  }
  if (format == Format::kJson) {
    if (auto printed = print_json(describe(all)); !printed) {
      return printed;
    }
  } else if (all.postponed) {
    complain(std::string(kPostponed));
  }
  for (std::size_t i = 0; i + 1 < missing.size(); ++i) {
    complain(missing[i].message);
  }
  return missing.empty() ? Result<void>() : std::unexpected(missing.back());
}

Result<void> prune_images(const PruneWords& words, Format format) {
  auto context = Context::open();
  if (!context) {
    return std::unexpected(context.error());
  }
  const auto report = context->store.prune({.all = words.all, .dry_run = words.dry_run});
  if (!report) {
    return std::unexpected(report.error());
  }
  if (format == Format::kJson) {
    return print_json(describe(*report));
  }
  std::string text;
  for (const CatalogEntry& entry : report->images) {
    text += fmt::format("{} {} {}\n", words.dry_run ? "Would remove" : "Removed", short_name(entry),
                        short_digest(entry.manifest.digest));
  }
  return print(text + fmt::format("{} {}\n", format_size(report->bytes),
                                  words.dry_run ? "would be freed" : "freed"));
}

}  // namespace msb::cli
