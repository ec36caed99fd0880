// SPDX-License-Identifier: Apache-2.0
// JSON-RPC 2.0, one object per line, as docs/control.md restricts it.
#pragma once

#include <cstdint>
#include <expected>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace msb::launcher {

using Json = nlohmann::json;

// JSON-RPC 2.0 section 5.1.
enum class RpcCode : int {
  kParseError = -32700,
  kInvalidRequest = -32600,
  kUnknownMethod = -32601,
  kInvalidParameters = -32602,
  kRefused = -32000,  // ours: what was asked for cannot be done
};

struct RpcError {
  RpcCode code = RpcCode::kRefused;
  std::string message;  // one sentence, without a final full stop
};

template <typename T>
using RpcResult = std::expected<T, RpcError>;

struct RpcRequest {
  std::optional<Json> id;  // a string, a whole number or null; none: nobody waits for an answer
  std::string method;
  Json parameters;  // an object
};

// What was read instead of a request. It is answered, with null where its id cannot be told.
struct RpcRejection {
  Json id;
  RpcError error;
};

// `line`: without its newline, from anybody. What it costs is bounded by its length: how deep it
// nests is limited, and of members of one name the last one counts.
std::expected<RpcRequest, RpcRejection> parse_request(std::string_view line);

// Fails with the name of a member that is not in `known`.
RpcResult<void> check_parameters(const Json& parameters, std::span<const std::string_view> known);
// The member `name`, if there is one. Fails unless it is a whole number from 0 to 2^64 - 1.
RpcResult<std::optional<std::uint64_t>> whole_number(const Json& parameters, std::string_view name);
// Likewise of a text, and of true or false.
RpcResult<std::optional<std::string>> text(const Json& parameters, std::string_view name);
RpcResult<std::optional<bool>> yes_or_no(const Json& parameters, std::string_view name);

// Lines, with their newline. Text that is not UTF-8 is replaced.
std::string answer_line(const Json& id, const RpcResult<Json>& answer);
std::string notification_line(std::string_view method, Json parameters);

}  // namespace msb::launcher
