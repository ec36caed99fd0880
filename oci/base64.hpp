// SPDX-License-Identifier: Apache-2.0
// Base64 with padding (RFC 4648, section 4), for credentials.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace msb::oci {

std::string encode_base64(std::string_view bytes);

// Nothing when `text` is not exactly what encode_base64() writes.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace msb::oci
