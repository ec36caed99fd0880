// SPDX-License-Identifier: Apache-2.0
// A spec as JSON, for those of installed sandboxes.
#pragma once

#include "base/result.hpp"
#include "sandbox/files.hpp"
#include "sandbox/spec.hpp"

namespace msb::sandbox {

Json to_json(const SandboxSpec& spec);
// Fails with the member that is unknown, or not of its type.
Result<SandboxSpec> spec_from_json(const Json& document);

}  // namespace msb::sandbox
