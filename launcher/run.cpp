// SPDX-License-Identifier: Apache-2.0
#include "launcher/run.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "launcher/background.hpp"
#include "launcher/complain.hpp"
#include "launcher/configuration.hpp"
#include "launcher/connect_server.hpp"
#include "launcher/control_server.hpp"
#include "launcher/environment.hpp"
#include "launcher/image.hpp"
#include "launcher/machine_process.hpp"
#include "launcher/machine_requests.hpp"
#include "launcher/network/guest_forwards.hpp"
#include "launcher/network/published_ports.hpp"
#include "launcher/network/sandbox_network.hpp"
#include "launcher/open_image.hpp"
#include "launcher/output_log.hpp"
#include "launcher/paths.hpp"
#include "launcher/run_reports.hpp"
#include "launcher/session.hpp"
#include "launcher/signals.hpp"
#include "launcher/terminal.hpp"
#include "launcher/words.hpp"
#include "protocol/msb_exec.h"

namespace msb::launcher {

namespace {

Outcome failed(const Error& error) {
  return {kExitLauncher, error.message};
}

// Each connection from or to the guest takes some, and there may be more than the usual limit.
void allow_many_files() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

Json network_status(const SandboxNetwork& network, const PublishedPorts& ports) {
  Json status = network.status();
  Json published = Json::array();
  for (const PublishedPort& port : ports.list()) {
    published.push_back({{"protocol", transport_word(port.transport)},
                         {"address", port.address},
                         {"host_port", port.host_port},
                         {"guest_port", port.guest_port}});
  }
  status["published"] = std::move(published);
  return status;
}

// Which ports were picked, when that was left to this host.
void tell_picked_ports(std::span<const PublishWords> words, const PublishedPorts& ports) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const PublishedPort& port = ports.list()[i];
    if (words[i].host.port() == 0) {
      const bool six = port.address.find(':') != std::string::npos;
      complain(fmt::format("port {}/{} of the sandbox is published at {}{}{}:{}", port.guest_port,
                           transport_word(port.transport), six ? "[" : "", port.address,
                           six ? "]" : "", port.host_port));
    }
  }
}

// Why this host's KVM cannot run guests, if it cannot.
std::optional<std::string> diagnose(int kvm) {
  const auto probe = probe_machine(kvm);
  return probe && probe->value == 0 ? std::optional(probe->text) : std::nullopt;
}

// The command, unless there is to be none.
Result<std::optional<protocol::ProcessSpec>> command_of(const RunOptions& options,
                                                        const oci::ImageConfig& image) {
  const bool nothing = options.process.command.empty() && image.cmd.empty() &&
                       (image.entrypoint.empty() || options.process.no_entrypoint);
  if (options.supervision.idle || (options.supervision.background && nothing)) {
    return std::nullopt;
  }
  auto process = make_process(image, options.process);
  if (!process) {
    return std::unexpected(process.error());
  }
  if (options.terminal) {
    process->terminal = terminal_size(STDIN_FILENO).value_or(protocol::TerminalSize{});
    add_terminal_type(process->environment);
  }
  return std::optional(std::move(*process));
}

// For who starts it under a name at a terminal, where nothing else is shown meanwhile.
std::string notice_of(const RunOptions& options) {
  const bool seen = !options.supervision.background && !options.console &&
                    !options.supervision.name.empty() && ::isatty(STDERR_FILENO) == 1;
  return seen ? fmt::format("Starting {}...", options.supervision.name) : "";
}

MainCommandOptions main_command(const RunOptions& options,
                                std::optional<protocol::ProcessSpec> process, OutputLog* log) {
  MainCommandOptions result{.command = {}, .log = log};
  if (process) {
    CommandOptions& command = result.command.emplace();
    command.process = std::move(*process);
    command.terminal = options.terminal;
    command.standard_streams = !options.supervision.background;
    command.may_detach = options.supervision.may_detach;
    command.memory_hint =
        fmt::format(", of which it has {} MiB; give it more with --memory", options.memory_mib);
  }
  return result;
}

SandboxFacts facts_of(const RunOptions& options, const oci::ImageConfig& image,
                      Configuration& configuration, Json network,
                      const std::optional<protocol::ProcessSpec>& process,
                      const RunReports& reports) {
  SandboxFacts facts;
  facts.memory_mib = options.memory_mib;
  facts.cpus = options.cpus;
  facts.disks = std::move(configuration.disks);
  facts.shares = std::move(configuration.shares);
  facts.network = std::move(network);
  facts.name = options.supervision.name;
  facts.image = options.rootfs.empty() ? options.image : shown_path(options.rootfs);
  facts.command = process ? process->arguments : std::vector<std::string>();
  if (const auto surroundings = make_surroundings(image, options.process)) {
    facts.environment = surroundings->environment;
    facts.directory = surroundings->directory;
    facts.user = surroundings->user;
  }
  facts.entrypoint = image.entrypoint;
  facts.image_command = image.cmd;
  facts.started_ms = reports.started_ms();
  facts.background = options.supervision.background;
  return facts;
}

// What is to be told to whom, before anything can fail that has to be told.
Result<void> prepare_supervision(const RunOptions& options, RunReports& reports) {
  const SupervisionOptions& supervision = options.supervision;
  if (supervision.events >= 0) {
    if (auto taken = reports.tell_to(supervision.events); !taken) {
      return taken;
    }
  }
  auto checked =
      check_supervision(supervision, !options.process.command.empty() || options.terminal);
  return checked && supervision.background ? go_into_background() : checked;
}

Outcome run_sandbox(const RunOptions& options, RunReports& reports) {
  Timeline timeline;
  timeline.mark("msb-vmm started");
  if (auto prepared = prepare_supervision(options, reports); !prepared) {
    return failed(prepared.error());
  }
  if (auto checked = check_size(options); !checked) {
    return failed(checked.error());
  }
  const auto stop_grace_ms = parse_stop_timeout(options.stop_timeout);
  if (!stop_grace_ms) {
    return failed(stop_grace_ms.error());
  }
  allow_many_files();

  const auto kvm = open_kvm();
  if (!kvm) {
    return failed(kvm.error());
  }
  // First of all: it creates the VM, which takes longest, while the image is opened here.
  auto machine = MachineProcess::start(kvm->get());
  if (!machine) {
    return failed(machine.error());
  }
  timeline.mark("msb-machine spawned");
  auto image = options.rootfs.empty() ? open_image(options.image, reports.starter())
                                      : Result<OpenImage>(OpenImage{});
  if (!image) {
    return failed(image.error());
  }
  auto process = command_of(options, image->config);
  if (!process) {
    return failed(process.error());
  }
  const auto signal = stop_signal(image->config, options.stop_signal);
  if (!signal) {
    return failed(signal.error());
  }
  timeline.mark("image opened");
  auto loop = Loop::create();
  if (!loop) {
    return failed(loop.error());
  }
  const auto publish = parse_publish(options.publish);
  const auto hosts = parse_host_names(options.hosts);
  if (!publish || !hosts) {
    return failed(!publish ? publish.error() : hosts.error());
  }
  const protocol::Opener agent = [&machine = *machine] { return machine.connect(MSB_PORT_AGENT); };
  auto ports = PublishedPorts::create(**loop, *publish, agent, {});
  if (!ports) {
    return failed(ports.error());
  }
  auto network = SandboxNetwork::create(**loop, options.network);
  if (!network) {
    return failed(network.error());
  }
  timeline.mark("network opened");
  GuestForwards::Options reachable;
  reachable.hosts = *hosts;
  reachable.dns = (*network)->dns();
  GuestForwards forwards(**loop, std::move(reachable));
  auto configuration =
      configure(options, image->config, std::move(image->layers), **network, forwards);
  if (!configuration) {
    return failed(configuration.error());
  }
  MachineRequests requests(machine->control());
  Session* session = nullptr;  // opens the server when it runs
  std::unique_ptr<ConnectServer> server;
  if (!options.socket.empty()) {
    auto created = ConnectServer::create(**loop, options.socket,
                                         [&session](Fd socket, std::uint32_t port) {
                                           return session->connect(std::move(socket), port);
                                         },
                                         {});
    if (!created) {
      return failed(created.error());
    }
    server = std::move(*created);
  }
  Json status = network_status(**network, **ports);
  reports.set_published(status["published"]);
  std::unique_ptr<ControlServer> control;
  if (!options.control.empty()) {
    auto created = ControlServer::create(
        **loop, options.control, requests, agent,
        facts_of(options, image->config, *configuration, std::move(status), *process, reports), {});
    if (!created) {
      return failed(created.error());
    }
    control = std::move(*created);
  }
  std::unique_ptr<OutputLog> log;
  if (!options.supervision.log.empty()) {
    auto opened = OutputLog::open(**loop, options.supervision.log,
                                  [&control](const Error& error) {
                                    complain(error.message);
                                    if (control) {
                                      control->tell("log_failed", {{"message", error.message}});
                                    }
                                  },
                                  {});
    if (!opened) {
      return failed(opened.error());
    }
    log = std::move(*opened);
  }
  if (auto sent = send_configuration(*machine, *configuration); !sent) {
    return failed(sent.error());
  }
  timeline.mark("configuration sent");
  tell_picked_ports(*publish, **ports);
  configuration->descriptors.clear();
  Outcome outcome;
  {
    Session running(**loop, *machine, requests,
                    {.command = main_command(options, std::move(*process), log.get()),
                     .background = options.supervision.background,
                     .notice = notice_of(options),
                     .lasting = configuration->lasting,
                     .limits = {static_cast<std::uint32_t>(options.supervision.timeout_s),
                                static_cast<std::uint32_t>(options.supervision.idle_timeout_s)},
                     .ready_timeout_s = options.ready_timeout_s,
                     .stop_signal = *signal,
                     .stop_grace_ms = *stop_grace_ms,
                     .server = server.get(),
                     .control = control.get(),
                     .network = network->get(),
                     .forwards = &forwards,
                     .ports = ports->get(),
                     .reports = &reports,
                     .diagnose = [&] { return diagnose(kvm->get()); }},
                    timeline);
    session = &running;
    outcome = running.run();
  }
  timeline.mark("end");
  if (options.timing) {
    std::fputs(timeline.table().c_str(), stderr);
  }
  return outcome;
}

}  // namespace

Outcome run(RunOptions options) {
  take_signals();
  const std::string& runtime = options.supervision.runtime;
  if (!runtime.empty()) {
    options.socket = runtime + "/agent";
    options.control = runtime + "/control";
  }
  RunReports reports(options.supervision.record);
  Outcome outcome = run_sandbox(options, reports);
  if (!runtime.empty()) {
    std::error_code error;  // whoever looks for sandboxes next clears it away then
    std::filesystem::remove_all(runtime, error);
  }
  reports.ended(outcome, {});
  return outcome;
}

}  // namespace msb::launcher
