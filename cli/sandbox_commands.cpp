// SPDX-License-Identifier: Apache-2.0
// Declares the commands about sandboxes: what starts them, projects, installed ones, and those that
// run.
#include <string>
#include <vector>

#include "cli/command_line.hpp"
#include "cli/installing.hpp"
#include "cli/project.hpp"
#include "cli/run.hpp"
#include "cli/running.hpp"
#include "cli/spec_options.hpp"
#include "cli/up.hpp"

namespace msb::cli {

namespace {

constexpr const char* kStarting = "Start sandboxes";
constexpr const char* kProjects = "Projects";
constexpr const char* kRunning = "Running sandboxes";

void add_file(CLI::App& command, std::string& file) {
  command.add_option("-f,--file", file, "The Sandboxfile, or its directory")->type_name("PATH");
}

void add_yes(CLI::App& command, bool& yes) {
  command.add_flag("-y,--yes", yes, "Agree to what a Sandboxfile reaches beyond its project");
}

void add_names(CLI::App& command, std::vector<std::string>& names, bool required) {
  command.add_option("name", names, "Sandboxes")->type_name("NAME")->required(required);
}

void add_no_terminal(CLI::App& command, bool& no_terminal) {
  command.add_flag("-T,--no-tty", no_terminal, "Give it no terminal, although this is one");
}

// A flag that the 0.2 line had and refused.
void refuse_builds(CLI::App& command) {
  command
      .add_flag_callback("-b,--build",
                         [] { throw CLI::ValidationError("--build", "builds are not supported"); })
      ->group("");
}

struct Words {
  RunWords run;
  SpecWords spec;
  UpWords up;
  AddWords add;
  CleanWords clean;
  InstallWords install;
  NamedWords named;
  ExecWords exec;
  StopWords stop;
  std::string path;
  std::string alias;
  std::string installed;
  bool list = false;
  bool from_start = false;
};

Words& words() {
  static Words all;
  return all;
}

std::vector<std::string> joined(std::vector<std::string> words,
                                const std::vector<std::string>& rest) {
  words.insert(words.end(), rest.begin(), rest.end());
  return words;
}

void add_exe(CLI::App& app, Invocation& invocation) {
  CLI::App* exe =
      app.add_subcommand("exe", "Run a command in a temporary sandbox, of which nothing is left.");
  exe->alias("x")->group(kStarting);
  RunWords& run = words().run;
  add_spec_options(*exe, words().spec);
  exe->add_option("-e,-x,--exec", run.exec, "Run this program, without the image's entrypoint")
      ->type_name("PROGRAM");
  exe->add_flag("-d,--detach", run.detach, "Leave it running, and print its name");
  exe->add_option("--name", run.called, "What it is called while it runs")->type_name("NAME");
  add_no_terminal(*exe, run.no_terminal);
  refuse_builds(*exe);
  exe->add_option("image", run.name, "What to run: a reference, or ./ and / a directory")
      ->type_name("IMAGE[~SCRIPT]")
      ->required();
  exe->add_option("command", run.arguments, "The command and its arguments")
      ->type_name("[--] COMMAND...");
  exe->positionals_at_end(false);
  add_examples(*exe,
               "  msb exe python:3.12-slim\n"
               "  msb exe alpine -- sh -c 'uname -r; nproc'\n"
               "  msb exe --memory 2G -v .:/src --workdir /src node:22 -- npm test\n"
               "  msb exe -d -p 8080:80 --name web nginx");
  exe->callback([&invocation] {
    invocation.action = [&invocation] {
      words().run.arguments = joined(words().run.arguments, invocation.rest);
      words().run.debug = invocation.debug;
      return cli::exe(words().run, words().spec);
    };
  });
}

void add_run(CLI::App& app, Invocation& invocation) {
  CLI::App* run = app.add_subcommand("run", "Run a sandbox of the Sandboxfile, here.");
  run->alias("r")->group(kStarting);
  RunWords& told = words().run;
  add_file(*run, told.file);
  add_yes(*run, told.yes);
  run->add_option("-e,-x,--exec", told.exec, "Run this program instead")->type_name("PROGRAM");
  run->add_flag("-d,--detach", told.detach, "Leave it running, and print its name");
  run->add_option("--installed", words().installed)->group("");  // what an alias's script calls
  add_no_terminal(*run, told.no_terminal);
  refuse_builds(*run);
  run->add_option("name", told.name, "Its name, and one of its scripts")
      ->type_name("NAME[~SCRIPT]");
  add_examples(*run,
               "  msb run web\n"
               "  msb run web~test -- --verbose\n"
               "  msb run web --exec python3 -- -c 'print(1)'");
  run->callback([&invocation] {
    if (words().installed.empty() && words().run.name.empty()) {
      throw CLI::RequiredError("NAME");
    }
    invocation.action = [&invocation] {
      words().run.arguments = invocation.rest;
      words().run.debug = invocation.debug;
      return words().installed.empty()
                 ? cli::run(words().run)
                 : run_installed(words().installed, invocation.rest, invocation.debug);
    };
  });
}

void add_shell(CLI::App& app, Invocation& invocation) {
  CLI::App* shell = app.add_subcommand(
      "shell", "Enter a sandbox with a shell; it is started if it does not run.");
  shell->group(kStarting);
  add_file(*shell, words().run.file);
  add_yes(*shell, words().run.yes);
  add_no_terminal(*shell, words().run.no_terminal);
  shell->add_flag("-d,--detach", words().run.detach,
                  "Leave it running with that shell, or with nothing in it, and print its name");
  refuse_builds(*shell);
  shell->add_option("name", words().run.name, "The sandbox")->type_name("NAME")->required();
  add_examples(*shell, "  msb shell web\n  msb shell web -- -c 'ls /'");
  shell->callback([&invocation] {
    invocation.action = [&invocation] {
      words().run.arguments = invocation.rest;
      words().run.debug = invocation.debug;
      return cli::shell(words().run);
    };
  });
}

// `up`, `down` and `apply`.
void add_up(CLI::App& app, Invocation& invocation) {
  struct Entry {
    const char* name;
    const char* help;
    const char* examples;
    Result<void> (*run)(const UpWords&);
  };
  static constexpr Entry kEntries[] = {
      {"up", "Start sandboxes of the Sandboxfile in the background, with what they depend on.",
       "  msb up\n  msb up web", cli::up},
      {"down", "Stop sandboxes of the Sandboxfile; what they have written stays.",
       "  msb down\n  msb down web", cli::down},
      {"apply", "Make what runs equal to the Sandboxfile: start what is missing, stop the rest.",
       "  msb apply", cli::apply},
  };
  for (const Entry& entry : kEntries) {
    CLI::App* command = app.add_subcommand(entry.name, entry.help);
    command->group(kProjects);
    add_file(*command, words().up.file);
    add_yes(*command, words().up.yes);
    static bool detached = true;
    command->add_flag("-d,--detach", detached)->group("");  // of the 0.2 line; always so
    refuse_builds(*command);
    if (entry.run != cli::apply) {
      add_names(*command, words().up.names, false);
    }
    add_examples(*command, entry.examples);
    command->callback([&invocation, run = entry.run] {
      invocation.action = succeeding([&invocation, run] {
        words().up.debug = invocation.debug;
        return run(words().up);
      });
    });
  }
}

void add_project_file(CLI::App& app, Invocation& invocation) {
  CLI::App* init = app.add_subcommand("init", "Make a Sandboxfile here.");
  init->group(kProjects);
  init->add_option("-f,--file,path", words().path, "The directory, or the file")->type_name("PATH");
  add_examples(*init, "  msb init\n  msb init --file shop/Sandboxfile");
  init->callback(
      [&invocation] { invocation.action = succeeding([] { return cli::init(words().path); }); });

  CLI::App* add = app.add_subcommand("add", "Add sandboxes to the Sandboxfile.");
  add->group(kProjects);
  AddWords& told = words().add;
  add_file(*add, told.file);
  add->add_option("-i,--image", told.image, "Its image")->type_name("IMAGE")->required();
  add_spec_options(*add, words().spec);
  add->add_option("--depends-on", told.depends_on, "A sandbox that has to run first")
      ->type_name("NAME")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  add->add_option("--script", told.scripts, "A script")
      ->type_name("NAME=COMMAND")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  add->add_option("--start", told.start, "The script that runs unless another is named")
      ->type_name("COMMAND");
  static bool sandbox = false;
  add->add_flag("-s,--sandbox", sandbox)->group("");  // of the 0.2 line; always so
  refuse_builds(*add);
  add_names(*add, told.names, true);
  add_examples(*add,
               "  msb add db --image redis:7\n"
               "  msb add web --image python:3.12-slim -v .:/app --workdir /app -p 8080:80 \\\n"
               "      --depends-on db --start 'python3 -m http.server 80'");
  add->callback([&invocation] {
    invocation.action = succeeding([&invocation] {
      words().add.command = invocation.rest;
      return cli::add(words().add, words().spec);
    });
  });

  CLI::App* remove = app.add_subcommand("remove", "Remove sandboxes from the Sandboxfile.");
  remove->alias("rm")->group(kProjects);
  add_file(*remove, words().named.file);
  add_names(*remove, words().named.names, true);
  add_examples(*remove, "  msb remove web\n  msb remove web db");
  remove->callback([&invocation] {
    invocation.action =
        succeeding([] { return cli::remove(words().named.file, words().named.names); });
  });
}

void add_project_state(CLI::App& app, Invocation& invocation) {
  CLI::App* list = app.add_subcommand("list", "List the sandboxes of the Sandboxfile.");
  list->alias("ls")->group(kProjects);
  add_file(*list, words().named.file);
  add_format(*list, words().named.format);
  add_examples(*list, "  msb list\n  msb list --format json");
  list->callback([&invocation] {
    invocation.action =
        succeeding([] { return cli::list(words().named.file, words().named.format); });
  });

  CLI::App* status = app.add_subcommand(
      "status", "Show what the sandboxes of the Sandboxfile do, and how they ended.");
  status->alias("stat")->group(kProjects);
  add_file(*status, words().named.file);
  add_format(*status, words().named.format);
  add_names(*status, words().named.names, false);
  add_examples(*status, "  msb status\n  msb status --format json web");
  status->callback([&invocation] {
    invocation.action = succeeding(
        [] { return cli::status(words().named.file, words().named.names, words().named.format); });
  });

  CLI::App* clean = app.add_subcommand("clean", "Remove what sandboxes have kept.");
  clean->group(kProjects);
  CleanWords& told = words().clean;
  add_file(*clean, told.file);
  clean->add_flag("-F,--force", told.force, "All of a project, although it has a Sandboxfile");
  clean->add_flag("-u,--user", told.user, "All images and installed sandboxes of this user");
  clean->add_flag("-a,--all", told.all, "Both");
  add_names(*clean, told.names, false);
  add_examples(*clean, "  msb clean web\n  msb clean --force");
  clean->callback(
      [&invocation] { invocation.action = succeeding([] { return cli::clean(words().clean); }); });
}

void add_exec(CLI::App& app, Invocation& invocation) {
  CLI::App* exec = app.add_subcommand("exec", "Run a command in a sandbox that runs.");
  exec->group(kRunning);
  ExecWords& told = words().exec;
  add_file(*exec, words().named.file);
  exec->add_option("-e,--env", told.envs, "A variable; NAME alone passes yours on")
      ->type_name("NAME[=VALUE]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  exec->add_option("-w,--workdir", told.workdir, "Its working directory")->type_name("DIR");
  exec->add_option("-u,--user", told.user, "Its user, and group")->type_name("USER[:GROUP]");
  exec->add_option("--timeout", told.timeout, "End it after so long, with status 124")
      ->type_name("SECONDS");
  exec->add_flag("-d,--detach", told.detach, "Leave it running");
  add_no_terminal(*exec, told.no_terminal);
  static std::string name;
  exec->add_option("name", name, "The sandbox")->type_name("NAME")->required();
  exec->add_option("command", told.command, "What to run")->type_name("[--] COMMAND...");
  add_examples(*exec, "  msb exec web -- ps aux\n  echo hello | msb exec web -- cat");
  exec->callback([&invocation] {
    invocation.action = [&invocation]() -> Result<int> {
      words().named.names = {name};
      words().exec.command = joined(words().exec.command, invocation.rest);
      if (words().exec.command.empty()) {
        return fail("say what to run: `msb exec {} -- COMMAND`", name);
      }
      return cli::exec(words().named, words().exec);
    };
  });
}

void add_attach(CLI::App& app, Invocation& invocation) {
  CLI::App* attach = app.add_subcommand(
      "attach", "Be shown what a sandbox's command does, and type into it; Ctrl-P Ctrl-Q leaves.");
  attach->group(kRunning);
  add_file(*attach, words().named.file);
  attach->add_flag("--from-start", words().from_start, "Show what it wrote before as well");
  attach->add_option("name", words().named.names, "The sandbox")
      ->type_name("NAME")
      ->required()
      ->expected(1);
  add_examples(*attach, "  msb attach web\n  msb attach --from-start web");
  attach->callback([&invocation] {
    invocation.action = [] { return cli::attach(words().named, words().from_start); };
  });
}

void add_lists(CLI::App& app, Invocation& invocation) {
  CLI::App* ps = app.add_subcommand("ps", "List all sandboxes that run.");
  ps->group(kRunning);
  add_format(*ps, words().named.format);
  add_examples(*ps, "  msb ps\n  msb ps --format json");
  ps->callback([&invocation] {
    invocation.action = succeeding([] { return cli::ps(words().named.format); });
  });

  CLI::App* inspect = app.add_subcommand("inspect", "Show all about sandboxes, as JSON.");
  inspect->group(kRunning);
  add_file(*inspect, words().named.file);
  add_format(*inspect, words().named.format);
  add_names(*inspect, words().named.names, true);
  add_examples(*inspect, "  msb inspect web\n  msb inspect web db");
  inspect->callback([&invocation] {
    invocation.action = succeeding([] { return cli::inspect(words().named); });
  });

  CLI::App* port =
      app.add_subcommand("port", "List the ports of this host that lead into sandboxes.");
  port->group(kRunning);
  add_file(*port, words().named.file);
  add_format(*port, words().named.format);
  add_names(*port, words().named.names, true);
  add_examples(*port, "  msb port web\n  msb port --format json web");
  port->callback([&invocation] {
    invocation.action = succeeding([] { return cli::show_ports(words().named); });
  });
}

void add_ends(CLI::App& app, Invocation& invocation) {
  CLI::App* stop = app.add_subcommand("stop", "Ask sandboxes to end, and wait until they have.");
  stop->group(kRunning);
  add_file(*stop, words().named.file);
  stop->add_option("-t,--timeout", words().stop.timeout_s,
                   "How long they may take before they are killed")
      ->type_name("SECONDS")
      ->check(CLI::Range(0, 600));
  stop->add_option("-s,--signal", words().stop.signal, "What their processes get")
      ->type_name("SIGNAL");
  add_names(*stop, words().named.names, true);
  add_examples(*stop,
               "  msb stop web\n"
               "  msb stop --timeout 30 web db\n"
               "  msb stop --signal SIGINT web");
  stop->callback([&invocation] {
    invocation.action = succeeding([] { return cli::stop(words().named, words().stop); });
  });

  CLI::App* kill = app.add_subcommand("kill", "End sandboxes at once.");
  kill->group(kRunning);
  add_file(*kill, words().named.file);
  add_names(*kill, words().named.names, true);
  add_examples(*kill, "  msb kill web\n  msb kill web db");
  kill->callback([&invocation] {
    invocation.action = succeeding([] {
      words().stop.kill = true;
      return cli::stop(words().named, words().stop);
    });
  });

  CLI::App* wait = app.add_subcommand("wait", "Wait until sandboxes end, and print their status.");
  wait->group(kRunning);
  add_file(*wait, words().named.file);
  add_names(*wait, words().named.names, true);
  add_examples(*wait, "  msb wait web\n  msb wait web db");
  wait->callback(
      [&invocation] { invocation.action = [] { return wait_for_sandboxes(words().named); }; });

  for (const auto& [name, help] : {std::pair{"pause", "Hold sandboxes where they are."},
                                   std::pair{"resume", "Let sandboxes that were paused go on."}}) {
    CLI::App* command = app.add_subcommand(name, help);
    command->group(kRunning);
    add_file(*command, words().named.file);
    add_names(*command, words().named.names, true);
    add_examples(*command, fmt::format("  msb {0} web\n  msb {0} web db", name));
    command->callback([&invocation, method = std::string(name)] {
      invocation.action = succeeding([method] { return set_paused(words().named, method); });
    });
  }
}

}  // namespace

void add_run_commands(CLI::App& app, Invocation& invocation) {
  add_exe(app, invocation);
  add_run(app, invocation);
  add_shell(app, invocation);
}

void add_project_commands(CLI::App& app, Invocation& invocation) {
  add_project_file(app, invocation);
  add_up(app, invocation);
  add_project_state(app, invocation);
}

void add_running_commands(CLI::App& app, Invocation& invocation) {
  add_lists(app, invocation);
  add_exec(app, invocation);
  add_attach(app, invocation);
  add_ends(app, invocation);
}

void add_install_commands(CLI::App& app, Invocation& invocation) {
  CLI::App* install =
      app.add_subcommand("install", "Make a sandbox a command that can be typed in any directory.");
  install->alias("i")->group("Installed sandboxes");
  InstallWords& told = words().install;
  add_spec_options(*install, words().spec);
  install->add_option("-e,-x,--exec", told.exec, "Run this program, without the image's entrypoint")
      ->type_name("PROGRAM");
  install->add_flag("--temp", told.temporary, "Keep nothing of what is written in it");
  install->add_flag("--list", words().list, "List those that are installed");
  add_format(*install, words().named.format);
  refuse_builds(*install);
  install->add_option("image", told.image, "What it runs")->type_name("IMAGE[~SCRIPT]");
  install->add_option("alias", told.alias, "What to type; the image's name otherwise")
      ->type_name("ALIAS");
  add_examples(*install,
               "  msb install python:3.12-slim\n"
               "  msb install --temp --memory 2G node:22 node22\n"
               "  msb install alpine sh-in-alpine -- sh");
  install->callback([&invocation] {
    if (words().install.image.empty() && !words().list) {
      throw CLI::RequiredError("IMAGE");
    }
    invocation.action = succeeding([&invocation] {
      words().install.arguments = invocation.rest;
      return words().list ? list_installed(words().named.format)
                          : cli::install(words().install, words().spec);
    });
  });

  CLI::App* uninstall = app.add_subcommand("uninstall", "Remove such a command, and its sandbox.");
  uninstall->group("Installed sandboxes");
  uninstall->add_option("alias", words().alias, "What is typed")->type_name("ALIAS")->required();
  add_examples(*uninstall, "  msb uninstall python\n  msb uninstall node22");
  uninstall->callback([&invocation] {
    invocation.action = succeeding([] { return cli::uninstall(words().alias); });
  });
}

}  // namespace msb::cli
