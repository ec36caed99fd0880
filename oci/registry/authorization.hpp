// SPDX-License-Identifier: Apache-2.0
// Who asks: the Authorization header field for one repository of one registry, with a token of its
// token server (distribution's "Token Authentication Specification" and its OAuth2 variant) or with
// user and password (RFC 7617).
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "oci/registry/attempt.hpp"
#include "oci/registry/credentials.hpp"
#include "oci/registry/header_fields.hpp"
#include "oci/registry/http.hpp"
#include "oci/registry/redirect.hpp"
#include "oci/registry/url.hpp"

namespace msb::oci {

struct AuthorizationOptions {
  std::string registry;  // as Reference::registry has it
  std::string scope;     // "repository:NAME:pull"; empty when only the login is to be checked
  bool insecure = false;
  // As RegistryOptions::credentials.
  std::function<Result<std::optional<Credentials>>(const std::string& registry)> credentials;
};

// Safe to use from several threads.
class Authorization {
 public:
  Authorization(HttpClient& client, AuthorizationOptions options)
      : client_(client), options_(std::move(options)) {}

  // The header field's value for the next request; empty while the registry has not asked, and once
  // a token has expired.
  std::string header();

  // Meets the registry's challenges to a request that was sent with `used`, a header() or empty.
  // Fails when nothing more can be done: they were met already, credentials are missing or refused,
  // the token server is out of reach or answers nonsense, the way of authentication is not known.
  Attempt<void> meet(const std::vector<Challenge>& challenges, const std::string& used);

  // What to do about denied access, to end a sentence with.
  std::string advice();

 private:
  using Clock = std::chrono::steady_clock;

  const std::optional<Credentials>& credentials();
  Attempt<void> fetch_token(const Challenge& challenge);
  [[nodiscard]] Attempt<Answer> ask_token_server(const Url& realm, const std::string& service,
                                                 const std::vector<std::string>& scopes);
  [[nodiscard]] std::string advice_locked();

  HttpClient& client_;
  AuthorizationOptions options_;
  std::mutex mutex_;  // of what follows; held while a token is fetched, so that one thread does it
  std::string header_;
  Clock::time_point expires_ = Clock::time_point::max();
  bool asked_for_credentials_ = false;
  std::optional<Credentials> credentials_;
  std::string credentials_error_;
};

}  // namespace msb::oci
