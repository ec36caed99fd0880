// SPDX-License-Identifier: Apache-2.0
#include "launcher/json_rpc.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "oci/json_document.hpp"
#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

using namespace std::string_view_literals;

std::unexpected<RpcError> refuse(RpcCode code, std::string message) {
  return std::unexpected(RpcError{code, std::move(message)});
}

std::unexpected<RpcError> invalid(std::string message) {
  return refuse(RpcCode::kInvalidRequest, std::move(message));
}

// Not a fraction: what would be sent back might be another number than what came.
bool can_be_id(const Json& value) {
  return value.is_string() || value.is_number_integer() || value.is_null();
}

std::string one_line(Json document) {
  document["jsonrpc"] = "2.0";
  return document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

RpcResult<RpcRequest> read_request(Json& document) {
  constexpr std::array kMembers{"jsonrpc"sv, "id"sv, "method"sv, "params"sv};
  for (const auto& [name, value] : document.items()) {
    if (std::ranges::find(kMembers, name) == kMembers.end()) {
      return invalid(fmt::format("a request has no member \"{}\"", protocol::quote(name)));
    }
  }
  if (const auto version = document.find("jsonrpc");
      version == document.end() || *version != "2.0") {
    return invalid("the member \"jsonrpc\" of a request must be \"2.0\"");
  }
  RpcRequest request;
  if (const auto id = document.find("id"); id != document.end()) {
    if (!can_be_id(*id)) {
      return invalid("the member \"id\" of a request must be a string, a whole number or null");
    }
    request.id = *id;
  }
  const auto method = document.find("method");
  if (method == document.end() || !method->is_string()) {
    return invalid("the member \"method\" of a request must be a string");
  }
  request.method = method->get<std::string>();
  request.parameters = Json::object();
  if (const auto parameters = document.find("params"); parameters != document.end()) {
    if (!parameters->is_object()) {
      return invalid("the member \"params\" of a request must be an object, or be left out");
    }
    request.parameters = std::move(*parameters);
  }
  return request;
}

}  // namespace

std::expected<RpcRequest, RpcRejection> parse_request(std::string_view line) {
  auto document = oci::parse_json(line);
  if (!document) {
    return std::unexpected(RpcRejection{{}, {RpcCode::kParseError, document.error().message}});
  }
  if (document->is_array()) {
    return std::unexpected(RpcRejection{
        {},
        {RpcCode::kInvalidRequest, "batches are not supported; send one request after another"}});
  }
  if (!document->is_object()) {
    return std::unexpected(
        RpcRejection{{}, {RpcCode::kInvalidRequest, "a request must be a JSON object"}});
  }
  auto request = read_request(*document);
  if (!request) {
    const auto id = document->find("id");
    return std::unexpected(
        RpcRejection{id != document->end() && can_be_id(*id) ? std::move(*id) : Json(),
                     std::move(request.error())});
  }
  return std::move(*request);
}

RpcResult<void> check_parameters(const Json& parameters, std::span<const std::string_view> known) {
  for (const auto& [name, value] : parameters.items()) {
    if (std::ranges::find(known, name) == known.end()) {
      return refuse(
          RpcCode::kInvalidParameters,
          fmt::format("there is no parameter \"{}\"{}", protocol::quote(name),
                      known.empty() ? "; the method has none"
                                    : fmt::format("; there are {}", fmt::join(known, ", "))));
    }
  }
  return {};
}

RpcResult<std::optional<std::uint64_t>> whole_number(const Json& parameters,
                                                     std::string_view name) {
  const auto value = parameters.find(name);
  if (value == parameters.end()) {
    return std::nullopt;
  }
  if (!value->is_number_unsigned()) {
    return refuse(
        RpcCode::kInvalidParameters,
        fmt::format("the parameter \"{}\" must be a whole number from 0 to 2^64 - 1", name));
  }
  return value->get<std::uint64_t>();
}

RpcResult<std::optional<std::string>> text(const Json& parameters, std::string_view name) {
  const auto value = parameters.find(name);
  if (value == parameters.end()) {
    return std::nullopt;
  }
  if (!value->is_string()) {
    return refuse(RpcCode::kInvalidParameters,
                  fmt::format("the parameter \"{}\" must be a text", name));
  }
  return value->get<std::string>();
}

RpcResult<std::optional<bool>> yes_or_no(const Json& parameters, std::string_view name) {
  const auto value = parameters.find(name);
  if (value == parameters.end()) {
    return std::nullopt;
  }
  if (!value->is_boolean()) {
    return refuse(RpcCode::kInvalidParameters,
                  fmt::format("the parameter \"{}\" must be true or false", name));
  }
  return value->get<bool>();
}

std::string answer_line(const Json& id, const RpcResult<Json>& answer) {
  Json document = Json::object();
  document["id"] = id;
  if (answer) {
    document["result"] = *answer;
  } else {
    document["error"] = {{"code", static_cast<int>(answer.error().code)},
                         {"message", answer.error().message}};
  }
  return one_line(std::move(document));
}

std::string notification_line(std::string_view method, Json parameters) {
  return one_line({{"method", method}, {"params", std::move(parameters)}});
}

}  // namespace msb::launcher
