// SPDX-License-Identifier: Apache-2.0
// The OpenAPI 3.1 document of /v1, openapi.json, as it was when the server was built.
#pragma once

#include <string_view>

namespace msb::server {

extern const std::string_view kOpenApi;

}  // namespace msb::server
