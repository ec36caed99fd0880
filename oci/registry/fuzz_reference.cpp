// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: what users, files and registries write in text. The first byte chooses: a
// reference, settings, Docker's configuration, header fields, URLs. Seeds: tests/corpus/reference.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "oci/base64.hpp"
#include "oci/reference.hpp"
#include "oci/registry/docker_config.hpp"
#include "oci/registry/header_fields.hpp"
#include "oci/registry/url.hpp"
#include "oci/settings.hpp"

namespace {

using namespace msb;
using namespace msb::oci;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// An error can be shown whatever the input was, and is no flood.
void check_error(const Error& error) {
  constexpr std::size_t kLongest = 4096;
  require(!error.message.empty() && error.message.size() < kLongest);
  for (const char c : error.message) {
    require(c >= ' ' && c <= '~');
  }
}

void check_reference(std::string_view text) {
  require(end_of_name(text) <= text.size());
  if (const auto registry = parse_registry_host(text)) {
    require(parse_registry_host(*registry) == *registry);
  } else {
    check_error(registry.error());
  }
  const auto reference = parse_reference(text);
  if (!reference) {
    check_error(reference.error());
    return;
  }
  require(reference->tag || reference->digest);
  require(parse_registry_host(reference->registry).has_value());
  require(parse_reference(reference->to_string()) == *reference);
  require(parse_reference(reference->familiar()) == *reference);
}

void check_settings(std::string_view text) {
  const auto settings = parse_settings(text);
  if (!settings) {
    check_error(settings.error());
    return;
  }
  for (const auto& [name, target] : settings->aliases) {
    require(resolve_reference(*settings, name).value() == parse_reference(target).value());
    require(resolve_reference(*settings, name + ":tag").has_value());
  }
}

void check_docker_config(std::string_view text) {
  auto config = parse_docker_config(text);
  if (!config) {
    check_error(config.error());
    return;
  }
  for (const std::string registry : {"docker.io", "ghcr.io", "localhost:5000"}) {
    if (const auto helper = configured_helper(*config, registry)) {
      require(helper->find('/') == std::string::npos);
    } else {
      check_error(helper.error());
    }
    if (const auto found = configured_auth(*config, registry); !found) {
      check_error(found.error());
    }
    const Credentials credentials{"user", "pass:word", "token"};
    if (set_auth(*config, registry, credentials)) {
      require(configured_auth(*config, registry).value() == credentials);
      require(parse_docker_config(config->dump()) == *config);
      require(erase_auth(*config, registry));
      require(!configured_auth(*config, registry).value());
    }
  }
}

void check_header_fields(std::string_view text) {
  for (const Challenge& challenge : parse_challenges(text)) {
    require(!challenge.scheme.empty());
    for (const auto& parameter : challenge.parameters) {
      require(!parameter.name.empty() && challenge.find(parameter.name) != nullptr);
    }
  }
  if (const auto after = parse_retry_after(text, std::chrono::system_clock::from_time_t(0))) {
    require(after->count() >= 0);
  }
  if (const auto range = parse_content_range(text)) {
    require(range->first <= range->last && (!range->size || range->last < *range->size));
  }
  if (const auto bytes = decode_base64(text)) {
    require(encode_base64(*bytes) == text);
  }
}

void check_url(std::string_view text) {
  const auto url = parse_url(text);
  if (!url) {
    check_error(url.error());
  } else {
    require(url->scheme == "http" || url->scheme == "https");
    require(!url->host.empty());
    const auto again = parse_url(url->text);
    require(!again || again->same_origin(*url));
  }
  static const Url kBase = parse_url("https://registry.example/v2/a/blobs/b?c").value();
  if (const auto target = resolve_url(kBase, text); !target) {
    check_error(target.error());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  constexpr decltype(&check_reference) kChecks[] = {
      &check_reference, &check_settings, &check_docker_config, &check_header_fields, &check_url};
  kChecks[data[0] % std::size(kChecks)](text);
  return 0;
}
