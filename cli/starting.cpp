// SPDX-License-Identifier: Apache-2.0
#include "cli/starting.hpp"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <optional>
#include <utility>

#include "base/home.hpp"
#include "cli/agreement.hpp"
#include "cli/context.hpp"
#include "cli/notice.hpp"
#include "cli/program_parts.hpp"
#include "cli/registry_program.hpp"
#include "sandbox/compose.hpp"
#include "sandbox/files.hpp"
#include "sandbox/image_choice.hpp"

namespace msb::cli {

namespace {

constexpr int kSignaled = 128;     // an exit status, plus the signal
constexpr int kExitSandbox = 125;  // as msb-vmm has it: the sandbox failed, not the command

// Pulls it when it is missing.
Result<sandbox::ImageChoice> find_or_pull(const std::string& image, const std::string& directory,
                                          const sandbox::StateDirectory* state) {
  auto context = Context::open();
  if (!context) {
    return std::unexpected(context.error());
  }
  const auto choose = [&] {
    return sandbox::choose_image(context->store, context->settings, image, directory, state);
  };
  auto choice = choose();
  if (choice && !choice->missing.empty()) {
    if (auto pulled = fetch_image(choice->missing); !pulled) {
      return std::unexpected(pulled.error());
    }
    choice = choose();
    if (choice && !choice->missing.empty()) {
      return fail("the image '{}' was removed while it was to be started", image);
    }
  }
  return choice;
}

Result<sandbox::ImageChoice> find_image(const Begin& words) {
  if (words.who.state.empty() && !words.background && !sandbox::is_local_image(words.spec.image)) {
    // msb-vmm finds it, or has it pulled, by itself. In the background it could not tell how that
    // goes.
    sandbox::ImageChoice choice;
    choice.image = words.spec.image;
    return choice;
  }
  const sandbox::StateDirectory state(words.who.state);
  return find_or_pull(words.spec.image, words.directory,
                      words.who.state.empty() ? nullptr : &state);
}

// The signals that msb passes on while it waits: those that a terminal sends reach the supervisor
// by themselves, for it is in the same process group.
sigset_t passed_on() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) {
    ::sigaddset(&set, signal);
  }
  return set;
}

// For --debug: what was done, and when since the start was asked for.
class Phases {
 public:
  explicit Phases(bool told) : told_(told) {}
  void mark(std::string_view what) const {
    if (told_) {
      const std::chrono::duration<double, std::milli> now =
          std::chrono::steady_clock::now() - begun_;
      write_error(fmt::format("msb: {:8.1f} ms  {}\n", now.count(), what));
    }
  }

 private:
  const bool told_;
  const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
};

void pass_on(int signals, const Fd& process) {
  signalfd_siginfo info{};
  if (::read(signals, &info, sizeof info) == static_cast<ssize_t>(sizeof info) &&
      info.ssi_code <= 0) {  // from a process, not the kernel (sigaction(2), si_code)
    ::syscall(SYS_pidfd_send_signal, process.get(), info.ssi_signo, nullptr, 0);
  }
}

}  // namespace

Result<sandbox::Launched> begin(const Begin& words) {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  const Phases phases(words.debug);
  const sandbox::StateDirectory state(words.who.state);
  if (!words.who.state.empty()) {
    if (auto made = state.make(); !made) {
      return std::unexpected(made.error());
    }
  }
  const auto image = find_image(words);
  if (!image) {
    return std::unexpected(words.image_place.empty() ? image.error()
                                                     : image.error().within(words.image_place));
  }
  phases.mark("the image is known");
  auto options = sandbox::compose(words.who, words.spec, words.directory, *image, *home);
  if (!options) {
    return std::unexpected(options.error());
  }
  if (words.who.kind == sandbox::Kind::kProject) {
    if (auto agreed = check_agreed(*options); !agreed) {
      return std::unexpected(agreed.error());
    }
  }
  options->task = words.task;
  options->hosts = words.hosts;
  options->background = words.background;
  options->terminal = words.terminal;
  options->aside = words.aside;
  options->timing = words.debug;
  options->pin = image->pin;
  phases.mark("volumes and variables are opened");
  auto launched = sandbox::launch(std::move(*options));
  phases.mark("the disk is ready, and the supervisor is started");
  return launched;
}

Result<void> ensure_image(const std::string& image, const std::string& directory) {
  const auto choice = find_or_pull(image, directory, nullptr);
  return choice ? Result<void>() : std::unexpected(choice.error());
}

Result<void> await_running(sandbox::Launched& launched, sandbox::Launched::Json* running) {
  const std::string& name = launched.running().who.name;
  Notice notice("Starting " + name);
  auto event = launched.next_event(kSoon);
  if (!event) {
    notice.show();
    event = launched.next_event();
  }
  for (; event; event = launched.next_event()) {
    const std::string word = sandbox::text_member(*event, "event").value_or("");
    if (word == "running") {
      if (running != nullptr) {
        *running = std::move(*event);
      }
      return {};
    }
    if (word == "ended") {
      const std::string message = sandbox::text_member(*event, "message").value_or("");
      const auto status = sandbox::number_member(*event, "status").value_or(0);
      launched.finish();
      return fail("{}", message.empty() ? fmt::format("it ended at once, with status {}; `msb log "
                                                      "{}` shows what it wrote",
                                                      status, name)
                                        : message);
    }
  }
  const int status = launched.finish();
  return fail("its supervisor ended with status {} before it ran", status);
}

Result<int> accompany(sandbox::Launched& launched) {
  const sigset_t set = passed_on();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  const Fd signals(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!signals) {
    return fail_errno(errno, "cannot watch for signals");
  }
  const Fd& process = launched.supervisor().process;
  std::array<pollfd, 3> entries = {pollfd{process.get(), POLLIN, 0},
                                   pollfd{signals.get(), POLLIN, 0},
                                   pollfd{launched.events().get(), POLLIN, 0}};
  bool ended = false;  // the supervisor has said so
  while (true) {
    if (::poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot wait for the sandbox");
    }
    if (entries[1].revents != 0) {
      pass_on(signals.get(), process);
    }
    if (entries[2].revents != 0) {
      const auto event = launched.next_event();
      if (!event) {
        entries[2].fd = -1;  // it has closed it: its end comes next
      } else if (sandbox::text_member(*event, "event") == "ended") {
        ended = true;
      } else if (sandbox::text_member(*event, "event") == "detached") {
        write_error(
            fmt::format("\r\nLet go of '{}', which goes on: `msb attach {}` comes back to it.\n",
                        launched.running().who.name, launched.running().who.name));
        return 0;
      }
    }
    if (entries[0].revents != 0) {
      const int status = launched.finish();
      if (!ended && status > kSignaled) {
        complain(fmt::format(
            "the supervisor of '{}' was killed by signal {}, and what ran there has ended",
            launched.running().who.name, status - kSignaled));
        return kExitSandbox;
      }
      return status;
    }
  }
}

bool at_terminal() {
  return ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
}

Error become_vmm(std::vector<std::string> arguments) {
  const auto directory = sandbox::program_directory();
  if (!directory) {
    return directory.error();
  }
  arguments.insert(arguments.begin(), "msb");
  return become_program(*directory + "/msb-vmm", std::move(arguments));
}

}  // namespace msb::cli
