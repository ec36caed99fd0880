// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/status.hpp"

#include <nlohmann/json.hpp>

#include "oci/json_document.hpp"
#include "oci/printable.hpp"
#include "oci/registry/header_fields.hpp"

namespace msb::oci {
namespace {

constexpr std::size_t kMaxErrorBody = 16 * 1024;  // bytes

std::string text_of(const nlohmann::json& object, const char* name) {
  const auto member = object.find(name);
  const auto* text = member == object.end() ? nullptr : member->get_ptr<const std::string*>();
  return text == nullptr ? std::string() : printable(*text);
}

}  // namespace

std::string read_error_reason(HttpExchange& exchange) {
  const auto body = exchange.read_rest(kMaxErrorBody);
  if (!body) {
    return {};
  }
  const auto document = parse_object(*body);
  if (!document) {
    return {};
  }
  const auto errors = document->find("errors");
  const bool listed = errors != document->end() && errors->is_array() && !errors->empty() &&
                      errors->front().is_object();
  // Docker Hub's token server says {"details": "..."} instead.
  const std::string code = listed ? text_of(errors->front(), "code") : "";
  const std::string message =
      listed ? text_of(errors->front(), "message") : text_of(*document, "details");
  if (code.empty() && message.empty()) {
    return {};
  }
  return fmt::format(" ({}{}{})", code, code.empty() || message.empty() ? "" : ": ", message);
}

Failure status_failure(HttpExchange& exchange, std::string_view who) {
  const long status = exchange.head().status;
  Failure failure;
  if (status == kStatusRequestTimeout || status == kStatusTooManyRequests ||
      status >= kStatusServerError) {
    failure.kind = Failure::Kind::kTransient;
    if (const std::string* field = exchange.head().find("retry-after"); field != nullptr) {
      failure.retry_after = parse_retry_after(*field, std::chrono::system_clock::now());
    }
  }
  const std::string reason = read_error_reason(exchange);
  failure.error = status == kStatusTooManyRequests
                      ? fail("{} limits how often it may be asked{}", who, reason).error()
                      : fail("{} answers with status {}{}", who, status, reason).error();
  return failure;
}

}  // namespace msb::oci
