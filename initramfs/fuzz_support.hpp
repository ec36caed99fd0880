// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets of the guest's connections share: pairs of sockets, and recv(2) in pieces
// (WRAP recv in CMakeLists.txt).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.hpp"

namespace msb::fuzz {

using Bytes = std::span<const std::byte>;

constexpr std::size_t kMostInput = 64 * 1024;  // what a socket takes without anybody reading

// Ends the run with a finding.
void require(bool condition);

// `other` is for code under test to own.
void make_pair(Fd& one, int& other);

// Takes what is there, whole. False at the end of the stream.
bool take(const Fd& from, std::vector<std::byte>& bytes);

// The first byte of an input says what recv(2) gives at once, to the code under test: 1 to 255
// bytes, or all that is there. Returns the rest of the input.
Bytes choose_pieces(Bytes input);

}  // namespace msb::fuzz
