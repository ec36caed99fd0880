// SPDX-License-Identifier: Apache-2.0
// The answer to a packet that is not let out, in the name of whom it was for.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "virtio/net/packet.hpp"

namespace msb::virtio {

// A whole frame: for TCP a reset (RFC 9293 section 3.10.7.1), for others "unreachable,
// administratively prohibited" (RFC 1812 section 5.2.7.1, RFC 4443 section 3.1) with what there is
// of the packet. Empty for what must not be answered: resets, ICMP errors. `head` is what `packet`
// was parsed from.
std::vector<std::byte> make_refusal(const Packet& packet, std::span<const std::byte> head);

}  // namespace msb::virtio
