// SPDX-License-Identifier: Apache-2.0
// IP addresses and prefixes as people write them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/network_config.hpp"

namespace msb {

// As inet_pton(3) has it: nothing else, no port, no zone.
std::optional<IpAddress> parse_ip_address(std::string_view text);
// ADDRESS or ADDRESS/LENGTH; alone it is a prefix of full length. Bits behind the length may be
// set: it is also how an interface's address is written.
std::optional<IpPrefix> parse_ip_prefix(std::string_view text);

std::string address_text(const IpAddress& address);
std::string prefix_text(const IpPrefix& prefix);

}  // namespace msb
