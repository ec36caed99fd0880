// SPDX-License-Identifier: Apache-2.0
#include "launcher/complain.hpp"

#include <fmt/format.h>

#include <cstdio>

namespace msb::launcher {

namespace {

std::string& name() {
  static std::string name = "msb-vmm";
  return name;
}

}  // namespace

void set_program_name(std::string_view argument) {
  argument.remove_prefix(argument.rfind('/') + 1);  // npos + 1 is 0
  if (!argument.empty()) {
    name() = argument;
  }
}

const std::string& program_name() {
  return name();
}

void complain(std::string_view sentence) {
  // Whole, for others write there too; and without fmt::print(), which throws where nobody reads.
  const std::string line = fmt::format("{}: {}\n", name(), sentence);
  std::fputs(line.c_str(), stderr);
}

}  // namespace msb::launcher
