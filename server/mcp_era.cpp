// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_era.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "oci/base64.hpp"
#include "oci/printable.hpp"

namespace msb::server {

namespace {

using Judged = std::expected<void, McpError>;

// Members of "_meta".
constexpr const char* kRevision = "io.modelcontextprotocol/protocolVersion";
constexpr const char* kCapabilities = "io.modelcontextprotocol/clientCapabilities";
constexpr const char* kClient = "io.modelcontextprotocol/clientInfo";
constexpr const char* kServer = "io.modelcontextprotocol/serverInfo";

constexpr unsigned kKeep = 300'000;  // milliseconds

const Json* member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

bool has_text(const Json& object, const char* name) {
  const Json* value = member(object, name);
  return value != nullptr && value->is_string();
}

std::expected<McpEra, McpError> judge_legacy(const McpFields* fields) {
  if (fields != nullptr && !fields->revision.empty() && !is_mcp_revision(fields->revision)) {
    return mcp_refuse(McpCode::kInvalidRequest, Reason::kInvalid,
                      "the MCP-Protocol-Version '{}' is not spoken here: take that which "
                      "initialize answers with, as {}",
                      oci::printable(fields->revision), kMcpRevisions.front());
  }
  return McpEra::kLegacy;
}

// What a modern message says of itself; null when it has nothing of the kind.
const Json* meta_of(const McpMessage& message) {
  const Json* meta = member(message.params, "_meta");
  return meta != nullptr && meta->is_object() ? meta : nullptr;
}

Judged judge_meta(const Json* meta) {
  if (meta == nullptr || !has_text(*meta, kRevision)) {
    return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid, "\"_meta\" needs {}, a text",
                      kRevision);
  }
  const Json* capabilities = member(*meta, kCapabilities);
  if (capabilities == nullptr || !capabilities->is_object()) {
    return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid, "\"_meta\" needs {}, an object",
                      kCapabilities);
  }
  const Json* client = member(*meta, kClient);
  if (client != nullptr &&
      !(client->is_object() && has_text(*client, "name") && has_text(*client, "version"))) {
    return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid,
                      "{} in \"_meta\" has to be an object with a \"name\" and a \"version\"",
                      kClient);
  }
  return {};
}

// What others read in `field` has to be what is served.
Judged judge_field(const char* field, std::string_view value, std::string_view said,
                   std::string_view where) {
  if (value == said) {
    return {};
  }
  if (value.empty()) {
    return mcp_refuse(McpCode::kHeaderMismatch, Reason::kInvalid,
                      "{} is missing: it has to be '{}', as {}", field, oci::printable(said),
                      where);
  }
  return mcp_refuse(McpCode::kHeaderMismatch, Reason::kInvalid,
                    "{} is '{}' and {} '{}': they have to be the same", field,
                    oci::printable(value), where, oci::printable(said));
}

// A field that may be in base64, for what a field cannot have in it; nothing for what is no base64.
std::optional<std::string> decode_field(std::string_view value) {
  constexpr std::string_view kBegin = "=?base64?";
  constexpr std::string_view kEnd = "?=";
  if (!value.starts_with(kBegin) || !value.ends_with(kEnd) ||
      value.size() < kBegin.size() + kEnd.size()) {
    return std::string(value);
  }
  value.remove_prefix(kBegin.size());
  value.remove_suffix(kEnd.size());
  return oci::decode_base64(value);
}

// The method, and what it is called upon.
Judged judge_target(const McpMessage& message, const McpFields& fields) {
  if (auto good = judge_field("Mcp-Method", fields.method, message.method, "\"method\""); !good) {
    return good;
  }
  const bool named = message.method == "tools/call" || message.method == "prompts/get";
  if (!named || !has_text(message.params, "name")) {
    return {};
  }
  const auto name = decode_field(fields.name);
  if (!name) {
    return mcp_refuse(McpCode::kHeaderMismatch, Reason::kInvalid,
                      "Mcp-Name is '{}', which is no base64", oci::printable(fields.name));
  }
  return judge_field("Mcp-Name", *name, message.params["name"].get_ref<const std::string&>(),
                     "\"params.name\"");
}

Judged judge_modern(const McpMessage& message, const McpFields* fields) {
  const Json* meta = meta_of(message);
  if (auto good = judge_meta(meta); !good) {
    return good;
  }
  const auto& revision = (*meta)[kRevision].get_ref<const std::string&>();
  if (fields != nullptr) {
    auto same = judge_field("MCP-Protocol-Version", fields->revision, revision, kRevision);
    if (!same) {
      return same;
    }
  }
  if (revision != kModernRevision) {
    auto refused =
        mcp_refuse(McpCode::kUnsupportedRevision, Reason::kInvalid,
                   "the revision '{}' is not spoken here in this way: take {}, or begin with "
                   "initialize, which agrees on an older one",
                   oci::printable(revision), kModernRevision);
    refused.error().data = {{"supported", served_revisions()}, {"requested", revision}};
    return refused;
  }
  return fields == nullptr ? Judged() : judge_target(message, *fields);
}

}  // namespace

std::expected<McpEra, McpError> judge_era(const McpMessage& message, const McpFields* fields) {
  const Json* meta = meta_of(message);
  const bool claimed = meta != nullptr && meta->contains(kRevision);
  if (!claimed && (fields == nullptr || !is_modern(fields->revision))) {
    return judge_legacy(fields);
  }
  // What is no request is not answered, so that nobody would hear what is wrong with it.
  if (message.kind == McpMessage::Kind::kRequest) {
    if (auto good = judge_modern(message, fields); !good) {
      return std::unexpected(std::move(good.error()));
    }
  }
  return McpEra::kModern;
}

Json modern_result(std::string_view method, Json result) {
  result["resultType"] = "complete";
  result["_meta"][kServer] = server_info();
  constexpr std::array<std::string_view, 3> kConstant = {"server/discover", "tools/list",
                                                         "prompts/list"};
  if (std::ranges::find(kConstant, method) != kConstant.end()) {
    result["ttlMs"] = kKeep;
    result["cacheScope"] = "public";
  }
  return result;
}

Json server_info() {
  return {{"name", "microsandbox-server"}, {"title", "microsandbox"}, {"version", MSB_VERSION}};
}

Json served_revisions() {
  Json all = Json::array({kModernRevision});
  for (const std::string_view revision : kMcpRevisions) {
    all.push_back(revision);
  }
  return all;
}

}  // namespace msb::server
