// SPDX-License-Identifier: Apache-2.0
// Absolute URLs of http and https. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace msb::oci {

struct Url {
  std::string text;       // normalised, without fragment
  std::string scheme;     // "http" or "https"
  std::string host;       // lower case
  std::string authority;  // host, with the port where it is not the scheme's
  unsigned port = 0;

  [[nodiscard]] bool is_https() const { return scheme == "https"; }
  // RFC 6454: what may see the same credentials.
  [[nodiscard]] bool same_origin(const Url& other) const {
    return scheme == other.scheme && host == other.host && port == other.port;
  }
};

// Each fails with a sentence for what is no URL, is longer than 8 KiB, of another scheme, or holds
// credentials.
Result<Url> parse_url(std::string_view text);
// What `location`, absolute or relative, means in an answer from `base` (RFC 3986, section 5).
Result<Url> resolve_url(const Url& base, std::string_view location);

// `text` with all but letters, digits and -._~ percent-encoded.
std::string encode_url_component(std::string_view text);

}  // namespace msb::oci
