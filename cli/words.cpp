// SPDX-License-Identifier: Apache-2.0
#include "cli/words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <string_view>

#include "base/nearest_word.hpp"

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

const CLI::App* find_command(const CLI::App& app, const std::string& name) {
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  const auto found = std::ranges::find_if(
      commands, [&name](const CLI::App* command) { return command->check_name(name); });
  return found == commands.end() ? nullptr : *found;
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

// Whether the next word is the value of this option; not of one that is unknown.
bool takes_next(const CLI::App& command, const std::string& word) {
  const auto takes_value = [](const CLI::Option* option) {
    return option != nullptr && option->get_items_expected_max() > 0;
  };
  if (word.starts_with("--")) {
    return word.find('=') == std::string::npos && takes_value(command.get_option_no_throw(word));
  }
  // Flags stand together, and what is behind one with a value is the value.
  for (std::size_t i = 1; i < word.size(); ++i) {
    const CLI::Option* option = command.get_option_no_throw({'-', word[i]});
    if (option == nullptr || takes_value(option)) {
      return option != nullptr && i + 1 == word.size();
    }
  }
  return false;
}

// How many words that are no options commands that run others take for themselves; nothing for
// other commands.
std::optional<std::size_t> own_words(std::string_view command) {
  constexpr std::size_t kAll = std::numeric_limits<std::size_t>::max();
  static const std::map<std::string_view, std::size_t> kTaking = {
      {"exe", 1},  {"x", 1},       {"run", 1}, {"r", 1},     {"shell", 1},
      {"exec", 1}, {"install", 2}, {"i", 2},   {"add", kAll}};
  const auto found = kTaking.find(command);
  return found == kTaking.end() ? std::nullopt : std::optional(found->second);
}

// Whether the option stands behind the name of what is to run: the first word is the command's own.
bool is_behind_name(const Words& words, const std::string& option) {
  const auto at = std::ranges::find(words, option);
  return std::count_if(words.begin(), at, [](const auto& word) { return !is_option(word); }) > 1;
}

}  // namespace

Words take_rest(const CLI::App& app, Words& words) {
  const auto named = std::ranges::find_if_not(words, is_option);
  const std::optional<std::size_t> own = named == words.end() ? std::nullopt : own_words(*named);
  const CLI::App* command = own ? find_command(app, *named) : nullptr;
  if (command == nullptr) {
    return {};
  }
  std::size_t count = 0;
  auto at = named + 1;
  for (; at != words.end() && *at != "--"; ++at) {
    if (!is_option(*at)) {
      if (++count > *own) {
        break;
      }
    } else if (takes_next(*command, *at) && at + 1 != words.end()) {
      ++at;
    }
  }
  if (at == words.end()) {
    return {};
  }
  Words rest(*at == "--" ? at + 1 : at, words.end());
  words.erase(at, words.end());
  return rest;
}

Result<void> tidy_values(Words& words) {
  for (std::string& word : words) {
    if (word == "--") {
      break;
    }
    if (word.starts_with("--") && word.find('=') == word.size() - 1) {
      return fail("{} has nothing behind it; leave it out, or give it a value", word);
    }
    if (word.size() > 2 && word[0] == '-' && word[1] != '-' && word[2] == '=') {
      word.erase(2, 1);
    }
  }
  return {};
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
  const auto first = std::ranges::find_if_not(words, is_option);
  if (first != words.end() && find_command(app, *first) == nullptr) {
    return fmt::format("there is no command \"{}\"{}", *first,
                       did_you_mean(*first, command_names(app)));
  }
  const CLI::App* command = named_command(app);
  const bool wants_command =
      !command->get_subcommands([](const CLI::App*) { return true; }).empty();
  // What no command or option accounts for: CLI11 says what is missing, not what was there instead.
  const Words left = app.remaining(true);
  const std::string word = left.empty() ? "" : left.front();
  if (wants_command && !word.empty() && !is_option(word)) {
    return fmt::format("there is no command \"{}\"{}", word,
                       did_you_mean(word, command_names(*command)));
  }
  if (const auto option = std::ranges::find_if(left, is_option); option != left.end()) {
    const std::string name = option->substr(0, option->find('='));
    std::string advice = did_you_mean(name, option_names(*command));
    if (advice.empty() && rest.empty() && own_words(command->get_name()) &&
        is_behind_name(words, *option)) {
      advice = "; options of the command that is to run go behind \"--\"";
    }
    return fmt::format("there is no option {}{}", name, advice);
  }
  return error.what();
}

}  // namespace msb::cli
