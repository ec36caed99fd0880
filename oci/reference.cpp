// SPDX-License-Identifier: Apache-2.0
#include "oci/reference.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <utility>

#include "oci/printable.hpp"

namespace msb::oci {
namespace {

constexpr std::string_view kLegacyDefaultRegistry = "index.docker.io";
constexpr std::string_view kDefaultRegistryHost = "registry-1.docker.io";
constexpr std::string_view kLegacyDefaultUrl = "https://index.docker.io/v1/";
constexpr std::string_view kLocalhost = "localhost";
constexpr std::string_view kOfficialPrefix = "library/";
constexpr std::string_view kDefaultTag = "latest";
constexpr std::size_t kMaxRepositoryLength = 255;
constexpr std::size_t kMaxTagLength = 128;
constexpr std::size_t kMaxHostLength = 255;  // RFC 1035, section 2.3.4
constexpr std::size_t kIdentifierLength = 64;
constexpr unsigned kMaxPort = 65535;

bool is_lower_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}
bool is_upper(char c) {
  return c >= 'A' && c <= 'Z';
}
bool is_alphanumeric(char c) {
  return is_lower_or_digit(c) || is_upper(c);
}
bool is_lower_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

// What makes a first component a registry and not part of a repository of Docker Hub.
bool names_registry(std::string_view first) {
  return first == kLocalhost || first.find_first_of(".:") != std::string_view::npos ||
         std::ranges::any_of(first, &is_upper);
}

bool is_identifier(std::string_view text) {
  return text.size() == kIdentifierLength && std::ranges::all_of(text, &is_lower_hex);
}

// [a-z0-9]+ joined by single '.', one or two '_', or any number of '-'.
bool is_path_component(std::string_view component) {
  while (true) {
    const auto word = std::ranges::find_if_not(component, &is_lower_or_digit) - component.begin();
    if (word == 0) {
      return false;
    }
    component.remove_prefix(static_cast<std::size_t>(word));
    if (component.empty()) {
      return true;
    }
    const char separator = component.front();
    const std::size_t length = std::min(component.find_first_not_of(separator), component.size());
    const std::size_t longest = separator == '.'   ? 1
                                : separator == '_' ? 2
                                : separator == '-' ? component.size()
                                                   : 0;
    if (length > longest) {
      return false;
    }
    component.remove_prefix(length);
  }
}

bool is_domain_component(std::string_view component) {
  return !component.empty() && component.front() != '-' && component.back() != '-' &&
         std::ranges::all_of(component, [](char c) { return is_alphanumeric(c) || c == '-'; });
}

bool is_domain_name(std::string_view host) {
  while (true) {
    const auto dot = host.find('.');
    if (!is_domain_component(host.substr(0, dot))) {
      return false;
    }
    if (dot == std::string_view::npos) {
      return true;
    }
    host.remove_prefix(dot + 1);
  }
}

bool is_ipv6(std::string_view host) {
  std::array<unsigned char, 16> address{};
  return host.size() < INET6_ADDRSTRLEN && host.find('.') == std::string_view::npos &&
         ::inet_pton(AF_INET6, std::string(host).c_str(), address.data()) == 1;
}

// What is wrong with a host or host:port; empty when nothing is.
std::string_view host_defect(std::string_view registry) {
  if (registry.size() > kMaxHostLength) {
    return "the registry's name is longer than 255 characters";
  }
  std::string_view host = registry;
  std::string_view port;
  bool has_port = false;
  if (registry.starts_with('[')) {
    const auto end = registry.find(']');
    if (end == std::string_view::npos || !is_ipv6(registry.substr(1, end - 1))) {
      return "the registry in brackets is not an IPv6 address";
    }
    host = {};
    if (end + 1 < registry.size()) {
      if (registry[end + 1] != ':') {
        return "only a port can follow the IPv6 address of the registry";
      }
      has_port = true;
      port = registry.substr(end + 2);
    }
  } else if (const auto colon = registry.find(':'); colon != std::string_view::npos) {
    host = registry.substr(0, colon);
    has_port = true;
    port = registry.substr(colon + 1);
  }
  if (!registry.starts_with('[') && !is_domain_name(host)) {
    return "the registry's name is not a host name (letters, digits and '-', joined by '.')";
  }
  unsigned number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (has_port && (error != std::errc() || end != port.data() + port.size() || number == 0 ||
                   number > kMaxPort)) {
    return "the registry's port is not a number from 1 to 65535";
  }
  return {};
}

std::string_view repository_defect(std::string_view repository) {
  if (repository.size() > kMaxRepositoryLength) {
    return "the repository's name is longer than 255 characters";
  }
  if (std::ranges::any_of(repository, &is_upper)) {
    return "the repository's name must be lower case";
  }
  while (true) {
    const auto slash = repository.find('/');
    if (!is_path_component(repository.substr(0, slash))) {
      return "the parts of a repository's name are lower-case letters and digits, with single "
             "'.', one or two '_' or any '-' between them";
    }
    if (slash == std::string_view::npos) {
      return {};
    }
    repository.remove_prefix(slash + 1);
  }
}

std::string_view tag_defect(std::string_view tag) {
  if (tag.empty()) {
    return "the tag is empty";
  }
  if (tag.size() > kMaxTagLength) {
    return "the tag is longer than 128 characters";
  }
  const auto allowed = [](char c) {
    return is_alphanumeric(c) || c == '_' || c == '.' || c == '-';
  };
  if (!std::ranges::all_of(tag, allowed) || tag.front() == '.' || tag.front() == '-') {
    return "a tag is letters, digits, '_', '.' and '-', and starts with none of the last two";
  }
  return {};
}

// Docker's rules for what belongs to the registry; `name` has no tag or digest.
std::pair<std::string, std::string> split_name(std::string_view name) {
  const auto slash = name.find('/');
  std::string registry(kDefaultRegistry);
  std::string repository(name);
  if (slash != std::string_view::npos && names_registry(name.substr(0, slash))) {
    registry = name.substr(0, slash);
    repository = name.substr(slash + 1);
    if (registry == kLegacyDefaultRegistry) {
      registry = kDefaultRegistry;
    }
  }
  if (registry == kDefaultRegistry && repository.find('/') == std::string::npos) {
    repository.insert(0, kOfficialPrefix);
  }
  return {std::move(registry), std::move(repository)};
}

std::string with_tag_and_digest(std::string name, const Reference& reference) {
  if (reference.tag) {
    name += ':' + *reference.tag;
  }
  if (reference.digest) {
    name += '@' + reference.digest->to_string();
  }
  return name;
}

}  // namespace

std::string Reference::to_string() const {
  return with_tag_and_digest(registry + '/' + repository, *this);
}

std::string Reference::familiar() const {
  if (registry != kDefaultRegistry) {
    return to_string();
  }
  std::string_view name = repository;
  if (name.starts_with(kOfficialPrefix) &&
      name.find('/', kOfficialPrefix.size()) == std::string_view::npos) {
    name.remove_prefix(kOfficialPrefix.size());
  }
  // Without its registry, such a name would be read as something else.
  const auto slash = name.find('/');
  const bool ambiguous =
      (slash != std::string_view::npos && names_registry(name.substr(0, slash))) ||
      is_identifier(name);
  return ambiguous ? to_string() : with_tag_and_digest(std::string(name), *this);
}

std::string Reference::tag_or_digest() const {
  return digest ? digest->to_string() : tag.value_or(std::string(kDefaultTag));
}

std::size_t end_of_name(std::string_view text) {
  const std::size_t at = std::min(text.find('@'), text.size());
  const std::string_view tagged = text.substr(0, at);
  const auto slash = tagged.rfind('/');
  return std::min(tagged.find(':', slash == std::string_view::npos ? 0 : slash), at);
}

Result<Reference> parse_reference(std::string_view text) {
  const auto invalid = [&](std::string_view defect) {
    return fail("'{}' is not an image reference: {}", printable(text), defect);
  };
  if (text.empty()) {
    return fail("the image reference is empty");
  }
  if (text.starts_with("./") || text.starts_with("../") || text.starts_with('/')) {
    return fail("'{}' is a path, and an image reference is needed here", printable(text));
  }
  if (is_identifier(text)) {
    return invalid(
        "64 hexadecimal digits alone are no name; a digest is written NAME@sha256:DIGITS");
  }
  const std::size_t end = end_of_name(text);
  const std::string_view rest = text.substr(end);
  auto [registry, repository] = split_name(text.substr(0, end));
  for (const std::string_view defect : {host_defect(registry), repository_defect(repository)}) {
    if (!defect.empty()) {
      return invalid(defect);
    }
  }
  Reference reference{std::move(registry), std::move(repository), std::nullopt, std::nullopt};
  const std::size_t at = rest.find('@');
  if (rest.starts_with(':')) {
    const std::string_view tag = rest.substr(1, at == std::string_view::npos ? at : at - 1);
    if (const std::string_view defect = tag_defect(tag); !defect.empty()) {
      return invalid(defect);
    }
    reference.tag = tag;
  }
  if (at != std::string_view::npos) {
    const auto digest = Digest::parse(rest.substr(at + 1));
    if (!digest) {
      return invalid("after '@' comes sha256: and 64 lower-case hexadecimal digits");
    }
    reference.digest = *digest;
  }
  if (!reference.tag && !reference.digest) {
    reference.tag = kDefaultTag;
  }
  return reference;
}

Result<std::string> parse_registry_host(std::string_view text) {
  if (text == kLegacyDefaultRegistry || text == kDefaultRegistryHost || text == kLegacyDefaultUrl) {
    return std::string(kDefaultRegistry);
  }
  if (text.empty()) {
    return fail("the name of the registry is empty");
  }
  if (text.find('/') != std::string_view::npos) {
    return fail("'{}' is not a registry: give its host or host:port alone", printable(text));
  }
  if (const std::string_view defect = host_defect(text); !defect.empty()) {
    return fail("'{}' is not a registry: {}", printable(text), defect);
  }
  return std::string(text);
}

}  // namespace msb::oci
