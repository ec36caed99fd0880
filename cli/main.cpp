// SPDX-License-Identifier: Apache-2.0
// msb: images and sandboxes from the command line.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/nearest_word.hpp"
#include "cli/command_line.hpp"
#include "cli/context.hpp"

namespace {

using namespace msb;

using Words = std::vector<std::string>;

// Commands that run others, which follow behind "--".
bool takes_rest(std::string_view command) {
  static const std::set<std::string_view> kTaking = {"exe",  "x",       "run", "r",  "shell",
                                                     "exec", "install", "i",   "add"};
  return kTaking.contains(command);
}

// `msx IMAGE` is `msb exe IMAGE`, and `msi IMAGE` is `msb install IMAGE`.
void expand_wrapper(std::string_view program, Words& words) {
  const std::string name = std::filesystem::path(program).filename();
  if (name == "msx") {
    words.insert(words.begin(), "exe");
  } else if (name == "msi") {
    words.insert(words.begin(), "install");
  }
}

// What follows "--" belongs to the command that is run. CLI11 would take some of that for its own.
Words take_rest(Words& words) {
  const auto command =
      std::ranges::find_if(words, [](const std::string& word) { return !word.starts_with('-'); });
  const auto marker = std::ranges::find(words, "--");
  if (command == words.end() || marker == words.end() || !takes_rest(*command)) {
    return {};
  }
  Words rest(marker + 1, words.end());
  words.erase(marker, words.end());
  return rest;
}

const CLI::App* named_command(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
  }
  return at;
}

std::string full_name(const CLI::App& app) {
  std::string name = app.get_name();
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    name += " " + at->get_name();
  }
  return name;
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
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  return names;
}

// The first word that no command or option accounts for.
std::string unexpected_word(const CLI::App& app) {
  const Words left = app.remaining(true);
  return left.empty() ? "" : left.front();
}

// One sentence, with the nearest right word where one is near.
std::string explain(const CLI::App& app, const CLI::ParseError& error, const Words& words) {
  const CLI::App* command = named_command(app);
  const bool wants_command =
      !command->get_subcommands([](const CLI::App*) { return true; }).empty();
  // The last word that was read: CLI11 says what is missing, not what was there instead.
  std::string word = unexpected_word(app);
  if (word.empty() && command == &app) {
    const auto first =
        std::ranges::find_if(words, [](const std::string& text) { return !text.starts_with('-'); });
    word = first == words.end() ? "" : *first;
  }
  if (wants_command && !word.empty() && !word.starts_with('-')) {
    return fmt::format("there is no command \"{}\"{}", word,
                       did_you_mean(word, command_names(*command)));
  }
  if (word.starts_with('-')) {
    const std::string name = word.substr(0, word.find('='));
    return fmt::format("there is no option {}{}", name, did_you_mean(name, option_names(*command)));
  }
  return error.what();
}

void add_levels(CLI::App& app, cli::Invocation& invocation) {
  app.add_flag("--debug,--trace", invocation.debug, "Explain each phase, with its time");
  // Those of the 0.2 line. What fails is told in any case, and nothing else is.
  static bool ignored = false;
  app.add_flag("--error,--warn,--info", ignored, "Say no more than usual")->group("");
}

// So that no lock or volume is opened in the place of a standard stream that was closed, and
// children can be waited for although whoever started us did not want to.
void prepare_process() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0) {
      ::open("/dev/null", O_RDWR);
    }
  }
  std::signal(SIGCHLD, SIG_DFL);
}

}  // namespace

int main(int argc, char** argv) {
  prepare_process();
  // Who reads our output may leave: that is an error of writing then, with a sentence.
  std::signal(SIGPIPE, SIG_IGN);
  Words words(argv + 1, argv + argc);
  expand_wrapper(argc > 0 ? argv[0] : "", words);
  cli::Invocation invocation;
  invocation.rest = take_rest(words);

  CLI::App app("Sandboxes for code you do not trust: microVMs that feel like containers.", "msb");
  app.require_subcommand(1);
  app.set_version_flag("-V,--version", MSB_VERSION);
  app.footer("`msb COMMAND --help` shows options and examples.");
  add_levels(app, invocation);
  cli::add_run_commands(app, invocation);
  cli::add_project_commands(app, invocation);
  cli::add_install_commands(app, invocation);
  cli::add_running_commands(app, invocation);
  cli::add_file_commands(app, invocation);
  cli::add_image_commands(app, invocation);
  app.add_subcommand("version", "Print the version.")->callback([&] {
    invocation.action = [] {
      const auto printed = cli::print(fmt::format("msb {}\n", MSB_VERSION));
      return printed ? Result<int>(0) : std::unexpected(printed.error());
    };
  });
  try {
    Words reversed(words.rbegin(), words.rend());
    app.parse(reversed);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    cli::complain(fmt::format("{}; see `{} --help`", explain(app, error, words), full_name(app)));
    return cli::kExitUsage;
  }
  const auto status = invocation.action();
  if (!status) {
    cli::complain(status.error().message);
    return cli::kExitFailure;
  }
  return *status;
}
