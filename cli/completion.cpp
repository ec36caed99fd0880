// SPDX-License-Identifier: Apache-2.0
#include "cli/completion.hpp"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include "cli/context.hpp"

namespace msb::cli {

namespace {

using Words = std::vector<std::string>;

// Which sandboxes a command's NAME can be; any, for those that are not here.
std::optional<NameSet> names_of(const std::string& command) {
  static const std::map<std::string_view, std::optional<NameSet>> kSets = {
      {"add", std::nullopt},  // one that is not there yet
      {"attach", NameSet::kRunning}, {"cp", NameSet::kRunning},      {"exec", NameSet::kRunning},
      {"kill", NameSet::kRunning},   {"metrics", NameSet::kRunning}, {"pause", NameSet::kRunning},
      {"port", NameSet::kRunning},   {"resume", NameSet::kRunning},  {"stop", NameSet::kRunning},
      {"wait", NameSet::kRunning},   {"down", NameSet::kProject},    {"remove", NameSet::kProject},
      {"run", NameSet::kProject},    {"status", NameSet::kProject},  {"up", NameSet::kProject}};
  const auto found = kSets.find(command);
  return found == kSets.end() ? std::optional(NameSet::kAll) : found->second;
}

// Shells put candidates on the command line as they are: what would mean something else there, as a
// script's name in a Sandboxfile that came from elsewhere could, is none.
bool is_plain(const std::string& word) {
  return std::ranges::all_of(word, [](const char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-_./:@~=+").find(c) != std::string_view::npos;
  });
}

bool takes_value(const CLI::Option& option) {
  return option.get_items_expected_max() > 0;
}

// Where a command line has come to.
class Line {
 public:
  Line(const CLI::App& app, const NameSource& names) : command_(&app), names_(names) {}

  // Takes a word that is whole.
  void take(const std::string& word);
  // What this one may become.
  [[nodiscard]] Words candidates(const std::string& word) const;

 private:
  [[nodiscard]] const CLI::App* subcommand(const std::string& word) const;
  [[nodiscard]] const CLI::Option* find_option(const std::string& name) const;
  [[nodiscard]] const CLI::Option* next_positional() const;
  void note(const CLI::Option& option, const std::string& value);
  [[nodiscard]] Words option_names() const;
  [[nodiscard]] Words command_names() const;
  [[nodiscard]] Words option_values(const CLI::Option& option) const;
  [[nodiscard]] Words positional_values(const CLI::Option& option, const std::string& word) const;

  const CLI::App* command_;
  const NameSource& names_;
  const CLI::Option* awaited_ = nullptr;  // whose value comes next
  std::string file_;
  int positionals_ = 0;  // words taken as such
  bool over_ = false;    // behind "--": words of somebody else
};

const CLI::App* Line::subcommand(const std::string& word) const {
  const auto all = command_->get_subcommands([](const CLI::App*) { return true; });
  const auto found =
      std::ranges::find_if(all, [&](const CLI::App* one) { return one->check_name(word); });
  return found == all.end() ? nullptr : *found;
}

const CLI::Option* Line::find_option(const std::string& name) const {
  const auto all = command_->get_options();
  const auto found =
      std::ranges::find_if(all, [&](const CLI::Option* one) { return one->check_name(name); });
  return found == all.end() ? nullptr : *found;
}

void Line::note(const CLI::Option& option, const std::string& value) {
  if (option.check_name("--file")) {
    file_ = value;
  }
}

void Line::take(const std::string& word) {
  if (over_) {
    return;
  }
  if (awaited_ != nullptr) {
    note(*std::exchange(awaited_, nullptr), word);
  } else if (word == "--") {
    over_ = true;
  } else if (word.starts_with('-')) {
    const std::size_t equals = word.find('=');
    const CLI::Option* option = find_option(word.substr(0, equals));
    if (option != nullptr && takes_value(*option)) {
      if (equals == std::string::npos) {
        awaited_ = option;
      } else {
        note(*option, word.substr(equals + 1));
      }
    }
  } else if (const CLI::App* next = subcommand(word); next != nullptr && positionals_ == 0) {
    command_ = next;
  } else {
    ++positionals_;
  }
}

const CLI::Option* Line::next_positional() const {
  int left = positionals_;
  for (const CLI::Option* option : command_->get_options()) {
    if (option->get_positional()) {
      if (left < option->get_items_expected_max()) {
        return option;
      }
      left -= option->get_items_expected_max();
    }
  }
  return nullptr;
}

Words Line::candidates(const std::string& word) const {
  if (over_) {
    return {};
  }
  if (awaited_ != nullptr) {
    return option_values(*awaited_);
  }
  if (word.starts_with('-')) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) {
      return option_names();
    }
    const CLI::Option* option = find_option(word.substr(0, equals));
    Words values = option == nullptr ? Words() : option_values(*option);
    for (std::string& value : values) {
      value.insert(0, word.substr(0, equals + 1));
    }
    return values;
  }
  if (Words commands = command_names(); !commands.empty() && positionals_ == 0) {
    return commands;
  }
  const CLI::Option* positional = next_positional();
  return positional == nullptr ? Words() : positional_values(*positional, word);
}

Words Line::option_names() const {
  Words names;
  for (const CLI::Option* option : command_->get_options()) {
    if (option->get_group().empty()) {
      continue;  // hidden
    }
    for (const std::string& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
    if (option->get_lnames().empty()) {
      for (const std::string& name : option->get_snames()) {
        names.push_back("-" + name);
      }
    }
  }
  return names;
}

Words Line::command_names() const {
  Words names;
  for (const CLI::App* one : command_->get_subcommands([](const CLI::App*) { return true; })) {
    if (!one->get_group().empty()) {
      names.push_back(one->get_name());
    }
  }
  return names;
}

Words Line::option_values(const CLI::Option& option) const {
  const std::string type = option.get_type_name();
  if (type == "FORMAT") {
    return {"table", "json"};
  }
  if (type.starts_with("IMAGE")) {
    return names_(NameSet::kImages, file_, "");
  }
  return option.check_name("--depends-on") ? names_(NameSet::kProject, file_, "") : Words();
}

Words Line::positional_values(const CLI::Option& option, const std::string& word) const {
  const std::string type = option.get_type_name();
  if (type == "SHELL") {
    return {"bash", "zsh", "fish"};
  }
  if (type.starts_with("IMAGE")) {
    return names_(NameSet::kImages, file_, "");
  }
  if (type == "ALIAS") {
    return command_->get_name() == "uninstall" ? names_(NameSet::kInstalled, file_, "") : Words();
  }
  const std::size_t tilde = word.find('~');
  if (type == "NAME[~SCRIPT]" && tilde != std::string::npos) {
    const std::string name = word.substr(0, tilde);
    Words scripts = names_(NameSet::kScripts, file_, name);
    for (std::string& script : scripts) {
      script.insert(0, name + "~");
    }
    return scripts;
  }
  const auto set = names_of(command_->get_name());
  if (!set) {
    return {};
  }
  if (type.starts_with("NAME")) {
    return names_(*set, file_, "");
  }
  if (type == "[NAME:]PATH") {
    Words sandboxes = names_(*set, file_, "");
    for (std::string& name : sandboxes) {
      name += ':';
    }
    return sandboxes;
  }
  return {};
}

}  // namespace

std::vector<std::string> complete(const CLI::App& app, const std::vector<std::string>& words,
                                  const NameSource& names) {
  if (words.size() < 2) {
    return {};
  }
  Line line(app, names);
  const std::string program = std::filesystem::path(words.front()).filename();
  if (program == "msx" || program == "msi") {
    line.take(program == "msx" ? "exe" : "install");
  }
  for (std::size_t i = 1; i + 1 < words.size(); ++i) {
    line.take(words[i]);
  }
  // Sorted, each once.
  std::set<std::string> fitting;
  for (std::string& candidate : line.candidates(words.back())) {
    if (candidate.starts_with(words.back()) && is_plain(candidate)) {
      fitting.insert(std::move(candidate));
    }
  }
  return {fitting.begin(), fitting.end()};
}

Result<void> print_candidates(const CLI::App& app, const std::vector<std::string>& words) {
  std::string lines;
  for (const std::string& candidate : complete(app, words, known_names)) {
    lines += candidate + "\n";
  }
  return print(lines);
}

Result<void> print_completion_script(const std::string& shell) {
  const auto script = completion_script(shell);
  if (!script) {
    return fail("there is no completion for '{}', but for bash, zsh and fish", shell);
  }
  return print(*script);
}

}  // namespace msb::cli
