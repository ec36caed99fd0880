// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/redirect.hpp"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace msb::oci {
namespace {

constexpr int kMaxRedirects = 10;
constexpr std::array<long, 5> kRedirects = {301, 302, 303, 307, 308};

}  // namespace

Result<Url> redirect_target(const HttpHead& head, const Url& from, bool insecure) {
  const std::string* location = head.find("location");
  if (location == nullptr) {
    return fail("'{}' redirects to nowhere", from.authority);
  }
  auto to = resolve_url(from, *location);
  if (!to) {
    return std::unexpected(
        to.error().within(fmt::format("'{}' redirects to a place out of reach", from.authority)));
  }
  if (from.is_https() && !to->is_https() && !insecure) {
    return fail("'{}' redirects from HTTPS to '{}' without encryption", from.authority,
                to->authority);
  }
  return to;
}

Attempt<Answer> send_following_redirects(HttpClient& client, HttpRequest request,
                                         const std::string& authorization, bool insecure) {
  const Url origin = request.url;
  const std::vector<std::string> headers = request.headers;
  for (int redirects = 0; redirects <= kMaxRedirects; ++redirects) {
    request.headers = headers;
    if (!authorization.empty() && request.url.same_origin(origin)) {
      request.headers.push_back("Authorization: " + authorization);
    }
    auto exchange = client.send(request);
    if (!exchange) {
      return std::unexpected(exchange.error());
    }
    if (std::ranges::find(kRedirects, (*exchange)->head().status) == kRedirects.end()) {
      const bool from_origin = request.url.same_origin(origin);
      return Answer{std::move(*exchange), std::move(request.url), from_origin};
    }
    if (request.method == HttpRequest::Method::kPost) {
      return fail_as(Failure::Kind::kFinal, "'{}' redirects a request that must not be",
                     request.url.authority);
    }
    auto target = redirect_target((*exchange)->head(), request.url, insecure);
    if (!target) {
      return std::unexpected(Failure{target.error()});
    }
    (*exchange)->discard();
    request.url = std::move(*target);
  }
  return fail_as(Failure::Kind::kFinal, "'{}' redirects more than {} times", origin.authority,
                 kMaxRedirects);
}

}  // namespace msb::oci
