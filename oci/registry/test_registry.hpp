// SPDX-License-Identifier: Apache-2.0
// What the tests of pulling share.
#pragma once

#include <chrono>
#include <cstdlib>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "oci/registry/registry.hpp"
#include "oci/registry/test_server.hpp"

namespace msb::oci::testing {

inline constexpr std::string_view kManifestType = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kRepository = "team/app";
inline constexpr std::string_view kManifestPath = "/v2/team/app/manifests/1";
// Long enough for a busy machine; only tests of stalls wait for it, with a shorter one.
inline constexpr std::chrono::seconds kPatience{60};

// The options of a client that speaks to a TestServer, and what it said.
struct Client {
  RegistryOptions options;
  std::vector<std::string> notices;  // to be read when nothing is under way

  Client() {
    // The tests' servers are not behind the proxy of whoever runs them.
    for (const char* variable :
         {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"}) {
      ::unsetenv(variable);
    }
    options.insecure = true;
    options.retry_delay = std::chrono::milliseconds(1);
    options.stall_timeout = kPatience;
    options.notice = [this](const std::string& sentence) { notices.push_back(sentence); };
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  Client& as(std::string username, std::string password) {
    const Credentials credentials{std::move(username), std::move(password), {}};
    options.credentials = [credentials](const std::string&) {
      return std::optional<Credentials>(credentials);
    };
    return *this;
  }

  [[nodiscard]] Registry open(const TestServer& server) const {
    return Registry::create(server.authority(), std::string(kRepository), options).value();
  }
};

inline Digest digest_of_text(std::string_view content) {
  return Digest::of(std::as_bytes(std::span(content)));
}

inline Descriptor describe(std::string_view content) {
  return Descriptor{"application/octet-stream", digest_of_text(content), content.size()};
}

inline void reply_manifest(const ServerConnection& connection, std::string_view content) {
  connection.reply(200, content, {{"Content-Type", std::string(kManifestType)}});
}

// All that a source gives, or the message of its error.
inline Result<std::string> read_all(PieceSource& source) {
  std::string content;
  while (true) {
    const auto piece = source.next();
    if (!piece) {
      return std::unexpected(piece.error());
    }
    if (piece->empty()) {
      return content;
    }
    content.append(reinterpret_cast<const char*>(piece->data()), piece->size());
  }
}

template <typename T>
bool says(const Result<T>& result, std::string_view text) {
  return !result && result.error().message.find(text) != std::string::npos;
}

}  // namespace msb::oci::testing
