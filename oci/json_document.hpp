// SPDX-License-Identifier: Apache-2.0
// JSON documents from strangers, read with bounds and sentences that name the field.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace msb::oci {

using Json = nlohmann::json;

inline constexpr std::size_t kMaxStrings = 65536;  // in one array or set

// Fails for what is larger than kMaxDocumentSize, deeper than kMaxDocumentDepth, or no JSON.
Result<Json> parse_json(std::string_view json);
// The same, and for what is not an object.
Result<Json> parse_object(std::string_view json);

// The member `name` of `object`, or null where it is absent or JSON's null, which Docker writes for
// empty lists.
const Json* find(const Json& object, std::string_view name);

// The member `name` if it is of `type`, an array or an object; null where it is absent and not
// `required`.
Result<const Json*> typed_member(const Json& object, std::string_view name, Json::value_t type,
                                 bool required);

// A string without zero bytes; optional: empty where it is absent; required: not empty.
Result<std::string> optional_string(const Json& object, std::string_view name);
Result<std::string> required_string(const Json& object, std::string_view name);

// An array of strings without zero bytes; empty where it is absent.
Result<std::vector<std::string>> string_list(const Json& object, std::string_view name);

// The names of the members of the object `name`, which is how config.md writes sets.
Result<std::vector<std::string>> string_set(const Json& object, std::string_view name);

// A member that is an optional_string(), and where it goes.
struct Text {
  std::string_view name;
  std::string* into;
};
Result<void> read_text(const Json& object, const Text& field);

}  // namespace msb::oci
