// SPDX-License-Identifier: Apache-2.0
// What to say of a command line that cannot be read.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace msb::cli {

// Commands that run others, whose words follow behind "--".
bool takes_rest(std::string_view command);

// "msb image list", as far as the line was read.
std::string full_name(const CLI::App& app);

// One sentence, with the nearest right word where one is near. `words`: the line; `rest`: what came
// behind "--".
std::string explain(const CLI::App& app, const CLI::ParseError& error,
                    const std::vector<std::string>& words, const std::vector<std::string>& rest);

}  // namespace msb::cli
