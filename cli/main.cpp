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
#include <string>
#include <string_view>
#include <vector>

#include "cli/command_line.hpp"
#include "cli/context.hpp"
#include "cli/words.hpp"

namespace {

using namespace msb;

using Words = std::vector<std::string>;

// `msx IMAGE` is `msb exe IMAGE`, and `msi IMAGE` is `msb install IMAGE`.
void expand_wrapper(std::string_view program, Words& words) {
  const std::string name = std::filesystem::path(program).filename();
  if (name == "msx") {
    words.insert(words.begin(), "exe");
  } else if (name == "msi") {
    words.insert(words.begin(), "install");
  }
}

// Of msb and of every command that it has by now: they may stand on both sides of a command's name.
// CLI11's fallthrough() would let --version stand there as well.
void add_levels(CLI::App& command, cli::Invocation& invocation) {
  CLI::Option* debug = command.add_flag("--debug,--trace", invocation.debug,
                                        "Explain each phase, with its time; also behind COMMAND");
  // Those of the 0.2 line. What fails is told in any case, and nothing else is.
  static bool ignored = false;
  command.add_flag("--error,--warn,--info", ignored, "Say no more than usual")->group("");
  if (command.get_parent() != nullptr) {
    debug->group("");  // the help of msb has it
  }
  for (CLI::App* one : command.get_subcommands([](const CLI::App*) { return true; })) {
    if (!one->get_prefix_command()) {  // else its words mean nothing
      add_levels(*one, invocation);
    }
  }
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

  CLI::App app("Sandboxes for code you do not trust: microVMs that feel like containers.", "msb");
  app.require_subcommand(1);
  app.set_version_flag("-V,--version", MSB_VERSION);
  app.footer("`msb COMMAND --help` shows options and examples.");
  cli::add_run_commands(app, invocation);
  cli::add_project_commands(app, invocation);
  cli::add_install_commands(app, invocation);
  cli::add_running_commands(app, invocation);
  cli::add_file_commands(app, invocation);
  cli::add_image_commands(app, invocation);
  cli::add_server_commands(app, invocation);
  CLI::App* version = app.add_subcommand("version", "Print the version.");
  cli::add_examples(*version, "  msb version");
  version->callback([&] {
    invocation.action = [] {
      const auto printed = cli::print(fmt::format("msb {}\n", MSB_VERSION));
      return printed ? Result<int>(0) : std::unexpected(printed.error());
    };
  });
  add_levels(app, invocation);
  invocation.rest = cli::take_rest(app, words);
  if (auto tidied = cli::tidy_values(words); !tidied) {
    cli::complain(tidied.error().message);
    return cli::kExitUsage;
  }
  try {
    Words reversed(words.rbegin(), words.rend());
    app.parse(reversed);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    cli::complain(fmt::format("{}; see `{} --help`",
                              cli::explain(app, error, words, invocation.rest),
                              cli::full_name(app)));
    return cli::kExitUsage;
  }
  const auto status = invocation.action();
  if (!status) {
    if (!status.error().message.empty()) {  // else it has been told
      cli::complain(status.error().message);
    }
    return cli::kExitFailure;
  }
  return *status;
}
