// SPDX-License-Identifier: Apache-2.0
#include "cli/parse_errors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <set>

#include "base/nearest_word.hpp"
#include "cli/text.hpp"
#include "oci/printable.hpp"

namespace msb::cli {

namespace {

using Words = std::vector<std::string>;

const CLI::App* named_command(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
  }
  return at;
}

Words command_names(const CLI::App& app) {
  Words names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
    std::ranges::copy(command->get_aliases(), std::back_inserter(names));
  }
  return names;
}

Words option_names(const CLI::App& command) {
  Words names;
  if (command.get_parent() != nullptr) {
    names.emplace_back("--debug");  // hidden there
  }
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_group().empty()) {
      continue;  // nobody means one that is refused, or ignored
    }
    for (const std::string& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  return names;
}

// "-" alone is a file.
bool is_option(const std::string& word) {
  return word.size() > 1 && word.starts_with('-');
}

enum class OptionWord : std::uint8_t { kUnknown, kWhole, kValueFollows };

OptionWord read_option(const CLI::App& command, const std::string& word) {
  const auto takes_value = [](const CLI::Option& option) {
    return option.get_items_expected_max() > 0;
  };
  if (word.starts_with("--")) {
    const std::size_t equals = word.find('=');
    const CLI::Option* option = command.get_option_no_throw(word.substr(0, equals));
    if (option == nullptr) {
      return OptionWord::kUnknown;
    }
    return equals == std::string::npos && takes_value(*option) ? OptionWord::kValueFollows
                                                               : OptionWord::kWhole;
  }
  // Flags stand together, and what is behind one with a value is the value.
  for (std::size_t i = 1; i < word.size(); ++i) {
    const CLI::Option* option = command.get_option_no_throw({'-', word[i]});
    if (option == nullptr) {
      return OptionWord::kUnknown;
    }
    if (takes_value(*option)) {
      return i + 1 == word.size() ? OptionWord::kValueFollows : OptionWord::kWhole;
    }
  }
  return OptionWord::kWhole;
}

// Where "--" is missing: behind the name of what is to run and the last option that is msb's,
// before an option that is not. Nothing when there is no name before that.
Words::const_iterator place_of_marker(const CLI::App& command, const Words& words) {
  auto place = words.end();
  auto at = std::ranges::find_if_not(words, is_option);  // the command
  if (at == words.end()) {
    return place;
  }
  while (++at != words.end()) {
    if (!is_option(*at)) {
      if (place == words.end()) {
        place = at + 1;
      }
      continue;
    }
    const OptionWord option = read_option(command, *at);
    if (option == OptionWord::kUnknown) {
      return place;
    }
    if (option == OptionWord::kValueFollows && at + 1 != words.end()) {
      ++at;
    }
    if (place != words.end()) {
      place = at + 1;
    }
  }
  return words.end();
}

// What to do about an option that was meant for the command that is to run, as the end of a
// sentence.
std::string show_marker(const CLI::App& command, const Words& words) {
  const auto place = place_of_marker(command, words);
  if (place == words.end()) {
    return "";
  }
  std::string example = "msb";
  for (auto word = words.begin(); word != words.end(); ++word) {
    example += (word == place ? " -- " : " ") + quote_for_shell(*word);
  }
  // A long one, or one with what a terminal would not show, explains nothing.
  constexpr std::size_t kLongest = 256;
  const bool clear = example.size() <= kLongest &&
                     std::ranges::all_of(example, [](char c) { return c >= ' ' && c <= '~'; });
  return fmt::format("; options of the command that is to run go behind \"--\"{}",
                     clear ? fmt::format(", for example `{}`", example) : "");
}

}  // namespace

bool takes_rest(std::string_view command) {
  static const std::set<std::string_view> kTaking = {"exe",  "x",       "run", "r",  "shell",
                                                     "exec", "install", "i",   "add"};
  return kTaking.contains(command);
}

std::string full_name(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    name += " " + at->get_name();
  }
  return name;
}

std::string explain(const CLI::App& app, const CLI::ParseError& error, const Words& words,
                    const Words& rest) {
  const CLI::App* command = named_command(app);
  const bool wants_command =
      !command->get_subcommands([](const CLI::App*) { return true; }).empty();
  // What no command or option accounts for: CLI11 says what is missing, not what was there instead.
  const Words left = app.remaining(true);
  std::string word = left.empty() ? "" : left.front();
  if (word.empty() && command == &app) {
    const auto first =
        std::ranges::find_if(words, [](const std::string& text) { return !text.starts_with('-'); });
    word = first == words.end() ? "" : *first;
  }
  if (wants_command && !word.empty() && !is_option(word)) {
    return fmt::format("there is no command \"{}\"{}", word,
                       did_you_mean(word, command_names(*command)));
  }
  if (const auto option = std::ranges::find_if(left, is_option); option != left.end()) {
    const std::string name = option->substr(0, option->find('='));
    std::string advice = did_you_mean(name, option_names(*command));
    if (advice.empty() && rest.empty() && takes_rest(command->get_name())) {
      advice = show_marker(*command, words);
    }
    return fmt::format("there is no option {}{}", name, advice);
  }
  return error.what();
}

}  // namespace msb::cli
