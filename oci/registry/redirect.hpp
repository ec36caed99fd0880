// SPDX-License-Identifier: Apache-2.0
// Requests whose redirects are followed (RFC 9110, section 15.4), with credentials that no other
// server sees.
#pragma once

#include <memory>
#include <string>

#include "base/result.hpp"
#include "oci/registry/attempt.hpp"
#include "oci/registry/http.hpp"
#include "oci/registry/url.hpp"

namespace msb::oci {

struct Answer {
  std::unique_ptr<HttpExchange> exchange;  // not a redirect
  Url url;                                 // that gave it
  bool from_origin = true;                 // whether that is of the server that was asked first
};

// Where an answer from `from` redirects to. Fails when it has no usable Location, or leads from
// https to http where `insecure` is not set.
Result<Url> redirect_target(const HttpHead& head, const Url& from, bool insecure);

// Sends `request` and follows up to 10 redirects. `authorization`, the value of that header field,
// may be empty; it is sent only to servers of the same scheme, host and port as request.url. Fails
// as HttpClient::send does, and for a redirect that is one too many, has no usable Location,
// answers a POST, or leads from https to http where `insecure` is not set.
Attempt<Answer> send_following_redirects(HttpClient& client, HttpRequest request,
                                         const std::string& authorization, bool insecure);

}  // namespace msb::oci
