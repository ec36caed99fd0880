// SPDX-License-Identifier: Apache-2.0
// What all requests to one repository share: the registry's address, connections, authorization.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "oci/registry/attempt.hpp"
#include "oci/registry/authorization.hpp"
#include "oci/registry/http.hpp"
#include "oci/registry/redirect.hpp"
#include "oci/registry/registry.hpp"
#include "oci/registry/retries.hpp"

namespace msb::oci {

struct RegistryRequest {
  HttpRequest::Method method = HttpRequest::Method::kGet;
  std::string path;                  // from /v2/ on
  std::vector<std::string> headers;  // "Name: value"
  std::string subject;               // for sentences: "image 'docker.io/library/python:3.12'"
};

// Safe to use from several threads.
class RegistrySession {
 public:
  // `registry` is a parse_registry_host(), `repository` may be empty. Fails when the CA
  // certificates that the settings name for the registry cannot be read.
  static Result<std::shared_ptr<RegistrySession>> create(std::string registry,
                                                         std::string repository,
                                                         RegistryOptions options);

  [[nodiscard]] const std::string& registry() const { return registry_; }
  [[nodiscard]] const std::string& repository() const { return repository_; }
  [[nodiscard]] Retries retries() const { return Retries(retry_policy_); }

  // One attempt: redirects are followed, and the registry's questions who asks are answered. The
  // answer has status 200, 206 where `request` has a Range, or one of `expected`.
  Attempt<std::unique_ptr<HttpExchange>> attempt(const RegistryRequest& request,
                                                 std::span<const long> expected = {});

  // Whether the registry has asked who asks, and was content.
  [[nodiscard]] bool is_authorized() { return !authorization_.header().empty(); }

 private:
  RegistrySession(std::string registry, std::string repository, RegistryOptions options,
                  std::string certificates);

  Attempt<Answer> send(const RegistryRequest& request, const std::string& authorization);
  [[nodiscard]] Failure denial(HttpExchange& exchange, const RegistryRequest& request);

  std::string registry_;
  std::string repository_;
  RegistryOptions options_;
  bool insecure_;
  // https, unless an insecure registry turned out not to speak TLS.
  enum class Scheme : std::uint8_t { kUnknown, kHttps, kHttp };
  std::atomic<Scheme> scheme_ = Scheme::kUnknown;
  HttpClient client_;
  Authorization authorization_;
  std::mutex notice_mutex_;
  RetryPolicy retry_policy_;
};

}  // namespace msb::oci
