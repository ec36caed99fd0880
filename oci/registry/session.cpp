// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/session.hpp"

#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

#include "oci/registry/header_fields.hpp"
#include "oci/registry/status.hpp"

namespace msb::oci {
namespace {

// Docker Hub's registry has another name than its images.
constexpr std::string_view kDockerHubHost = "registry-1.docker.io";

std::string_view host_of(std::string_view registry) {
  return registry == kDefaultRegistry ? kDockerHubHost : registry;
}

// What the settings name, else what Docker would take; empty for none.
Result<std::string> find_certificates(const Settings& settings, const std::string& registry) {
  if (const auto named = settings.certificates.find(registry);
      named != settings.certificates.end()) {
    return read_certificates(named->second);
  }
  const std::string path = fmt::format("/etc/docker/certs.d/{}/ca.crt", registry);
  return ::access(path.c_str(), R_OK) == 0 ? read_certificates(path) : std::string();
}

std::string pull_scope(const std::string& repository) {
  return repository.empty() ? std::string() : fmt::format("repository:{}:pull", repository);
}

bool is_unreachable(const Failure& failure) {
  return failure.kind == Failure::Kind::kUnreachable || failure.kind == Failure::Kind::kNoTls;
}

std::vector<Challenge> challenges_of(const HttpHead& head) {
  std::vector<Challenge> challenges;
  for (const auto& [name, value] : head.fields) {
    if (name == "www-authenticate") {
      std::ranges::move(parse_challenges(value), std::back_inserter(challenges));
    }
  }
  return challenges;
}

bool has_range(const RegistryRequest& request) {
  return std::ranges::any_of(
      request.headers, [](const std::string& header) { return header.starts_with("Range:"); });
}

}  // namespace

Result<std::shared_ptr<RegistrySession>> RegistrySession::create(std::string registry,
                                                                 std::string repository,
                                                                 RegistryOptions options) {
  auto certificates = find_certificates(options.settings, registry);
  if (!certificates) {
    return std::unexpected(certificates.error().within(fmt::format("registry '{}'", registry)));
  }
  return std::shared_ptr<RegistrySession>(new RegistrySession(
      std::move(registry), std::move(repository), std::move(options), std::move(*certificates)));
}

RegistrySession::RegistrySession(std::string registry, std::string repository,
                                 RegistryOptions options, std::string certificates)
    : registry_(std::move(registry)),
      repository_(std::move(repository)),
      options_(std::move(options)),
      insecure_(options_.insecure || options_.settings.insecure_registries.contains(registry_)),
      client_(HttpOptions{.stall_timeout = options_.stall_timeout,
                          .insecure = insecure_,
                          .certificates = std::move(certificates),
                          .stop = options_.stop}),
      authorization_(client_, AuthorizationOptions{.registry = registry_,
                                                   .scope = pull_scope(repository_),
                                                   .insecure = insecure_,
                                                   .credentials = options_.credentials}),
      retry_policy_{.first_delay = options_.retry_delay, .notice = {}, .stop = options_.stop} {
  if (options_.notice) {
    retry_policy_.notice = [this](const std::string& sentence) {
      const std::lock_guard lock(notice_mutex_);
      options_.notice(sentence);
    };
  }
}

Attempt<std::unique_ptr<HttpExchange>> RegistrySession::attempt(const RegistryRequest& request,
                                                                std::span<const long> expected) {
  for (int challenged = 0;; ++challenged) {
    const std::string authorization = authorization_.header();
    auto answer = send(request, authorization);
    if (!answer) {
      return std::unexpected(answer.error());
    }
    HttpExchange& exchange = *answer->exchange;
    const long status = exchange.head().status;
    if (status == kStatusOk || (status == kStatusPartialContent && has_range(request)) ||
        std::ranges::find(expected, status) != expected.end()) {
      return std::move(answer->exchange);
    }
    // A server that was redirected to has nothing to ask: what it would be told is the registry's.
    // A fresh token is the last word; of a password, meet() says that it was refused.
    const bool may_meet =
        challenged == 0 || (challenged == 1 && authorization.starts_with("Basic "));
    if (status == kStatusUnauthorized && answer->from_origin && may_meet) {
      const auto challenges = challenges_of(exchange.head());
      exchange.discard();
      auto met = authorization_.meet(challenges, authorization);
      if (!met) {
        met.error().error = met.error().error.within("cannot get " + request.subject);
        return std::unexpected(met.error());
      }
      continue;
    }
    return std::unexpected(denial(exchange, request));
  }
}

Attempt<Answer> RegistrySession::send(const RegistryRequest& request,
                                      const std::string& authorization) {
  const auto send_with = [&](std::string_view scheme) -> Attempt<Answer> {
    auto url = parse_url(fmt::format("{}://{}{}", scheme, host_of(registry_), request.path));
    if (!url) {
      return std::unexpected(Failure{url.error()});
    }
    return send_following_redirects(client_,
                                    HttpRequest{.method = request.method,
                                                .url = std::move(*url),
                                                .headers = request.headers,
                                                .form = {}},
                                    authorization, insecure_);
  };
  if (scheme_ == Scheme::kHttp) {
    return send_with("http");
  }
  auto answer = send_with("https");
  if (answer) {
    scheme_ = Scheme::kHttps;
    return answer;
  }
  // Once it spoke TLS it is not believed that it does not.
  if (!insecure_ || scheme_ == Scheme::kHttps || !is_unreachable(answer.error())) {
    return answer;
  }
  auto plain = send_with("http");
  if (plain && plain->exchange->head().status == kStatusBadRequest) {
    return answer;  // how a server that does speak TLS answers those that do not
  }
  if (plain) {
    scheme_ = Scheme::kHttp;
  }
  return plain;
}

Failure RegistrySession::denial(HttpExchange& exchange, const RegistryRequest& request) {
  const long status = exchange.head().status;
  const std::string who = fmt::format("registry '{}'", registry_);
  if (status == kStatusNotFound) {
    const std::string reason = read_error_reason(exchange);
    return {.error = fail("{} has no {}, or denies access to it{}; check name and tag, or {}", who,
                          request.subject, reason, authorization_.advice())
                         .error()};
  }
  if (status == kStatusUnauthorized || status == kStatusForbidden) {
    const std::string reason = read_error_reason(exchange);
    return {.error = fail("{} denies access to {}, or it does not exist{}; check the name, or {}",
                          who, request.subject, reason, authorization_.advice())
                         .error()};
  }
  return status_failure(exchange, fmt::format("{}, asked for {},", who, request.subject));
}

}  // namespace msb::oci
