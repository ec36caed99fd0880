// SPDX-License-Identifier: Apache-2.0
// The words of a command line, before and after CLI11 reads them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace msb::cli {

// Of commands that run others: takes away what belongs to these, which is what follows "--", or
// begins with the first word that is not for msb's command itself, as in `msb exe IMAGE ls -l`.
std::vector<std::string> take_rest(const CLI::App& app, std::vector<std::string>& words);

// "-v=VALUE" is meant like "-v VALUE". Fails for "--option=" with nothing behind it, of which CLI11
// would make the next word the value.
Result<void> tidy_values(std::vector<std::string>& words);

// "msb image list", as far as the line was read.
std::string full_name(const CLI::App& app);

// One sentence about a line that cannot be read, with the nearest right word where one is near.
// `words`: the line; `rest`: what take_rest() took.
std::string explain(const CLI::App& app, const CLI::ParseError& error,
                    const std::vector<std::string>& words, const std::vector<std::string>& rest);

}  // namespace msb::cli
