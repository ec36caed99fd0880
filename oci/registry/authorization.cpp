// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/authorization.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "oci/base64.hpp"
#include "oci/json_document.hpp"
#include "oci/printable.hpp"
#include "oci/registry/redirect.hpp"
#include "oci/registry/status.hpp"

namespace msb::oci {
namespace {

using std::chrono::seconds;
using Json = nlohmann::json;

constexpr std::size_t kMaxTokenAnswer = 256 * 1024;  // bytes
constexpr std::size_t kMaxTokenLength = 64 * 1024;
constexpr std::size_t kMaxScopes = 4;
constexpr std::size_t kMaxScopeLength = 1024;
// "Token Authentication Specification": what a token lives when its server does not say.
constexpr seconds kDefaultLifetime{60};
constexpr seconds kLongestLifetime{24 * 60 * 60};
// A token is not used in the end of its life, when it could expire on its way.
constexpr seconds kMargin{5};
constexpr std::string_view kClientId = "microsandbox";

bool is_visible(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

const Challenge* find_scheme(const std::vector<Challenge>& challenges, std::string_view scheme) {
  const auto found = std::ranges::find(challenges, scheme, &Challenge::scheme);
  return found == challenges.end() ? nullptr : &*found;
}

std::string value_of(const Challenge& challenge, std::string_view name) {
  const std::string* value = challenge.find(name);
  return value == nullptr ? std::string() : *value;
}

// The scope that is needed, and what else the registry names for it, such as the repository's name
// behind a proxy: but never more than to pull.
std::vector<std::string> scopes_for(const std::string& needed, std::string_view named) {
  std::vector<std::string> scopes;
  if (needed.empty()) {
    return scopes;
  }
  scopes.push_back(needed);
  while (!named.empty() && scopes.size() < kMaxScopes) {
    const auto end = std::min(named.find(' '), named.size());
    const std::string_view scope = named.substr(0, end);
    named.remove_prefix(std::min(end + 1, named.size()));
    if (scope.starts_with("repository:") && scope.ends_with(":pull") &&
        scope.size() <= kMaxScopeLength && is_visible(scope) && scope != needed) {
      scopes.emplace_back(scope);
    }
  }
  return scopes;
}

std::string encode_parameters(
    const std::vector<std::pair<std::string_view, std::string>>& parameters) {
  std::string text;
  for (const auto& [name, value] : parameters) {
    if (!value.empty()) {
      text += fmt::format("{}{}={}", text.empty() ? "" : "&", name, encode_url_component(value));
    }
  }
  return text;
}

std::string basic(const Credentials& credentials) {
  return "Basic " + encode_base64(fmt::format("{}:{}", credentials.username, credentials.password));
}

struct Token {
  std::string value;
  seconds lifetime;
};

Result<Token> parse_token(std::string_view text) {
  const auto document = parse_object(text);
  if (!document) {
    return std::unexpected(document.error());
  }
  for (const char* name : {"token", "access_token"}) {
    const auto member = document->find(name);
    const auto* value = member == document->end() ? nullptr : member->get_ptr<const std::string*>();
    if (value == nullptr || value->empty()) {
      continue;
    }
    // It becomes part of a header.
    if (value->size() > kMaxTokenLength || !is_visible(*value)) {
      return fail("the token holds characters that none may");
    }
    seconds lifetime = kDefaultLifetime;
    const auto expires = document->find("expires_in");
    if (expires != document->end() && expires->is_number_unsigned()) {
      const auto longest = static_cast<std::uint64_t>(kLongestLifetime.count());
      lifetime =
          std::max(kDefaultLifetime, seconds(std::min(expires->get<std::uint64_t>(), longest)));
    }
    return Token{*value, lifetime};
  }
  return fail("there is no token in it");
}

}  // namespace

std::string Authorization::header() {
  const std::lock_guard lock(mutex_);
  if (Clock::now() >= expires_) {
    header_.clear();
  }
  return header_;
}

Attempt<void> Authorization::meet(const std::vector<Challenge>& challenges,
                                  const std::string& used) {
  const std::lock_guard lock(mutex_);
  if (!header_.empty() && header_ != used) {
    return {};  // another thread has met them meanwhile
  }
  if (const Challenge* bearer = find_scheme(challenges, "bearer"); bearer != nullptr) {
    return fetch_token(*bearer);
  }
  if (find_scheme(challenges, "basic") == nullptr) {
    return fail_as(Failure::Kind::kFinal,
                   "registry '{}' asks for a way of authentication that is not supported{}",
                   options_.registry,
                   challenges.empty() ? "" : ": " + printable(challenges.front().scheme));
  }
  const auto& known = credentials();
  if (!known || known->username.empty()) {
    return fail_as(Failure::Kind::kFinal, "registry '{}' gives nothing without a login; {}",
                   options_.registry, advice_locked());
  }
  if (used == basic(*known)) {
    return fail_as(Failure::Kind::kFinal, "registry '{}' refuses the user '{}' or the password; {}",
                   options_.registry, printable(known->username), advice_locked());
  }
  header_ = basic(*known);
  expires_ = Clock::time_point::max();
  return {};
}

std::string Authorization::advice() {
  const std::lock_guard lock(mutex_);
  return advice_locked();
}

std::string Authorization::advice_locked() {
  const std::string login = fmt::format("`msb login {}`", options_.registry);
  if (!credentials_error_.empty()) {
    return fmt::format("log in with {} (the credentials there are could not be read: {})", login,
                       credentials_error_);
  }
  return fmt::format("{} with {}", credentials_ ? "log in again" : "log in", login);
}

const std::optional<Credentials>& Authorization::credentials() {
  if (!asked_for_credentials_ && options_.credentials) {
    auto found = options_.credentials(options_.registry);
    if (found) {
      credentials_ = std::move(*found);
    } else {
      credentials_error_ = found.error().message;
    }
  }
  asked_for_credentials_ = true;
  return credentials_;
}

Attempt<void> Authorization::fetch_token(const Challenge& challenge) {
  header_.clear();
  const auto final_failure = [&](const Error& error) {
    return std::unexpected(
        Failure{error.within(fmt::format("the token server of registry '{}'", options_.registry))});
  };
  const auto realm = parse_url(value_of(challenge, "realm"));
  if (!realm) {
    return final_failure(realm.error());
  }
  if (!realm->is_https() && !options_.insecure) {
    return final_failure(fail("'{}' is not reached through HTTPS", realm->authority).error());
  }
  auto answer = ask_token_server(*realm, value_of(challenge, "service"),
                                 scopes_for(options_.scope, value_of(challenge, "scope")));
  if (!answer) {
    return std::unexpected(answer.error());
  }
  HttpExchange& exchange = *answer->exchange;
  const long status = exchange.head().status;
  if (status == kStatusUnauthorized || status == kStatusForbidden) {
    const std::string reason = read_error_reason(exchange);
    return credentials_
               ? fail_as(Failure::Kind::kFinal,
                         "registry '{}' refuses the credentials for it{}; {}", options_.registry,
                         reason, advice_locked())
               : fail_as(Failure::Kind::kFinal, "registry '{}' gives nothing without a login{}; {}",
                         options_.registry, reason, advice_locked());
  }
  if (status != kStatusOk) {
    return std::unexpected(
        status_failure(exchange, fmt::format("the token server '{}'", answer->url.authority)));
  }
  const auto body = exchange.read_rest(kMaxTokenAnswer);
  if (!body) {
    return std::unexpected(body.error());
  }
  auto token = parse_token(*body);
  if (!token) {
    return final_failure(
        token.error().within(fmt::format("'{}' gives no token", answer->url.authority)));
  }
  header_ = "Bearer " + token->value;
  expires_ = Clock::now() + token->lifetime - kMargin;
  return {};
}

Attempt<Answer> Authorization::ask_token_server(const Url& realm, const std::string& service,
                                                const std::vector<std::string>& scopes) {
  const auto& known = credentials();
  HttpRequest request{.method = HttpRequest::Method::kGet, .url = realm, .headers = {}, .form = {}};
  std::vector<std::pair<std::string_view, std::string>> parameters = {{"service", service}};
  std::string authorization;
  if (known && !known->identity_token.empty()) {
    // "Oauth2 Token Authentication": scopes are one parameter, a refresh token gives an access
    // token.
    std::string joined;
    for (const std::string& scope : scopes) {
      joined += (joined.empty() ? "" : " ") + scope;
    }
    parameters.insert(parameters.end(), {{"grant_type", "refresh_token"},
                                         {"client_id", std::string(kClientId)},
                                         {"scope", joined},
                                         {"refresh_token", known->identity_token}});
    request.method = HttpRequest::Method::kPost;
    request.form = encode_parameters(parameters);
  } else {
    for (const std::string& scope : scopes) {
      parameters.emplace_back("scope", scope);
    }
    if (known) {
      parameters.emplace_back("account", known->username);
      authorization = basic(*known);
    }
    const std::string query = encode_parameters(parameters);
    if (!query.empty()) {
      const char* join = realm.text.find('?') == std::string::npos ? "?" : "&";
      auto url = parse_url(realm.text + join + query);
      if (!url) {
        return std::unexpected(Failure{url.error()});
      }
      request.url = std::move(*url);
    }
  }
  return send_following_redirects(client_, std::move(request), authorization, options_.insecure);
}

}  // namespace msb::oci
