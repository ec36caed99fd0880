// SPDX-License-Identifier: Apache-2.0
// Answers that are no success, as failures with a sentence.
#pragma once

#include <string>
#include <string_view>

#include "oci/registry/attempt.hpp"
#include "oci/registry/http.hpp"

namespace msb::oci {

// RFC 9110, section 15.
inline constexpr long kStatusOk = 200;
inline constexpr long kStatusPartialContent = 206;
inline constexpr long kStatusBadRequest = 400;
inline constexpr long kStatusUnauthorized = 401;
inline constexpr long kStatusForbidden = 403;
inline constexpr long kStatusNotFound = 404;
inline constexpr long kStatusMethodNotAllowed = 405;
inline constexpr long kStatusRequestTimeout = 408;
inline constexpr long kStatusRangeNotSatisfiable = 416;
inline constexpr long kStatusTooManyRequests = 429;  // RFC 6585
inline constexpr long kStatusServerError = 500;      // and above
inline constexpr long kStatusNotImplemented = 501;

// What the body of an error says (distribution-spec, "Error Codes"), as " (CODE: message)", made
// printable; empty when it says nothing that is understood.
std::string read_error_reason(HttpExchange& exchange);

// The failure for a status without a meaning of its own; `who` begins its sentence. Transient for
// 408, 429 and 5xx, with what Retry-After says.
Failure status_failure(HttpExchange& exchange, std::string_view who);

}  // namespace msb::oci
