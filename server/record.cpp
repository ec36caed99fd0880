// SPDX-License-Identifier: Apache-2.0
#include "server/record.hpp"

#include <limits>

#include "sandbox/files.hpp"
#include "sandbox/spec_json.hpp"

namespace msb::server {

namespace {

constexpr const char* kFile = "served.json";

void set(sandbox::Json& document, const char* name, const std::string& value) {
  if (!value.empty()) {
    document[name] = value;
  }
}

bool flag_member(const sandbox::Json& document, const char* name) {
  const auto found = document.find(name);
  return found != document.end() && found->is_boolean() && found->get<bool>();
}

}  // namespace

Result<void> write_record(const sandbox::StateDirectory& state, const Record& record) {
  sandbox::Json document = {{"spec", sandbox::to_json(record.spec)},
                            {"image_command", record.image_command},
                            {"labels", record.labels},
                            {"declared", record.declared},
                            {"ephemeral", record.ephemeral},
                            {"keeper", record.keeper},
                            {"created_ms", record.created_ms}};
  set(document, "id", record.id);
  set(document, "exec", record.exec);
  set(document, "owner", record.owner);
  set(document, "starter", record.starter);
  set(document, "session", record.session);
  set(document, "idempotency", record.idempotency);
  if (record.lifetime_s) {
    document["lifetime_s"] = *record.lifetime_s;
  }
  set(document, "request", record.request);
  return sandbox::write_json_file(state.file(kFile), document);
}

Result<std::optional<Record>> read_record(const sandbox::StateDirectory& state) {
  const auto document = sandbox::read_json_file(state.file(kFile));
  if (!document) {
    return std::unexpected(document.error());
  }
  if (!*document) {
    return std::nullopt;
  }
  const auto spec = (*document)->find("spec");
  if (spec == (*document)->end()) {
    return fail("'{}' is damaged: it has no spec", state.file(kFile));
  }
  auto parsed = sandbox::spec_from_json(*spec);
  if (!parsed) {
    return std::unexpected(parsed.error().within(state.file(kFile)));
  }
  Record record;
  record.spec = std::move(*parsed);
  record.id = sandbox::text_member(**document, "id").value_or("");
  record.exec = sandbox::text_member(**document, "exec").value_or("");
  record.image_command = flag_member(**document, "image_command");
  record.declared = flag_member(**document, "declared");
  record.ephemeral = flag_member(**document, "ephemeral");
  record.owner = sandbox::text_member(**document, "owner").value_or("");
  record.starter = sandbox::text_member(**document, "starter").value_or("");
  record.session = sandbox::text_member(**document, "session").value_or("");
  record.idempotency = sandbox::text_member(**document, "idempotency").value_or("");
  record.request = sandbox::text_member(**document, "request").value_or("");
  if (const auto lifetime = sandbox::number_member(**document, "lifetime_s");
      lifetime && *lifetime > 0 && *lifetime <= std::numeric_limits<std::uint32_t>::max()) {
    record.lifetime_s = static_cast<std::uint32_t>(*lifetime);
  }
  record.keeper = sandbox::number_member(**document, "keeper").value_or(0);
  record.created_ms = sandbox::number_member(**document, "created_ms").value_or(0);
  if (const auto labels = (*document)->find("labels");
      labels != (*document)->end() && labels->is_object()) {
    for (const auto& [name, value] : labels->items()) {
      if (value.is_string()) {
        record.labels.emplace(name, value.get<std::string>());
      }
    }
  }
  return record;
}

}  // namespace msb::server
