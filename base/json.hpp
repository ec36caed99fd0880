// SPDX-License-Identifier: Apache-2.0
// A structure with cereal's serialize(), to and from JSON. For sources only: cereal is large.
#pragma once

// Not recursive: however deep a text nests, reading it takes no stack.
#define RAPIDJSON_PARSE_DEFAULT_FLAGS \
  (kParseFullPrecisionFlag | kParseNanAndInfFlag | kParseIterativeFlag)
#include <cereal/archives/json.hpp>
#include <cereal/types/array.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/vector.hpp>
#include <exception>
#include <sstream>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace msb {

// {"name": value}, without white space.
template <class T>
std::string write_json(const char* name, const T& value) {
  std::ostringstream out;
  {
    cereal::JSONOutputArchive archive(out, cereal::JSONOutputArchive::Options::NoIndent());
    archive(cereal::make_nvp(name, value));
  }
  return out.str();
}

template <class T>
Result<T> read_json(const char* name, std::string_view json) {
  T value;
  try {
    std::istringstream in{std::string(json)};
    cereal::JSONInputArchive archive(in);
    archive(cereal::make_nvp(name, value));
  } catch (const std::exception& error) {  // cereal and rapidjson report bad input by exception
    return fail("{}", error.what());
  }
  return value;
}

}  // namespace msb
