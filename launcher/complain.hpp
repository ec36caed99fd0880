// SPDX-License-Identifier: Apache-2.0
// Sentences for the user, on standard error, with the name of this program in front.
#pragma once

#include <string>
#include <string_view>

namespace msb::launcher {

// The name is the last part of argv[0]; `msb` starts msb-vmm under its own name. To be called once,
// before anything else here.
void set_program_name(std::string_view argument);
const std::string& program_name();

void complain(std::string_view sentence);

}  // namespace msb::launcher
