// SPDX-License-Identifier: Apache-2.0
#include "server/exchange.hpp"

#include <algorithm>

#include "oci/printable.hpp"

namespace msb::server {

namespace {

constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxMembers = 4096;     // of all objects together
constexpr std::size_t kMaxName = 256;         // bytes of a member's
constexpr std::size_t kMaxValues = 1U << 18;  // each takes many times the bytes that it has as text

std::optional<unsigned> hexadecimal(char c) {
  if (c >= '0' && c <= '9') {
    return static_cast<unsigned>(c - '0');
  }
  const char lower = static_cast<char>(c | 0x20);
  if (lower >= 'a' && lower <= 'f') {
    return static_cast<unsigned>(lower - 'a') + 10;
  }
  return std::nullopt;
}

// Why a text is not to be parsed. The parser's own recursion is not ours to bound, and an object
// keeps its members in order, so that each is looked for among all before it, by its name.
std::optional<std::string> judge_shape(std::string_view text) {
  std::size_t depth = 0;
  std::size_t members = 0;
  std::size_t commas = 0;
  std::size_t name = 0;  // bytes of the text that was there last
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      const std::size_t begin = ++i;
      while (i < text.size() && text[i] != '"') {
        i += text[i] == '\\' ? 2 : 1;
      }
      name = i - begin;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxDepth) {
        return fmt::format("the JSON nests deeper than {} levels", kMaxDepth);
      }
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    } else if (c == ':' && (++members > kMaxMembers || name > kMaxName)) {
      return name > kMaxName
                 ? fmt::format("the JSON has a member whose name has more than {} bytes", kMaxName)
                 : fmt::format("the JSON has more than {} members", kMaxMembers);
    } else if (c == ',' && ++commas >= kMaxValues) {
      return fmt::format("the JSON has more than {} values", kMaxValues);
    }
  }
  return std::nullopt;
}

}  // namespace

std::string to_text(const Json& document) {
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

HttpAnswer json_answer(const Json& document, unsigned status) {
  return {status, to_text(document), "application/json", {}};
}

Json error_document(const Problem& problem, const std::string& request_id) {
  const ReasonInfo& reason = info(problem.reason);
  return {{"error",
           {{"code", reason.word},
            {"number", reason.number},
            {"message", problem.message},
            {"request_id", request_id}}}};
}

HttpAnswer error_answer(const Problem& problem, const std::string& request_id) {
  const ReasonInfo& reason = info(problem.reason);
  HttpAnswer answer = json_answer(error_document(problem, request_id), reason.status);
  if (problem.retry_after) {
    answer.headers.emplace_back("Retry-After", fmt::format("{}", *problem.retry_after));
  }
  if (reason.status == 401) {
    answer.headers.emplace_back("WWW-Authenticate", "Bearer");
  }
  return answer;
}

Outcome<Json> parse_json(std::string_view text) {
  if (const auto reason = judge_shape(text)) {
    return refuse(Reason::kInvalid, "{}", *reason);
  }
  Json document = Json::parse(text, nullptr, false);
  if (document.is_discarded()) {
    return refuse(Reason::kInvalid, "the body is no JSON");
  }
  return document;
}

Outcome<Json> parse_body(const std::string& body) {
  return body.empty() ? Outcome<Json>(Json::object()) : parse_json(body);
}

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_blank) {
  std::string decoded;
  decoded.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      const auto high = i + 2 < text.size() ? hexadecimal(text[i + 1]) : std::nullopt;
      const auto low = i + 2 < text.size() ? hexadecimal(text[i + 2]) : std::nullopt;
      if (!high || !low || (*high == 0 && *low == 0)) {
        return std::nullopt;
      }
      decoded.push_back(static_cast<char>(*high * 16 + *low));
      i += 2;
    } else {
      decoded.push_back(text[i] == '+' && plus_is_blank ? ' ' : text[i]);
    }
  }
  return decoded;
}

Outcome<RequestLine> parse_target(std::string_view method, std::string_view target) {
  RequestLine line;
  line.method = method;
  if (!target.starts_with('/')) {
    return refuse(Reason::kInvalid, "the request's target is no path");
  }
  const std::size_t question = target.find('?');
  line.path_text = target.substr(0, question);
  std::string_view rest = std::string_view(line.path_text).substr(1);
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find('/'));
    auto segment = percent_decode(part, false);
    if (!segment || segment->empty() || *segment == "." || *segment == "..") {
      return refuse(Reason::kInvalid, "'{}' in the path is no name", oci::printable(part));
    }
    line.path.push_back(std::move(*segment));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
  }
  std::string_view query =
      question == std::string_view::npos ? std::string_view() : target.substr(question + 1);
  while (!query.empty()) {
    const std::string_view part = query.substr(0, query.find('&'));
    const std::size_t equals = part.find('=');
    auto name = percent_decode(part.substr(0, equals), true);
    auto value = equals == std::string_view::npos ? std::optional<std::string>("")
                                                  : percent_decode(part.substr(equals + 1), true);
    if (!name || !value) {
      return refuse(Reason::kInvalid, "'{}' in the query is not encoded as it has to be",
                    oci::printable(part));
    }
    if (!name->empty()) {
      line.query[std::move(*name)] = std::move(*value);
    }
    query.remove_prefix(std::min(query.size(), part.size() + 1));
  }
  return line;
}

}  // namespace msb::server
