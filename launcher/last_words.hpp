// SPDX-License-Identifier: Apache-2.0
// What a guest's kernel said before it crashed, for whoever reads our message about it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace msb::launcher {

// At most 16 lines of `log`, each made safe to print: those from where it says what went wrong,
// else the last ones.
std::vector<std::string> last_lines(std::string_view log);

// The same as a text, each on a line of its own and indented. Empty when there are none.
std::string last_words(std::string_view log);

}  // namespace msb::launcher
