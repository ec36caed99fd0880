// SPDX-License-Identifier: Apache-2.0
#include "server/schema.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <iterator>
#include <optional>
#include <regex>
#include <utility>
#include <vector>

#include "base/nearest_word.hpp"
#include "oci/printable.hpp"

namespace msb::server {

namespace {

constexpr std::size_t kMaxDepth = 64;  // of values in one another, and of schemas
// In the value, and in the schemas that it is held against: some microseconds each.
constexpr std::size_t kMaxSteps = 50000;
// What a pattern, and finding the word that was meant among some, costs more than another step.
constexpr std::size_t kPatternSteps = 20;
constexpr std::size_t kBytesInStep = 2;       // of a text that is held against a pattern
constexpr std::size_t kSuggestionSteps = 32;  // for each of the words
constexpr std::size_t kMaxMatched = 256;      // bytes; std::regex takes stack for each of them
constexpr std::size_t kMaxListed = 30;        // words, in an error
constexpr std::size_t kShown = 60;            // bytes of one

constexpr std::array<std::string_view, 25> kKeywords = {
    "type",     "properties", "required",    "additionalProperties",
    "items",    "enum",       "const",       "minimum",
    "maximum",  "minLength",  "maxLength",   "pattern",
    "minItems", "maxItems",   "anyOf",       "$ref",
    "$schema",  "$defs",      "$comment",    "title",
    "default",  "examples",   "description", "format",
    "nullable"};

std::string shown(std::string_view text) {
  return oci::printable(text, kShown);
}

const Json* find(const Json& object, std::string_view name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

// 3.0 is an integer, too (JSON Schema Validation, section 6.1.1), as far as a double tells them
// apart.
bool is_integer(const Json& value) {
  constexpr double kMost = 9007199254740992;  // 2^53
  if (!value.is_number_float()) {
    return value.is_number_integer();
  }
  const auto number = value.get<double>();
  return std::abs(number) <= kMost && std::trunc(number) == number;
}

struct Type {
  std::string_view word;   // of the schema
  std::string_view shown;  // to people
  bool (*has)(const Json& value);
};
constexpr std::array<Type, 7> kTypes = {
    {{"string", "a text", [](const Json& value) { return value.is_string(); }},
     {"integer", "a whole number", &is_integer},
     {"number", "a number", [](const Json& value) { return value.is_number(); }},
     {"boolean", "true or false", [](const Json& value) { return value.is_boolean(); }},
     {"array", "a list", [](const Json& value) { return value.is_array(); }},
     {"object", "an object", [](const Json& value) { return value.is_object(); }},
     {"null", "null", [](const Json& value) { return value.is_null(); }}}};

// What a value is, whatever it says.
std::string kind_of(const Json& value) {
  if (value.is_string()) {
    return "a text";
  }
  return value.is_array() ? "a list" : value.is_object() ? "an object" : value.dump();
}

std::string describe(const Json& value) {
  return value.is_string() ? fmt::format("\"{}\"", shown(value.get_ref<const std::string&>()))
                           : kind_of(value);
}

std::string join(const std::vector<std::string>& words, std::string_view between) {
  std::string text;
  for (std::size_t i = 0; i < std::min(words.size(), kMaxListed); ++i) {
    fmt::format_to(std::back_inserter(text), "{}{}", i == 0 ? "" : between, words[i]);
  }
  return text + (words.size() > kMaxListed ? ", ..." : "");
}

// Exact: it holds every integer of 64 bits, and every double.
long double number_of(const Json& value) {
  return value.get<long double>();
}

// "from 1 to 64", "of at least 1"; nothing without limits.
std::string range_of(const Json& schema) {
  const Json* least = find(schema, "minimum");
  const Json* most = find(schema, "maximum");
  if (least != nullptr && most != nullptr) {
    return fmt::format(" from {} to {}", least->dump(), most->dump());
  }
  return least != nullptr  ? fmt::format(" of at least {}", least->dump())
         : most != nullptr ? fmt::format(" of at most {}", most->dump())
                           : "";
}

// Of Unicode, as JSON Schema counts them: what does not continue one in UTF-8.
std::size_t characters_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

// Where a value is in the one that all is about.
struct Place {
  const Place* parent = nullptr;       // of the whole value: none
  std::string_view member;             // of an object, or
  std::optional<std::size_t> index{};  // of a list
  std::size_t depth = 0;

  [[nodiscard]] Place at(std::string_view name) const { return {this, name, {}, depth + 1}; }
  [[nodiscard]] Place at(std::size_t number) const { return {this, "", number, depth + 1}; }
};

struct Failure {
  std::string message;
  std::size_t depth = 0;  // of the value that is wrong
  std::string expected;   // what that may be, when it is of another type; else empty
  bool is_final = false;  // whatever other schemas the value may be held against
  int code = 0;
};
using Checked = std::expected<void, Failure>;

class Check {
 public:
  Check(const Json& root, std::string_view name) : root_(root), name_(name) {}

  // `depth`: of schemas.
  Checked against(const Json& schema, const Json& value, const Place& place, std::size_t depth);

 private:
  Checked reference(const Json& target, const Json& value, const Place& place, std::size_t depth);
  Checked type(const Json& schema, const Json& value, const Place& place) const;
  Checked choice(const Json& schema, const Json& value, const Place& place);
  Checked number(const Json& schema, const Json& value, const Place& place) const;
  Checked text(const Json& schema, const Json& value, const Place& place);
  Checked list(const Json& schema, const Json& value, const Place& place, std::size_t depth);
  Checked object(const Json& schema, const Json& value, const Place& place, std::size_t depth);
  Checked any_of(const Json& schemas, const Json& value, const Place& place, std::size_t depth);

  Checked count(const Json& schema, const char* least, const char* most, std::size_t there,
                std::string_view unit, const Place& place) const;
  bool spend(std::size_t steps);
  [[nodiscard]] std::string where(const Place& place) const;
  template <typename... Args>
  std::unexpected<Failure> wrong(const Place& place, fmt::format_string<Args...> format,
                                 Args&&... args) const {
    return std::unexpected(Failure{
        fmt::format("\"{}\" {}", where(place), fmt::format(format, std::forward<Args>(args)...)),
        place.depth,
        {}});
  }
  std::unexpected<Failure> other_type(const Place& place, const Json& value,
                                      std::string expected) const {
    auto failure = wrong(place, "is {}, and has to be {}", kind_of(value), expected);
    failure.error().expected = std::move(expected);
    return failure;
  }
  std::unexpected<Failure> too_large() const {
    auto failure = wrong(Place{}, "is too large to be checked");
    failure.error().is_final = true;
    return failure;
  }
  std::unexpected<Failure> bad_schema(const Place& place, std::string_view keyword) const {
    return std::unexpected(Failure{fmt::format("the schema of \"{}\" has a \"{}\" that cannot be",
                                               where(place), shown(keyword)),
                                   place.depth,
                                   {},
                                   true,
                                   kBadSchema});
  }

  const Json& root_;
  std::string_view name_;
  std::size_t steps_ = 0;
};

Checked Check::against(const Json& schema, const Json& value, const Place& place,
                       std::size_t depth) {
  if (place.depth > kMaxDepth || depth > kMaxDepth) {
    return wrong(place, "nests deeper than {} levels", kMaxDepth);
  }
  if (!spend(1)) {
    return too_large();
  }
  if (schema.is_boolean()) {
    return schema.get<bool>() ? Checked() : wrong(place, "is not allowed");
  }
  if (!schema.is_object()) {
    return bad_schema(place, "schema");
  }
  for (const auto& [keyword, _] : schema.items()) {
    if (std::ranges::find(kKeywords, keyword) == kKeywords.end()) {
      return bad_schema(place, keyword);
    }
  }
  const Json* target = find(schema, "$ref");
  const Json* schemas = find(schema, "anyOf");
  Checked checked = target != nullptr ? reference(*target, value, place, depth) : Checked();
  if (checked) {
    checked = type(schema, value, place);
  }
  if (checked) {
    checked = choice(schema, value, place);
  }
  if (checked && value.is_number()) {
    checked = number(schema, value, place);
  }
  if (checked && value.is_string()) {
    checked = text(schema, value, place);
  }
  if (checked && value.is_array()) {
    checked = list(schema, value, place, depth);
  }
  if (checked && value.is_object()) {
    checked = object(schema, value, place, depth);
  }
  if (checked && schemas != nullptr) {
    checked = any_of(*schemas, value, place, depth);
  }
  return checked;
}

// A JSON pointer (RFC 6901) behind '#'.
Checked Check::reference(const Json& target, const Json& value, const Place& place,
                         std::size_t depth) {
  if (!target.is_string()) {
    return bad_schema(place, "$ref");
  }
  std::string_view rest = target.get_ref<const std::string&>();
  const Json* found = rest.starts_with('#') ? &root_ : nullptr;
  rest.remove_prefix(std::min<std::size_t>(1, rest.size()));
  while (found != nullptr && !rest.empty()) {
    const std::size_t end = std::min(rest.find('/', 1), rest.size());
    std::string name(rest.substr(1, end - 1));
    for (const auto& [escaped, plain] : {std::pair{"~1", "/"}, std::pair{"~0", "~"}}) {
      for (std::size_t at = name.find(escaped); at != name.npos; at = name.find(escaped, at + 1)) {
        name.replace(at, 2, plain);
      }
    }
    found = rest.front() == '/' ? find(*found, name) : nullptr;
    rest.remove_prefix(end);
  }
  return found != nullptr ? against(*found, value, place, depth + 1) : bad_schema(place, "$ref");
}

Checked Check::type(const Json& schema, const Json& value, const Place& place) const {
  const Json* words = find(schema, "type");
  if (words == nullptr) {
    return {};
  }
  std::vector<std::string> expected;
  bool has = false;
  for (const Json& word : words->is_array() ? *words : Json::array({*words})) {
    const auto known = std::ranges::find_if(kTypes, [&](const Type& one) {
      return word.is_string() && word.get_ref<const std::string&>() == one.word;
    });
    if (known == kTypes.end()) {
      return bad_schema(place, "type");
    }
    const bool counts = known->word == "number" || known->word == "integer";
    expected.push_back(fmt::format("{}{}", known->shown, counts ? range_of(schema) : ""));
    has = has || known->has(value);
  }
  return has ? Checked() : other_type(place, value, join(expected, " or "));
}

Checked Check::choice(const Json& schema, const Json& value, const Place& place) {
  const Json* only = find(schema, "const");
  if (only != nullptr && *only != value) {
    return wrong(place, "is {}, and has to be {}", describe(value), describe(*only));
  }
  const Json* choices = find(schema, "enum");
  if (choices == nullptr) {
    return {};
  }
  if (!choices->is_array()) {
    return bad_schema(place, "enum");
  }
  if (std::ranges::find(*choices, value) != choices->end()) {
    return {};
  }
  std::vector<std::string> words;
  for (const Json& one : *choices) {
    words.push_back(one.is_string() ? shown(one.get_ref<const std::string&>()) : kind_of(one));
  }
  const bool may_suggest = value.is_string() && spend(kSuggestionSteps * words.size());
  return wrong(place, "is {}, which is none of {}{}", describe(value), join(words, ", "),
               may_suggest ? did_you_mean(value.get_ref<const std::string&>(), words) : "");
}

Checked Check::number(const Json& schema, const Json& value, const Place& place) const {
  const Json* least = find(schema, "minimum");
  const Json* most = find(schema, "maximum");
  for (const Json* limit : {least, most}) {
    if (limit != nullptr && !limit->is_number()) {
      return bad_schema(place, limit == least ? "minimum" : "maximum");
    }
  }
  if ((least != nullptr && number_of(value) < number_of(*least)) ||
      (most != nullptr && number_of(value) > number_of(*most))) {
    return wrong(place, "is {}, and has to be a number{}", value.dump(), range_of(schema));
  }
  return {};
}

Checked Check::text(const Json& schema, const Json& value, const Place& place) {
  const auto& string = value.get_ref<const std::string&>();
  if (auto counted =
          count(schema, "minLength", "maxLength", characters_of(string), "characters", place);
      !counted) {
    return counted;
  }
  const Json* pattern = find(schema, "pattern");
  if (pattern == nullptr) {
    return {};
  }
  if (!pattern->is_string()) {
    return bad_schema(place, "pattern");
  }
  if (!spend(kPatternSteps + std::min(string.size(), kMaxMatched) / kBytesInStep)) {
    return too_large();
  }
  const auto& expression = pattern->get_ref<const std::string&>();
  bool matches = false;
  try {
    matches = string.size() <= kMaxMatched && std::regex_search(string, std::regex(expression));
  } catch (const std::regex_error&) {
    return bad_schema(place, "pattern");
  }
  return matches
             ? Checked()
             : wrong(place, "is {}, and has to match the pattern {}", describe(value), expression);
}

Checked Check::list(const Json& schema, const Json& value, const Place& place, std::size_t depth) {
  if (auto counted = count(schema, "minItems", "maxItems", value.size(), "elements", place);
      !counted) {
    return counted;
  }
  if (const Json* items = find(schema, "items")) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (auto checked = against(*items, value[i], place.at(i), depth + 1); !checked) {
        return checked;
      }
    }
  }
  return {};
}

Checked Check::object(const Json& schema, const Json& value, const Place& place,
                      std::size_t depth) {
  static const Json kNone = Json::object();
  static const Json kAnything = true;
  const Json* given = find(schema, "properties");
  const Json& properties = given != nullptr ? *given : kNone;
  const Json* required = find(schema, "required");
  const Json* others = find(schema, "additionalProperties");
  if (!properties.is_object() || (required != nullptr && !required->is_array())) {
    return bad_schema(place, properties.is_object() ? "required" : "properties");
  }
  // What is not known comes first: it may be a slip of what is missing.
  if (others != nullptr && others->is_boolean() && !others->get<bool>()) {
    for (const auto& [name, _] : value.items()) {
      if (properties.contains(name)) {
        continue;
      }
      std::vector<std::string> known;
      for (const auto& [property, subschema] : properties.items()) {
        known.push_back(property);
      }
      return wrong(place.at(name), "is not known{}",
                   spend(kSuggestionSteps * known.size()) ? did_you_mean(name, known) : "");
    }
  }
  for (const Json& name : required != nullptr ? *required : kNone) {
    if (!name.is_string()) {
      return bad_schema(place, "required");
    }
    if (!value.contains(name.get_ref<const std::string&>())) {
      return wrong(place.at(name.get_ref<const std::string&>()), "is missing");
    }
  }
  for (const auto& [name, member] : value.items()) {
    const Json* property = find(properties, name);
    const Json& judge = property != nullptr ? *property : others != nullptr ? *others : kAnything;
    if (auto checked = against(judge, member, place.at(name), depth + 1); !checked) {
      return checked;
    }
  }
  return {};
}

Checked Check::any_of(const Json& schemas, const Json& value, const Place& place,
                      std::size_t depth) {
  if (!schemas.is_array() || schemas.empty()) {
    return bad_schema(place, "anyOf");
  }
  std::vector<std::string> expected;
  std::optional<Failure> nearest;  // of those that are about more than the type of the value
  for (const Json& schema : schemas) {
    auto checked = against(schema, value, place, depth + 1);
    if (checked || checked.error().is_final) {
      return checked;
    }
    Failure& failure = checked.error();
    if (failure.depth == place.depth && !failure.expected.empty()) {
      expected.push_back(std::move(failure.expected));
    } else if (!nearest || failure.depth > nearest->depth) {
      nearest = std::move(failure);
    }
  }
  return nearest ? std::unexpected(std::move(*nearest))
                 : other_type(place, value, join(expected, " or "));
}

Checked Check::count(const Json& schema, const char* least, const char* most, std::size_t there,
                     std::string_view unit, const Place& place) const {
  for (const char* keyword : {least, most}) {
    const Json* limit = find(schema, keyword);
    if (limit == nullptr) {
      continue;
    }
    if (!limit->is_number_unsigned()) {
      return bad_schema(place, keyword);
    }
    const auto number = limit->get<std::uint64_t>();
    if (keyword == least ? there < number : there > number) {
      return wrong(place, "has {} {}, and has to have at {} {}", there, unit,
                   keyword == least ? "least" : "most", number);
    }
  }
  return {};
}

bool Check::spend(std::size_t steps) {
  steps_ += std::min(steps, kMaxSteps);
  return steps_ <= kMaxSteps;
}

std::string Check::where(const Place& place) const {
  if (place.parent == nullptr) {
    return std::string(name_);
  }
  if (place.index) {
    return fmt::format("{}[{}]", where(*place.parent), *place.index);
  }
  return place.parent->parent == nullptr
             ? shown(place.member)
             : fmt::format("{}.{}", where(*place.parent), shown(place.member));
}

}  // namespace

Result<void> check_schema(const Json& schema, const Json& value, std::string_view name,
                          const Json& root) {
  Check check(root, name);
  auto checked = check.against(schema, value, Place{}, 0);
  if (!checked) {
    return std::unexpected(Error{std::move(checked.error().message), checked.error().code});
  }
  return {};
}

}  // namespace msb::server
