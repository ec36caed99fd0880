// SPDX-License-Identifier: Apache-2.0
// JSON that a stranger wrote, bounded before it is parsed.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/result.hpp"

namespace msb::oci {

// Fails with one sentence: larger than kMaxDocumentSize, nested deeper than kMaxDocumentDepth, not
// JSON, not an object.
Result<nlohmann::json> parse_json_object(std::string_view json);

}  // namespace msb::oci
