// SPDX-License-Identifier: Apache-2.0
#include "cli/pull.hpp"

#include <poll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <utility>

#include "cli/progress_display.hpp"
#include "cli/pull_report.hpp"
#include "cli/text.hpp"
#include "oci/reference.hpp"
#include "oci/registry/credentials.hpp"
#include "oci/registry/pull.hpp"
#include "oci/registry/registry.hpp"

namespace msb::cli {
namespace {

// The user's credentials as they are when the registry asks for them.
Result<std::optional<oci::Credentials>> find_credentials(const std::string& registry) {
  const auto path = oci::DockerConfig::default_path();
  if (!path) {
    return std::nullopt;  // nobody is logged in without a home
  }
  return oci::DockerConfig(*path).find(registry);
}

Json describe(const oci::Reference& reference, const oci::Pulled& pulled) {
  Json layers = Json::array();
  for (const oci::Layer& layer : pulled.image.layers) {
    layers.push_back({{"digest", layer.blob.digest.to_string()},
                      {"size", layer.blob.size},
                      {"diffId", layer.diff_id.to_string()}});
  }
  return {{"reference", reference.to_string()},
          {"digest", pulled.target.to_string()},
          {"manifest", pulled.image.manifest.digest.to_string()},
          {"received", pulled.received},
          {"upToDate", pulled.was_present},
          {"layers", std::move(layers)}};
}

std::string by_digest(const oci::Reference& reference, const oci::Digest& digest) {
  oci::Reference exact = reference;
  exact.tag.reset();
  exact.digest = digest;
  return exact.to_string();
}

Result<oci::Pulled> pull_one(Context& context, const PullOptions& options,
                             const oci::Reference& reference) {
  const auto kind =
      options.quiet ? ProgressDisplay::Kind::kQuiet : ProgressDisplay::kind_for(stderr);
  ProgressDisplay display(stderr, kind);
  const auto started = std::chrono::steady_clock::now();
  const auto registry = oci::Registry::create(
      reference.registry, reference.repository,
      {.settings = context.settings,
       .credentials = find_credentials,
       .insecure = options.insecure,
       .stall_timeout = std::chrono::seconds(options.timeout),
       .notice = [&](const std::string& sentence) { display.notice(sentence); },
       .stop = {}});
  if (!registry) {
    return std::unexpected(registry.error());
  }
  if (kind != ProgressDisplay::Kind::kQuiet) {
    display.notice(fmt::format("Pulling {}", reference.familiar()));
  }
  oci::ImportOptions import;
  PullReport report(options.report);
  import.progress = &display;
  if (options.report >= 0) {
    import.progress = &report;
  }
  auto pulled = oci::pull(context.store, *registry, reference, import);
  if (pulled) {
    const auto took = std::chrono::duration_cast<std::chrono::seconds>(
        std::chrono::steady_clock::now() - started);
    display.notice(pulled->was_present
                       ? fmt::format("{} is up to date", reference.familiar())
                       : fmt::format("Pulled {}: {} received in {}", reference.familiar(),
                                     format_size(pulled->received), format_duration(took)));
  }
  return pulled;
}

}  // namespace

namespace {

// Whoever needs the image may be killed. False when it is gone already, so that nobody reads.
bool end_with_parent(int errors) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  pollfd entry{errors, 0, 0};
  return ::poll(&entry, 1, 0) == 0;
}

Result<void> pull_all(const PullOptions& options) {
  auto context = Context::open();
  if (!context) {
    return std::unexpected(context.error());
  }
  // All of them, before the first one takes minutes.
  std::vector<oci::Reference> references;
  for (const std::string& text : options.references) {
    auto reference = oci::resolve_reference(context->settings, text);
    if (!reference) {
      return std::unexpected(reference.error());
    }
    references.push_back(std::move(*reference));
  }
  Json documents = Json::array();
  for (const oci::Reference& reference : references) {
    const auto pulled = pull_one(*context, options, reference);
    if (!pulled) {
      return std::unexpected(pulled.error());
    }
    if (options.format == Format::kJson) {
      documents.push_back(describe(reference, *pulled));
    } else if (auto printed = print(by_digest(reference, pulled->target) + "\n"); !printed) {
      return printed;
    }
  }
  return options.format == Format::kJson ? print_json(documents) : Result<void>();
}

}  // namespace

Result<void> pull(const PullOptions& options) {
  const int reader = options.errors >= 0 ? options.errors : options.report;
  if (reader >= 0 && !end_with_parent(reader)) {
    return std::unexpected(Error{});
  }
  auto pulled = pull_all(options);
  if (!pulled && options.report >= 0) {
    PullReport::fail(options.report, pulled.error().message);
    return std::unexpected(Error{});
  }
  if (!pulled && options.errors >= 0) {
    const std::string& message = pulled.error().message;
    // Whoever is not there any more is told nothing.
    [[maybe_unused]] const ssize_t written =
        ::write(options.errors, message.data(), message.size());
    return std::unexpected(Error{});
  }
  return pulled;
}

}  // namespace msb::cli
