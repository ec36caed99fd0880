// SPDX-License-Identifier: Apache-2.0
#include "launcher/exec.hpp"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string_view>
#include <utility>

#include "base/loop.hpp"
#include "launcher/command.hpp"
#include "launcher/complain.hpp"
#include "launcher/environment.hpp"
#include "launcher/signals.hpp"
#include "launcher/terminal.hpp"
#include "launcher/words.hpp"
#include "protocol/host_frames.hpp"
#include "protocol/msb_exec.h"
#include "protocol/opener.hpp"
#include "protocol/process.hpp"
#include "protocol/quote.hpp"
#include "protocol/requests.hpp"

namespace msb::launcher {

namespace {

Outcome failed(const Error& error) {
  return {kExitLauncher, error.message};
}

Result<protocol::ProcessSpec> make_spec(const ExecOptions& options) {
  protocol::ProcessSpec spec;
  spec.arguments = options.command;
  auto environment = make_environment({}, options.environment);
  if (!environment) {
    return std::unexpected(environment.error());
  }
  spec.environment = std::move(*environment);
  spec.user = options.user;
  spec.groups = options.groups;
  spec.label = options.label;
  spec.keep = options.detach ? options.keep.value_or(0) : options.keep;
  spec.input = !options.no_input && (!options.detach || options.interactive || options.terminal);
  if (!options.directory.empty()) {
    spec.directory = options.directory;
  }
  for (const std::string& word : options.limits) {
    const auto limit = parse_limit(word);
    if (!limit) {
      return std::unexpected(limit.error());
    }
    spec.limits.push_back(*limit);
  }
  if (!options.umask.empty()) {
    const auto umask = parse_umask(options.umask);
    if (!umask) {
      return std::unexpected(umask.error());
    }
    spec.umask = *umask;
  }
  if (!options.timeout.empty()) {
    const auto timeout = parse_timeout(options.timeout);
    if (!timeout) {
      return std::unexpected(timeout.error());
    }
    spec.timeout_ms = *timeout;
  }
  if (options.terminal) {
    if (options.no_input) {
      return fail("--tty and --no-stdin exclude each other: a terminal is input and output");
    }
    spec.terminal = terminal_size(STDIN_FILENO).value_or(protocol::TerminalSize{});
    add_terminal_type(spec.environment);
  }
  return spec;
}

// Joins the caller's streams to a process until it ends, or the caller lets go of it.
class Joined {
 public:
  Joined(Loop& loop, const protocol::Opener& opener, CommandOptions options)
      : loop_(loop),
        kept_(options.kept),
        main_(options.supervisor != nullptr),
        command_(loop, opener, std::move(options),
                 {.started = [](const msb_started&) {},
                  .ended = [this](Outcome outcome) { finish(std::move(outcome)); },
                  .lost = [this](const Error& error) { finish(failed(error)); },
                  .undelivered = [](const Error& error) { complain(error.message); }}),
        signals_(loop, [this](int signal) { on_signal(signal); }) {}

  Outcome run() {
    if (auto started = signals_.start(); !started) {
      return failed(started.error());
    }
    if (auto started = command_.start(); !started) {
      finish(failed(started.error()));
    } else if (auto ran = loop_.run(); !ran) {
      finish(failed(ran.error()));
    }
    command_.close();
    loop_.drain();
    return std::move(*outcome_);
  }

 private:
  void on_signal(int signal) {
    const bool is_about_terminal = signal == SIGWINCH || signal == SIGCONT;
    if (!is_about_terminal && !command_.running()) {
      finish({kExitSignal + signal, "interrupted before the command had started"});
    } else if (main_ && signal == SIGHUP) {
      finish({kExitSignal + signal, ""});  // our terminal is gone, which is not the sandbox's
    } else if (signal == SIGINT && ++interrupts_ == kImpatience) {
      finish({kExitSignal + signal, kept_ ? "let go of the process after three interrupts"
                                          : "the command was ended after three interrupts"});
    } else {
      command_.on_signal(signal);
    }
  }

  // The outcome that was decided first stands.
  void finish(Outcome outcome) {
    if (!outcome_) {
      outcome_ = std::move(outcome);
    }
    loop_.stop();
  }

  Loop& loop_;
  const bool kept_;
  const bool main_;  // a sandbox's own command
  std::optional<Outcome> outcome_;
  int interrupts_ = 0;
  Command command_;
  Signals signals_;
};

// Starts a process, tells its id and lets go of it.
Outcome start_detached(Loop& loop, const protocol::Opener& opener,
                       const protocol::ProcessSpec& spec) {
  Outcome outcome;
  auto socket = opener();
  if (!socket) {
    return failed(socket.error());
  }
  const auto finish = [&](Outcome end) {
    outcome = std::move(end);
    loop.stop();
  };
  const auto process = protocol::Process::start(
      loop, std::move(*socket), spec,
      {.started =
           [&](const msb_started& started) {
             fmt::print("{}\n", started.process);
             finish({std::fflush(stdout) == 0 ? 0 : kExitLauncher, ""});
           },
       .attached = nullptr,
       .output = [](msb_stream, std::span<const std::byte>) { return false; },
       .sent = nullptr,
       .exited = [&](const protocol::Exited&) { finish({0, ""}); },
       .detached = nullptr,
       .failed =
           [&](const protocol::Failure& failure) {
             finish({status_of_refusal(failure), failure.error.message});
           }});
  if (!process) {
    return failed(process.error());
  }
  if (auto ran = loop.run(); !ran) {
    return failed(ran.error());
  }
  return outcome;
}

// Makes requests, and waits until one of them says the outcome.
template <typename Ask>
Outcome ask(const std::string& path, Ask&& make_requests) {
  auto loop = Loop::create();
  if (!loop) {
    return failed(loop.error());
  }
  ::signal(SIGPIPE, SIG_IGN);
  auto socket = protocol::connect_sandbox(path, MSB_PORT_AGENT);
  if (!socket) {
    return failed(socket.error());
  }
  std::optional<Outcome> outcome;
  protocol::Requests requests(**loop, std::move(*socket));
  make_requests(requests, [&](Outcome end) {
    outcome = std::move(end);
    (*loop)->stop();
  });
  if (!outcome) {
    if (auto ran = (*loop)->run(); !ran) {
      return failed(ran.error());
    }
  }
  return outcome.value_or(Outcome{});
}

using Finish = std::function<void(Outcome)>;

template <typename T>
protocol::Requests::Done<T> finishing(const Finish& finish) {
  return [finish](const protocol::Answer<T>& answer) {
    finish(answer ? Outcome{0, ""} : failed(answer.error().error));
  };
}

void print_process(const protocol::ProcessEntry& entry, std::uint64_t now_ns) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  const msb_process& fields = entry.fields;
  const std::string_view state = fields.state == MSB_PROCESS_ENDED ? "ended"
                                 : fields.attached != 0            ? "attached"
                                                                   : "running";
  const std::uint64_t age_ns = now_ns > fields.started_ns ? now_ns - fields.started_ns : 0;
  fmt::print("{:<8}{:<8}{:<10}{:<10}{:<20} {}\n", fields.process, fields.pid, state,
             fmt::format("{}s", age_ns / kSecond), protocol::quote(entry.label),
             protocol::quote(entry.program));
}

}  // namespace

Outcome exec(const ExecOptions& options) {
  auto spec = make_spec(options);
  if (!spec) {
    return failed(spec.error());
  }
  auto loop = Loop::create();
  if (!loop) {
    return failed(loop.error());
  }
  const auto opener = protocol::open_sandbox(options.socket);
  if (options.detach) {
    ::signal(SIGPIPE, SIG_IGN);
    return start_detached(**loop, opener, *spec);
  }
  take_signals();
  const bool input = spec->input;
  const bool kept = spec->keep.has_value();
  return Joined(**loop, opener,
                {.process = std::move(*spec),
                 .attach = {},
                 .input = input,
                 .terminal = options.terminal,
                 .kept = kept,
                 .memory_hint = ""})
      .run();
}

Outcome attach(const std::string& socket, const std::string& process, bool from_start) {
  const bool main = process == "main";
  const auto id = main ? Result<std::uint32_t>(0) : parse_process_id(process);
  if (!id) {
    return failed(id.error());
  }
  auto loop = Loop::create();
  if (!loop) {
    return failed(loop.error());
  }
  take_signals();
  CommandOptions options;
  options.attach.emplace().process = *id;
  options.attach->offsets.fill(from_start ? 0 : MSB_OFFSET_END);
  options.kept = true;
  if (main) {
    options.supervisor = protocol::open_sandbox(socket, protocol::kSupervisorPort);
  }
  const auto opener = protocol::open_sandbox(socket);
  return Joined(**loop, opener, std::move(options)).run();
}

Outcome list_processes(const std::string& socket) {
  std::uint64_t now_ns = 0;
  return ask(socket, [&](protocol::Requests& requests, const Finish& finish) {
    requests.metrics([&](const protocol::Answer<msb_metrics>& metrics) {
      now_ns = metrics ? metrics->time_ns : 0;
      fmt::print("{:<8}{:<8}{:<10}{:<10}{:<20} {}\n", "ID", "PID", "STATE", "AGE", "LABEL",
                 "PROGRAM");
    });
    requests.list([&](const protocol::ProcessEntry& entry) { print_process(entry, now_ns); },
                  finishing<std::uint64_t>(finish));
  });
}

Outcome kill_process(const std::string& socket, const std::string& process,
                     const std::string& signal, bool group) {
  const auto id = parse_process_id(process);
  const auto number = parse_signal(signal);
  if (!id || !number) {
    return failed(id ? number.error() : id.error());
  }
  return ask(socket, [&](protocol::Requests& requests, const Finish& finish) {
    requests.signal(*id, *number, group, finishing<void>(finish));
  });
}

Outcome forget_process(const std::string& socket, const std::string& process) {
  const auto id = parse_process_id(process);
  if (!id) {
    return failed(id.error());
  }
  return ask(socket, [&](protocol::Requests& requests, const Finish& finish) {
    requests.forget(*id, finishing<void>(finish));
  });
}

}  // namespace msb::launcher
