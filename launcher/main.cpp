// SPDX-License-Identifier: Apache-2.0
// msb-vmm: launches and supervises one microVM.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "launcher/machine_process.hpp"
#include "launcher/run.hpp"

namespace {

using namespace msb;

void complain(const std::string& message) {
  fmt::print(stderr, "msb-vmm: {}\n", message);
}

// CLI11 takes "-1" for a huge number and a huge number for the largest one.
std::string check_number(const std::string& text) {
  constexpr std::size_t kMaxDigits = 12;
  const bool number = !text.empty() && text.size() <= kMaxDigits &&
                      text.find_first_not_of("0123456789") == std::string::npos;
  return number ? "" : fmt::format("\"{}\" is not a whole number that makes sense here", text);
}

int run_command(const launcher::RunOptions& options) {
  const launcher::Outcome outcome = launcher::run(options);
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

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Launches and supervises one microVM.", "msb-vmm");
  app.require_subcommand(1);
  app.set_version_flag("--version", MSB_VERSION);
  app.failure_message(CLI::FailureMessage::simple);

  launcher::RunOptions options;
  CLI::App* run = app.add_subcommand("run", "Run a command from an OCI image in a fresh microVM.");
  run->add_option("--image", options.image,
                  "OCI image layout, with a tag unless it holds one image")
      ->required()
      ->type_name("LAYOUT[:TAG]");
  run->add_option("--cpus", options.cpus, "Virtual CPUs")
      ->type_name("N")
      ->check(check_number)
      ->capture_default_str();
  run->add_option("--memory", options.memory_mib, "Memory")
      ->type_name("MIB")
      ->check(check_number)
      ->capture_default_str();
  run->add_option("-e,--env", options.process.environment,
                  "Set a variable; NAME alone passes the caller's value on")
      ->type_name("NAME[=VALUE]")
      ->expected(1)
      ->take_all();
  run->add_option("-w,--workdir", options.process.directory,
                  "Working directory; created when missing")
      ->type_name("DIR");
  run->add_option("-u,--user", options.process.user, "Numeric user, and group (0 unless given)")
      ->type_name("UID[:GID]");
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
  run->add_flag("--console", options.console, "Show the guest's serial console on standard error");
  run->add_flag("--timing", options.timing, "Print when each phase was reached to standard error");
  run->add_option("command", options.process.command,
                  "What to run instead of the image's own command")
      ->type_name("[--] COMMAND...");
  run->positionals_at_end();

  std::string prepared_image;
  CLI::App* prepare_command = app.add_subcommand(
      "prepare", "Convert an image's layers now, so that its first run does not have to.");
  prepare_command
      ->add_option("--image", prepared_image,
                   "OCI image layout, with a tag unless it holds one image")
      ->required()
      ->type_name("LAYOUT[:TAG]");

  app.add_subcommand("doctor", "Say whether this host can run guests, and if not, why.");

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
  if (run->parsed()) {
    return run_command(options);
  }
  return prepare_command->parsed() ? prepare(prepared_image) : doctor();
}
