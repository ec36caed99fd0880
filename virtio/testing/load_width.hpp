// SPDX-License-Identifier: Apache-2.0
// How many bytes of memory an instruction reads (Intel SDM volume 2, chapter 2 and appendix A).
#pragma once

#include <cstddef>
#include <cstdint>

namespace msb::virtio::testing {

// Of the instructions with which compilers and libc load numbers and copy memory: integer loads,
// comparisons and string moves (one turn of them), and whole vectors. `code` is at one that reads.
// Of others it may give too much.
inline std::size_t load_width(const std::uint8_t* code) {
  bool narrow = false;
  bool scalar = false;
  bool repeat = false;
  while (*code == 0x66 || *code == 0xf2 || *code == 0xf3) {
    narrow |= *code == 0x66;
    scalar |= *code == 0xf2;
    repeat |= *code == 0xf3;
    ++code;
  }
  bool wide = false;  // REX.W
  if ((*code & 0xf0) == 0x40) {
    wide = (*code & 8) != 0;
    ++code;
  }
  const std::size_t number = wide ? 8 : narrow ? 2 : 4;
  int map = 0;  // of opcodes: 0 are those of one byte, 1 those behind 0F
  std::size_t vector = 16;
  if (*code == 0xc5 || *code == 0xc4 || *code == 0x62) {  // VEX of two and three bytes, EVEX
    const bool evex = *code == 0x62;
    map = *code == 0xc5 ? 1 : code[1] & 7;
    code += *code == 0xc5 ? 1 : 2;
    const int prefix = *code & 3;
    repeat = prefix == 2;
    scalar = prefix == 3;
    code += evex ? 1 : 0;
    vector <<= evex ? (*code >> 5) & 3 : (*code >> 2) & 1;
    ++code;
  } else if (*code == 0x0f) {
    map = 1;
    ++code;
  }
  if (map == 0) {
    return *code == 0x63 ? 4 : *code % 2 == 0 ? 1 : number;  // MOVSXD, bytes, anything else
  }
  if (map != 1) {
    return vector;
  }
  switch (*code) {
    case 0xb6:  // MOVZX, MOVSX
    case 0xbe:
      return 1;
    case 0xb7:
    case 0xbf:
      return 2;
    case 0x10:  // MOVSS, MOVSD, MOVUPS
      return repeat ? 4 : scalar ? 8 : vector;
    case 0x12:  // MOVLPS, MOVHPS
    case 0x16:
      return 8;
    case 0x6e:  // MOVD, MOVQ
      return wide ? 8 : 4;
    case 0x7e:
      return 8;
    default:
      return *code >= 0x40 && *code < 0x50 ? number : vector;  // CMOV; MOVUPS, MOVDQU and others
  }
}

}  // namespace msb::virtio::testing
