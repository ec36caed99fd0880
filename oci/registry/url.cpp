// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/url.hpp"

#include <curl/curl.h>

#include <charconv>
#include <iterator>
#include <memory>
#include <optional>

#include "oci/printable.hpp"

namespace msb::oci {
namespace {

constexpr std::size_t kMaxLength = 8192;  // bytes; signed URLs of storage services take some 2,000

struct Free {
  void operator()(CURLU* url) const { ::curl_url_cleanup(url); }
  void operator()(char* text) const { ::curl_free(text); }
};
using Handle = std::unique_ptr<CURLU, Free>;

std::optional<std::string> part(CURLU* url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (::curl_url_get(url, which, &text, flags) != CURLUE_OK) {
    return std::nullopt;
  }
  const std::unique_ptr<char, Free> owned(text);
  return std::string(text);
}

Result<Url> read(std::string_view base, std::string_view text) {
  const Handle handle(::curl_url());
  const auto invalid = [&](std::string_view defect) {
    return fail("'{}' is not a URL to go to: {}", printable(text), defect);
  };
  if (text.size() > kMaxLength) {
    return invalid("it is too long");
  }
  if (text.find('\0') != std::string_view::npos) {
    return invalid("it holds a zero byte");
  }
  if (!base.empty()) {
    ::curl_url_set(handle.get(), CURLUPART_URL, std::string(base).c_str(), 0);
  }
  const CURLUcode code =
      ::curl_url_set(handle.get(), CURLUPART_URL, std::string(text).c_str(), CURLU_URLENCODE);
  if (code != CURLUE_OK) {
    return invalid(::curl_url_strerror(code));
  }
  if (part(handle.get(), CURLUPART_USER) || part(handle.get(), CURLUPART_PASSWORD)) {
    return fail("a URL to go to holds credentials");
  }
  ::curl_url_set(handle.get(), CURLUPART_FRAGMENT, nullptr, 0);
  const auto whole = part(handle.get(), CURLUPART_URL);
  const auto scheme = part(handle.get(), CURLUPART_SCHEME);
  auto host = part(handle.get(), CURLUPART_HOST);
  const auto port = part(handle.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
  if (!whole || !scheme || !host || host->empty() || !port ||
      (*scheme != "http" && *scheme != "https")) {
    return invalid("only http:// and https:// are");
  }
  for (char& c : *host) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  Url url{.text = *whole, .scheme = *scheme, .host = *host, .authority = *host, .port = 0};
  std::from_chars(port->data(), port->data() + port->size(), url.port);
  if (const auto explicit_port = part(handle.get(), CURLUPART_PORT, CURLU_NO_DEFAULT_PORT)) {
    url.authority += ':' + *explicit_port;
  }
  return url;
}

}  // namespace

Result<Url> parse_url(std::string_view text) {
  return read({}, text);
}

Result<Url> resolve_url(const Url& base, std::string_view location) {
  return read(base.text, location);
}

std::string encode_url_component(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    const bool unreserved = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                            (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
    if (unreserved) {
      encoded += c;
    } else {
      fmt::format_to(std::back_inserter(encoded), "%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

}  // namespace msb::oci
