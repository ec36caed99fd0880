// SPDX-License-Identifier: Apache-2.0
// msb-vmm: launches and supervises one microVM.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/complain.hpp"
#include "launcher/exec.hpp"
#include "launcher/machine_process.hpp"
#include "launcher/open_image.hpp"
#include "launcher/outcome.hpp"
#include "launcher/run.hpp"

namespace {

using namespace msb;

using launcher::complain;

// CLI11 takes "-1" for a huge number and a huge number for the largest one.
std::string check_number(const std::string& text) {
  constexpr std::size_t kMaxDigits = 12;
  const bool number = !text.empty() && text.size() <= kMaxDigits &&
                      text.find_first_not_of("0123456789") == std::string::npos;
  return number ? "" : fmt::format("\"{}\" is not a whole number that makes sense here", text);
}

int report(const launcher::Outcome& outcome) {
  if (!outcome.message.empty()) {
    complain(outcome.message);
  }
  return outcome.status;
}

int prepare(const std::string& image) {
  const auto opened = launcher::open_image(image);
  if (!opened) {
    complain(opened.error().message);
    return launcher::kExitLauncher;
  }
  return EXIT_SUCCESS;
}

int doctor() {
  const auto kvm = launcher::open_kvm();
  const auto probe = kvm ? launcher::probe_machine(kvm->get())
                         : Result<ControlMessage>(std::unexpected(kvm.error()));
  if (!probe) {
    complain(probe.error().message);
    return EXIT_FAILURE;
  }
  if (probe->value == 0) {
    complain(probe->text);
    return EXIT_FAILURE;
  }
  fmt::print("{}\n", probe->text);
  return EXIT_SUCCESS;
}

// What belongs to the command that `run` and `exec` run is what comes after "--". CLI11 would take
// some of that for its own, and make several words of one like "[a,b]".
std::vector<std::string> split_command(int& argc, char** argv) {
  const std::string_view marker = "--";
  char** const end = argv + argc;
  if (argc < 2 || (argv[1] != std::string_view("exec") && argv[1] != std::string_view("run"))) {
    return {};
  }
  char** const found = std::find(argv, end, marker);
  if (found == end) {
    return {};
  }
  argc = static_cast<int>(found - argv);
  return {found + 1, end};
}

// What the command line says, for each command.
struct Words {
  launcher::RunOptions run;
  std::string prepared_image;
  launcher::ExecOptions exec;
  std::uint32_t keep = 0;
  std::string process;  // of attach, kill and forget
  bool from_start = false;
  std::string signal = "TERM";
  bool group = false;
};

struct Commands {
  CLI::App* run;
  CLI::App* prepare;
  CLI::App* exec;
  CLI::App* attach;
  CLI::App* ps;
  CLI::App* kill;
  CLI::App* forget;
};

// Options that `run` and `exec` share.
void add_process_options(CLI::App& command, std::vector<std::string>& environment,
                         std::string& directory, std::string& user, bool& terminal) {
  command
      .add_option("-e,--env", environment,
                  "Set a variable; NAME alone passes the caller's value on")
      ->type_name("NAME[=VALUE]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  command.add_option("-w,--workdir", directory, "Working directory; created when missing")
      ->type_name("DIR");
  command.add_option("-u,--user", user, "User, and group, by name or number")
      ->type_name("USER[:GROUP]");
  command.add_flag("-t,--tty", terminal, "Give it a terminal, shown in this one");
}

constexpr int kYear = 31'536'000;  // seconds

void add_supervision(CLI::App& run, launcher::SupervisionOptions& options) {
  run.add_option("--name", options.name, "What the control socket calls it")->type_name("TEXT");
  run.add_option(
         "--runtime", options.runtime,
         "A directory that is the sandbox's own: its sockets are \"agent\" and \"control\" in "
         "there, and it is removed at the end")
      ->type_name("DIR");
  run.add_option("--events", options.events,
                 "A pipe, by its inherited descriptor, that is told what becomes of the sandbox; "
                 "when nobody reads it any more the sandbox is stopped")
      ->type_name("FD")
      ->check(check_number);
  run.add_flag("--background", options.background,
               "Leave this program's standard streams alone; attach to the command by --socket");
  run.add_flag("--detach-keys", options.may_detach,
               "With --tty: Ctrl-P Ctrl-Q puts the sandbox into the background");
  run.add_flag("--idle", options.idle, "Run no command: the sandbox is there until it is stopped");
  run.add_option("--log", options.log, "Keep what the command writes in a file, and in FILE.1")
      ->type_name("FILE");
  run.add_option("--record", options.record, "Write what became of the sandbox to a file")
      ->type_name("FILE");
  run.add_option("--timeout", options.timeout_s, "Stop it after so long, with exit status 124")
      ->type_name("SECONDS")
      ->check(check_number)
      ->check(CLI::Range(1, kYear));
  run.add_option("--idle-timeout", options.idle_timeout_s,
                 "Stop it when nothing happened in it for so long, with exit status 124")
      ->type_name("SECONDS")
      ->check(check_number)
      ->check(CLI::Range(1, kYear));
}

CLI::App* add_run(CLI::App& app, launcher::RunOptions& options) {
  CLI::App* run = app.add_subcommand(
      "run", "Run a command in a fresh microVM, from an OCI image or a directory.");
  run->add_option("--image", options.image,
                  "OCI image layout, with a tag unless it holds one image; else a reference, "
                  "pulled when it is not here")
      ->type_name("LAYOUT[:TAG]|REFERENCE");
  run->add_option(
         "--rootfs", options.rootfs,
         "Instead of an image: a directory as the root; what is written there stays in the "
         "sandbox")
      ->type_name("DIR");
  run->add_option("--share", options.shares,
                  "Show a directory or file of this host's in the sandbox (docs/shares.md)")
      ->type_name("HOST:GUEST[:ro][:cache=never|auto|always]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run->add_option("--cpus", options.cpus, "Virtual CPUs")
      ->type_name("N")
      ->check(check_number)
      ->capture_default_str();
  run->add_option("--memory", options.memory_mib, "Memory")
      ->type_name("MIB")
      ->check(check_number)
      ->capture_default_str();
  add_process_options(*run, options.process.environment, options.process.directory,
                      options.process.user, options.terminal);
  run->add_flag("--no-entrypoint", options.process.no_entrypoint,
                "Run the command alone, without the image's entrypoint in front");
  run->add_flag("--extend-command", options.process.extend,
                "The command follows the image's own, rather than taking its place")
      ->excludes("--no-entrypoint");
  run->add_option("--path", options.process.path, "A directory of the sandbox's in front of PATH")
      ->type_name("DIR");
  run->add_option("--disk", options.disks,
                  "A raw disk image or block device: /dev/vda, then /dev/vdb and so on; :direct "
                  "goes past the host's page cache")
      ->type_name("FILE[:ro][:direct]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run->add_option("--upper", options.upper,
                  "A raw disk image with an ext4 file system that keeps what is written to the "
                  "root; without it that is in memory and ends with the sandbox")
      ->type_name("FILE");
  run->add_option("--processes", options.processes,
                  "How many processes and threads there may be at a time")
      ->type_name("N")
      ->check(check_number);
  run->add_option("--hostname", options.hostname, "Its host name")
      ->type_name("NAME")
      ->capture_default_str();
  run->add_option("--socket", options.socket, "Serve the sandbox's Unix socket here while it runs")
      ->type_name("PATH");
  run->add_option("--control", options.control,
                  "Serve the control socket here while it runs (docs/control.md)")
      ->type_name("PATH");
  run->add_option("--net", options.network.net,
                  "Its network: user, through this host's sockets (passt); a tap device; or none")
      ->type_name("none|user|tap=NAME")
      ->capture_default_str();
  run->add_option("--policy", options.network.policy, "What it may reach there (docs/network.md)")
      ->type_name("none|group|public|any|FILE")
      ->capture_default_str();
  run->add_option("--rule", options.network.rules,
                  "A rule that decides before the policy: \"allow tcp 10.0.0.5 443\"")
      ->type_name("RULE")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run->add_option("--publish", options.publish,
                  "Have a port of this host lead to a port in the sandbox; 0 is any that is free")
      ->type_name("[ADDRESS:]HOSTPORT:PORT[/tcp|/udp]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run->add_option("--host", options.hosts,
                  "A name by which the sandbox reaches a port of another one, by its --socket")
      ->type_name("NAME=SOCKET:PORT")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run->add_option("--address", options.network.addresses, "Its address on a tap device")
      ->type_name("ADDRESS/LENGTH")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run->add_option("--gateway", options.network.gateways, "Its gateway on a tap device")
      ->type_name("ADDRESS")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  run->add_option("--receive-rate", options.network.receive_rate,
                  "How much it may receive from the network: bytes a second")
      ->type_name("N[K|M|G]");
  run->add_option("--send-rate", options.network.send_rate,
                  "How much it may send to the network: bytes a second")
      ->type_name("N[K|M|G]");
  run->add_option("--kernel", options.kernel, "Guest kernel, an uncompressed vmlinux")
      ->type_name("FILE");
  run->add_option("--initramfs", options.initramfs, "Guest initramfs, an uncompressed cpio")
      ->type_name("FILE");
  run->add_option("--append", options.command_line,
                  "Words to add to the guest kernel's command line")
      ->type_name("TEXT");
  run->add_option("--ready-timeout", options.ready_timeout_s,
                  "How long the guest may take to become ready")
      ->type_name("SECONDS")
      ->check(check_number)
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  run->add_option("--stop-signal", options.stop_signal,
                  "What SIGTERM is passed on as, instead of the image's word or SIGTERM")
      ->type_name("SIGNAL");
  run->add_option("--stop-timeout", options.stop_timeout,
                  "How long the command may then take to end before it is killed")
      ->type_name("SECONDS")
      ->capture_default_str();
  add_supervision(*run, options.supervision);
  run->add_flag("--console", options.console, "Show the guest's serial console on standard error");
  run->add_flag("--balloon", options.balloon, "Let the guest give free memory back to this host");
  run->add_flag("--timing", options.timing, "Print when each phase was reached to standard error");
  run->add_option("command", options.process.command,
                  "What to run instead of the image's own command")
      ->type_name("[--] COMMAND...");
  run->positionals_at_end();
  return run;
}

void add_socket(CLI::App& command, std::string& socket) {
  command.add_option("socket", socket, "The sandbox's socket (`msb-vmm run --socket`)")
      ->required()
      ->type_name("SOCKET");
}

CLI::App* add_exec(CLI::App& app, launcher::ExecOptions& options, std::uint32_t& keep) {
  CLI::App* exec = app.add_subcommand("exec", "Run a command in a sandbox that runs.");
  add_process_options(*exec, options.environment, options.directory, options.user,
                      options.terminal);
  exec->add_option("--group", options.groups, "A supplementary group, by name or number")
      ->type_name("GROUP")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  exec->add_option("--ulimit", options.limits, "A resource limit, for example nofile=1024:4096")
      ->type_name("NAME=SOFT[:HARD]")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
  exec->add_option("--umask", options.umask, "File mode creation mask, octal; 022 unless given")
      ->type_name("MASK");
  exec->add_option("--timeout", options.timeout, "End it after so long, with exit status 124")
      ->type_name("SECONDS");
  exec->add_option("--label", options.label, "A name for `msb-vmm ps`")->type_name("TEXT");
  exec->add_option("--keep", keep,
                   "Let it outlive this program, and keep so much of each of its streams")
      ->type_name("BYTES")
      ->check(check_number);
  exec->add_flag("-d,--detach", options.detach,
                 "Print its id and leave it running, without standard input "
                 "unless --interactive or --tty");
  exec->add_flag("-i,--interactive", options.interactive,
                 "Pass standard input on, which is so anyway without --detach");
  exec->add_flag("--no-stdin", options.no_input, "Its standard input is /dev/null");
  add_socket(*exec, options.socket);
  exec->add_option("command", options.command, "What to run")->type_name("-- COMMAND...");
  return exec;
}

CLI::App* add_attach(CLI::App& app, Words& words) {
  CLI::App* attach =
      app.add_subcommand("attach",
                         "Go on with the streams of a process that was started to be kept, or with "
                         "those of the sandbox's own command.");
  attach->add_flag("--from-start", words.from_start, "Show what it wrote before as well");
  add_socket(*attach, words.exec.socket);
  attach->add_option("process", words.process, "Its id, or \"main\" for the sandbox's own command")
      ->required()
      ->type_name("ID");
  return attach;
}

CLI::App* add_kill(CLI::App& app, Words& words) {
  CLI::App* kill = app.add_subcommand("kill", "Send a signal to a process in a sandbox.");
  kill->add_option("-s,--signal", words.signal, "By name or number")
      ->type_name("SIGNAL")
      ->capture_default_str();
  kill->add_flag("-g,--process-group", words.group, "To its whole process group");
  add_socket(*kill, words.exec.socket);
  kill->add_option("process", words.process, "Its id")->required()->type_name("ID");
  return kill;
}

CLI::App* add_forget(CLI::App& app, Words& words) {
  CLI::App* forget = app.add_subcommand(
      "forget", "Let go of what a process that was started to be kept, and has ended, wrote.");
  add_socket(*forget, words.exec.socket);
  forget->add_option("process", words.process, "Its id")->required()->type_name("ID");
  return forget;
}

Commands add_commands(CLI::App& app, Words& words) {
  Commands commands{};
  commands.run = add_run(app, words.run);
  commands.prepare = app.add_subcommand(
      "prepare", "Convert an image's layers now, so that its first run does not have to.");
  commands.prepare
      ->add_option("--image", words.prepared_image,
                   "OCI image layout, with a tag unless it holds one image; else a reference")
      ->required()
      ->type_name("LAYOUT[:TAG]|REFERENCE");
  commands.exec = add_exec(app, words.exec, words.keep);
  commands.attach = add_attach(app, words);
  commands.ps = app.add_subcommand("ps", "List the processes that were started in a sandbox.");
  add_socket(*commands.ps, words.exec.socket);
  commands.kill = add_kill(app, words);
  commands.forget = add_forget(app, words);
  app.add_subcommand("doctor", "Say whether this host can run guests, and if not, why.");
  return commands;
}

int obey(const Commands& commands, Words& words) {
  if (commands.run->parsed()) {
    return report(launcher::run(words.run));
  }
  if (commands.prepare->parsed()) {
    return prepare(words.prepared_image);
  }
  if (commands.exec->parsed()) {
    if (commands.exec->count("--keep") > 0) {
      words.exec.keep = words.keep;
    }
    return report(launcher::exec(words.exec));
  }
  if (commands.attach->parsed()) {
    return report(launcher::attach(words.exec.socket, words.process, words.from_start));
  }
  if (commands.ps->parsed()) {
    return report(launcher::list_processes(words.exec.socket));
  }
  if (commands.kill->parsed()) {
    return report(
        launcher::kill_process(words.exec.socket, words.process, words.signal, words.group));
  }
  if (commands.forget->parsed()) {
    return report(launcher::forget_process(words.exec.socket, words.process));
  }
  return doctor();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 0) {
    launcher::set_program_name(argv[0]);
  }
  CLI::App app("Launches and supervises one microVM.", "msb-vmm");
  app.require_subcommand(1);
  app.set_version_flag("--version", MSB_VERSION);
  app.failure_message(CLI::FailureMessage::simple);
  Words words;
  const Commands commands = add_commands(app, words);
  const std::vector<std::string> command = split_command(argc, argv);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    if (argc > 1 && argv[1][0] != '-' && app.get_subcommands().empty()) {
      complain(fmt::format("there is no command \"{}\"; see `msb-vmm --help`", argv[1]));
      return launcher::kExitLauncher;
    }
    complain(fmt::format("{}; see `msb-vmm --help`", error.what()));
    return launcher::kExitLauncher;
  }
  std::vector<std::string>& told =
      commands.run->parsed() ? words.run.process.command : words.exec.command;
  told.insert(told.end(), command.begin(), command.end());
  return obey(commands, words);
}
