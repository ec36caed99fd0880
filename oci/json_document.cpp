// SPDX-License-Identifier: Apache-2.0
#include "oci/json_document.hpp"

#include <algorithm>
#include <utility>

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

Result<Json> parse_json(std::string_view json) {
  if (json.size() > kMaxDocumentSize) {
    return fail("the document is larger than {} bytes", kMaxDocumentSize);
  }
  if (nesting_depth(json) > kMaxDocumentDepth) {
    return fail("the document nests deeper than {} levels", kMaxDocumentDepth);
  }
  Json document = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    return fail("the document is not valid JSON");
  }
  return document;
}

Result<Json> parse_object(std::string_view json) {
  auto document = parse_json(json);
  if (document && !document->is_object()) {
    return fail("the document is not a JSON object");
  }
  return document;
}

const Json* find(const Json& object, std::string_view name) {
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

Result<std::string> optional_string(const Json& object, std::string_view name) {
  const Json* value = find(object, name);
  if (value == nullptr) {
    return std::string();
  }
  if (!value->is_string()) {
    return fail("field '{}' is not a string", name);
  }
  const auto& text = value->get_ref<const std::string&>();
  if (text.find('\0') != std::string::npos) {
    return fail("field '{}' contains a zero byte", name);
  }
  return text;
}

Result<std::string> required_string(const Json& object, std::string_view name) {
  Result<std::string> text = optional_string(object, name);
  if (text && text->empty()) {
    return fail("field '{}' is missing", name);
  }
  return text;
}

Result<const Json*> typed_member(const Json& object, std::string_view name, Json::value_t type,
                                 bool required) {
  const Json* value = find(object, name);
  if (value == nullptr) {
    if (required) {
      return fail("field '{}' is missing", name);
    }
    return nullptr;
  }
  if (value->type() != type) {
    return fail("field '{}' is not an {}", name, type == Json::value_t::array ? "array" : "object");
  }
  return value;
}

Result<std::vector<std::string>> string_list(const Json& object, std::string_view name) {
  const auto array = typed_member(object, name, Json::value_t::array, false);
  if (!array) {
    return std::unexpected(array.error());
  }
  std::vector<std::string> list;
  if (*array == nullptr) {
    return list;
  }
  if ((*array)->size() > kMaxStrings) {
    return fail("field '{}' has more than {} elements", name, kMaxStrings);
  }
  for (const Json& element : **array) {
    if (!element.is_string()) {
      return fail("field '{}' has an element that is not a string", name);
    }
    const auto& text = element.get_ref<const std::string&>();
    if (text.find('\0') != std::string::npos) {
      return fail("field '{}' has an element with a zero byte", name);
    }
    list.push_back(text);
  }
  return list;
}

Result<void> read_text(const Json& object, const Text& field) {
  auto text = optional_string(object, field.name);
  if (!text) {
    return std::unexpected(text.error());
  }
  *field.into = std::move(*text);
  return {};
}

Result<std::vector<std::string>> string_set(const Json& object, std::string_view name) {
  const auto set = typed_member(object, name, Json::value_t::object, false);
  if (!set) {
    return std::unexpected(set.error());
  }
  std::vector<std::string> names;
  if (*set == nullptr) {
    return names;
  }
  if ((*set)->size() > kMaxStrings) {
    return fail("field '{}' has more than {} members", name, kMaxStrings);
  }
  for (const auto& [member, value] : (*set)->items()) {
    if (member.find('\0') != std::string::npos) {
      return fail("field '{}' has a member with a zero byte", name);
    }
    names.push_back(member);
  }
  return names;
}

}  // namespace msb::oci
