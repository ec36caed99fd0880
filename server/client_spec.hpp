// SPDX-License-Identifier: Apache-2.0
// What clients say a sandbox is to be, as JSON: the "config" of the 0.2 line with what has come to
// it since, the same in every interface; and what they are told of one.
#pragma once

#include <string>

#include "server/exchange.hpp"
#include "server/problem.hpp"
#include "server/sandboxes.hpp"

namespace msb::server {

// The JSON Schema of that object. Every member may be null, as 0.2 clients send what they do not
// set.
const Json& config_schema();

// `config` has passed the schema. Fails for words that cannot be ("ports": ["http"]).
Outcome<Record> read_config(const Json& config);

// {"name", "namespace", "image", "state", "created_at", "labels", "ephemeral", "cpus",
// "memory_mib", "ports": [{"protocol", "address", "host_port", "guest_port"}], and what else it was
// given}.
Json describe(const ServedSandbox& served);
Json describe(const sandbox::ExitRecord& record);
// Bytes and percent, as /v1 has them.
Json describe(const Usage& usage);

// RFC 3339, in milliseconds and UTC.
std::string format_time(std::int64_t since_epoch_ms);

}  // namespace msb::server
