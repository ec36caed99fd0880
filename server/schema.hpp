// SPDX-License-Identifier: Apache-2.0
// JSON Schema (draft 2020-12), as much of it as our own documents use: what clients send is held
// against the same schemas that they are shown. Pure.
//
//   type (a word or a list), properties, required, additionalProperties, items, enum, const,
//   minimum, maximum, minLength, maxLength, pattern, minItems, maxItems, anyOf, $ref ("#/..." into
//   `root`); $schema, $defs, $comment, title, description, default, examples, format and nullable
//   have no effect
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace msb::server {

using Json = nlohmann::ordered_json;

// The errno of the error when the schema is what is wrong, which is a mistake of ours: it uses what
// is not in the list above, or refers to what there is not.
inline constexpr int kBadSchema = 22;  // EINVAL

// Fails with one sentence that says where ("config.volumes[2]"), what is wrong, what it may be,
// and, for a member that is not known, which was meant. `name`: what `value` is called when it is
// wrong itself ("arguments"). A pattern matches no text of more than 256 bytes. A value that takes
// very long to check, or nests very deep, is refused.
Result<void> check_schema(const Json& schema, const Json& value, std::string_view name,
                          const Json& root);

}  // namespace msb::server
