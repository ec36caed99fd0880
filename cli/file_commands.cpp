// SPDX-License-Identifier: Apache-2.0
// Declares the commands that look into a sandbox, and completion.
#include <string>
#include <vector>

#include "cli/command_line.hpp"
#include "cli/completion.hpp"
#include "cli/copy.hpp"
#include "cli/diff.hpp"
#include "cli/log.hpp"
#include "cli/metrics.hpp"

namespace msb::cli {

namespace {

constexpr const char* kRunning = "Running sandboxes";

struct Words {
  CopyWords copy;
  LogWords log;
  MetricsWords metrics;
  DiffWords diff;
  std::string shell;
};

Words& words() {
  static Words all;
  return all;
}

void add_file(CLI::App& command, std::string& file) {
  command.add_option("-f,--file", file, "The Sandboxfile, or its directory")->type_name("PATH");
}

void add_name(CLI::App& command, std::string& name) {
  command.add_option("name", name, "The sandbox")->type_name("NAME")->required();
}

void add_copy(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      app.add_subcommand("cp", "Copy files into a sandbox that runs, and out of it.");
  command->group(kRunning);
  CopyWords& told = words().copy;
  add_file(*command, told.file);
  command->add_flag("-a,--archive", told.archive,
                    "Keep owners, modes and times; else what is copied in belongs to root");
  command->add_flag("-L,--follow-link", told.follow_link, "Copy what SRC leads to, not the link");
  command->add_option("source", told.source, "What to copy; - is a tar stream on standard input")
      ->type_name("[NAME:]PATH")
      ->required();
  command
      ->add_option("destination", told.destination,
                   "Where to: a directory that is there, or the copy's name; - is standard output")
      ->type_name("[NAME:]PATH")
      ->required();
  add_examples(*command,
               "  msb cp report.csv web:/data/\n"
               "  msb cp web:/var/log ./logs\n"
               "  msb cp web:/etc - | tar -tf -");
  command->callback(
      [&invocation] { invocation.action = succeeding([] { return copy(words().copy); }); });
}

void add_log(CLI::App& app, Invocation& invocation) {
  CLI::App* command = app.add_subcommand("log", "Show what a sandbox's command has written.");
  command->alias("logs")->group(kRunning);
  LogWords& told = words().log;
  add_file(*command, told.file);
  command->add_flag("-F,--follow", told.follow, "Go on until the sandbox has ended");
  command->add_option("-t,--tail", told.tail, "Begin with the last so many lines")
      ->type_name("LINES");
  command->add_option("--since", told.since, "Only what was written since then: 10m, 2h, or a time")
      ->type_name("TIME");
  command->add_flag("--timestamps", told.timestamps, "Show when each line was written");
  add_format(*command, told.format);
  add_name(*command, told.name);
  add_examples(*command,
               "  msb log web\n"
               "  msb log --follow --tail 20 web\n"
               "  msb log --since 10m --timestamps web");
  command->callback(
      [&invocation] { invocation.action = succeeding([] { return log(words().log); }); });
}

void add_metrics(CLI::App& app, Invocation& invocation) {
  CLI::App* command = app.add_subcommand("metrics", "Show what sandboxes use.");
  command->group(kRunning);
  MetricsWords& told = words().metrics;
  add_file(*command, told.file);
  command->add_flag("--once", told.once, "Show it once, also on a terminal");
  command->add_option("--interval", told.interval, "How often, on a terminal")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 3600.0));
  add_format(*command, told.format);
  command->add_option("name", told.names, "Sandboxes; all that run otherwise")->type_name("NAME");
  add_examples(*command,
               "  msb metrics\n"
               "  msb metrics --interval 5 web db\n"
               "  msb metrics --format json");
  command->callback([&invocation] { invocation.action = [] { return metrics(words().metrics); }; });
}

void add_diff(CLI::App& app, Invocation& invocation) {
  CLI::App* command = app.add_subcommand(
      "diff", "List what a sandbox has added (A), changed (C) and deleted (D) of its image.");
  command->group(kRunning);
  add_file(*command, words().diff.file);
  add_format(*command, words().diff.format);
  add_name(*command, words().diff.name);
  add_examples(*command, "  msb diff web\n  msb diff --format json web");
  command->callback(
      [&invocation] { invocation.action = succeeding([] { return diff(words().diff); }); });
}

void add_completion(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      app.add_subcommand("completion", "Print a script that completes msb's words in a shell.");
  command->add_option("shell", words().shell, "bash, zsh or fish")->type_name("SHELL")->required();
  add_examples(*command,
               "  source <(msb completion bash)\n"
               "  msb completion fish > ~/.config/fish/completions/msb.fish");
  command->callback([&invocation] {
    invocation.action = succeeding([] { return print_completion_script(words().shell); });
  });

  // The words are a user's command line: none of them means anything here.
  CLI::App* candidates = app.add_subcommand("__complete");
  candidates->group("")->prefix_command();
  candidates->set_help_flag();
  candidates->callback([&app, &invocation, candidates] {
    invocation.action =
        succeeding([&app, candidates] { return print_candidates(app, candidates->remaining()); });
  });
}

}  // namespace

void add_file_commands(CLI::App& app, Invocation& invocation) {
  add_copy(app, invocation);
  add_log(app, invocation);
  add_metrics(app, invocation);
  add_diff(app, invocation);
  add_completion(app, invocation);
}

}  // namespace msb::cli
