// SPDX-License-Identifier: Apache-2.0
#include "launcher/main_command.hpp"

#include <utility>

namespace msb::launcher {

MainCommand::MainCommand(AsyncIo& io, const protocol::Opener& agent, MainCommandOptions options,
                         Events events)
    : log_(options.log),
      events_(std::move(events)),
      clients_(io,
               {.input =
                    [this](std::span<const std::byte> bytes) {
                      events_.active();
                      command_->send_input(bytes);
                    },
                .end_input = [this] { command_->end_input(); },
                .takes_input = [this] { return command_->takes_input(); }},
               {}),
      terminal_(options.command && options.command->terminal) {
  if (options.command) {
    command_.emplace(io, agent, std::move(*options.command), command_events());
  } else {
    clients_.refuse("the sandbox has no command of its own; run one in it");
  }
}

Command::Events MainCommand::command_events() {
  return {.started =
              [this](const msb_started& started) {
                clients_.started({started.process, started.pid, terminal_});
                events_.started(started.process);
              },
          .first_output = [this] { events_.first_output(); },
          .output = [this](msb_stream stream,
                           std::span<const std::byte> bytes) { on_output(stream, bytes); },
          .input_taken = [this] { clients_.resume_input(); },
          .input_ended = [this] { clients_.input_ended(); },
          .detached = [this] { events_.detached(); },
          .exited =
              [this](protocol::Exited exited) {
                exited.fields.flags |= exit_flags_;
                clients_.exited(exited);
              },
          .ended = [this](Outcome outcome) { events_.ended(std::move(outcome)); },
          .lost = [this](const Error& error) { events_.lost(error); },
          .undelivered = [this](const Error& error) { events_.undelivered(error); }};
}

Result<void> MainCommand::start() {
  return command_->start();
}

void MainCommand::on_signal(int number) {
  if (command_) {
    command_->on_signal(number);
  }
}

void MainCommand::on_output(msb_stream stream, std::span<const std::byte> bytes) {
  events_.active();
  if (log_ != nullptr) {
    log_->add(stream, bytes);
  }
  clients_.output(stream, bytes);
}

void MainCommand::close() {
  if (command_) {
    command_->close();
  }
  if (log_ != nullptr) {
    log_->close();
  }
}

}  // namespace msb::launcher
