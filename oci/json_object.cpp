// SPDX-License-Identifier: Apache-2.0
#include "oci/json_object.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "oci/image_spec.hpp"

namespace msb::oci {
namespace {

// How deep brackets nest, without building anything. Text that is no JSON is left to the parser.
std::size_t nesting_depth(std::string_view json) {
  std::size_t depth = 0;
  std::size_t deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

Result<nlohmann::json> parse_json_object(std::string_view json) {
  if (json.size() > kMaxDocumentSize) {
    return fail("the document is larger than {} bytes", kMaxDocumentSize);
  }
  if (nesting_depth(json) > kMaxDocumentDepth) {
    return fail("the document nests deeper than {} levels", kMaxDocumentDepth);
  }
  nlohmann::json document = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    return fail("the document is not valid JSON");
  }
  if (!document.is_object()) {
    return fail("the document is not a JSON object");
  }
  return document;
}

}  // namespace msb::oci
