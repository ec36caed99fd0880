// SPDX-License-Identifier: Apache-2.0
// Names out of an archive, made safe to show.
#pragma once

#include <string>
#include <string_view>

namespace msb::oci {

// `name` with control characters and bytes beyond ASCII as \xNN and its end cut off beyond `limit`
// bytes, so that no name can move a terminal's cursor or flood a log.
std::string printable(std::string_view name, std::size_t limit = 256);

}  // namespace msb::oci
