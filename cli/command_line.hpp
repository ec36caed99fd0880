// SPDX-License-Identifier: Apache-2.0
// How the commands of `msb` are declared: each group adds its subcommands, and the one that was
// named leaves what it will do.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <ranges>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "cli/context.hpp"

namespace msb::cli {

struct Invocation {
  std::function<Result<int>()> action;  // gives the exit status
  std::vector<std::string> rest;        // what came behind "--", of commands that run others
  bool debug = false;                   // explain each phase, with its time
};

// For actions without a status of their own.
inline std::function<Result<int>()> succeeding(std::function<Result<void>()> action) {
  return [action = std::move(action)]() -> Result<int> {
    const auto done = action();
    return done ? Result<int>(0) : std::unexpected(done.error());
  };
}

// An option whose value is one of a few words.
template <typename Value>
CLI::Option* add_choice(CLI::App& command, const std::string& name, Value& value,
                        const std::map<std::string, Value>& choices, const std::string& help) {
  const auto choose = [&value, choices, name](const std::string& word) {
    const auto choice = choices.find(word);
    if (choice == choices.end()) {
      const auto words = std::views::keys(choices);
      throw CLI::ValidationError(
          name, fmt::format("\"{}\" is not one of {}", word, fmt::join(words, ", ")));
    }
    value = choice->second;
  };
  return command.add_option_function<std::string>(name, choose, help);
}

inline void add_format(CLI::App& command, Format& format) {
  add_choice(command, "--format", format, {{"table", Format::kTable}, {"json", Format::kJson}},
             "How to print: table or json")
      ->type_name("FORMAT");
}

// Examples, for the end of a command's help: one a line.
inline void add_examples(CLI::App& command, const std::string& examples) {
  command.footer("Examples:\n" + examples);
}

// The groups.
void add_image_commands(CLI::App& app, Invocation& invocation);
void add_run_commands(CLI::App& app, Invocation& invocation);
void add_project_commands(CLI::App& app, Invocation& invocation);
void add_install_commands(CLI::App& app, Invocation& invocation);
void add_running_commands(CLI::App& app, Invocation& invocation);
void add_file_commands(CLI::App& app, Invocation& invocation);
void add_server_commands(CLI::App& app, Invocation& invocation);

}  // namespace msb::cli
