// SPDX-License-Identifier: Apache-2.0
#include "launcher/control_server.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace msb::launcher {

namespace {

std::string error_line(RpcCode code, std::string message) {
  return answer_line({}, std::unexpected(RpcError{code, std::move(message)}));
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::create(AsyncIo& io, const std::string& path,
                                                             MachineRequests& machine,
                                                             protocol::Opener agent,
                                                             SandboxFacts facts, Limits limits) {
  std::unique_ptr<ControlServer> server(
      new ControlServer(io, machine, std::move(agent), std::move(facts), limits));
  auto listener = UnixListener::create(
      io, path,
      {.has_room = [] { return true; },
       .accepted = [self = server.get()](Fd socket) { self->on_accepted(std::move(socket)); }});
  if (!listener) {
    return std::unexpected(listener.error());
  }
  server->listener_ = std::move(*listener);
  return server;
}

ControlServer::ControlServer(AsyncIo& io, MachineRequests& machine, protocol::Opener agent,
                             SandboxFacts facts, Limits limits)
    : io_(io),
      limits_(limits),
      shares_(io, machine, std::move(agent), std::exchange(facts.shares, {})),
      methods_(machine, shares_, std::move(facts),
               [this](std::string_view event, Json details) { tell(event, std::move(details)); }) {}

ControlServer::~ControlServer() {
  close();
}

void ControlServer::open() {
  listener_->open();
}

void ControlServer::close() {
  shares_.close();
  if (listener_) {
    listener_->close();
  }
  while (!seats_.empty()) {
    const std::shared_ptr<LineClient> client = seats_.back().client;
    client->leave();
  }
}

void ControlServer::on_accepted(Fd socket) {
  if (seats_.size() >= limits_.clients) {
    const std::string line = error_line(
        RpcCode::kRefused,
        fmt::format("{} clients are connected already; close one of them first", limits_.clients));
    // Into an empty socket, which takes it.
    ::send(socket.get(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return;
  }
  const auto client = std::make_shared<LineClient>(
      io_, std::move(socket),
      LineClient::Owner{
          .line = [this](LineClient& from, const std::string& line) { on_line(from, line); },
          .too_long =
              [](LineClient& from) {
                from.send(error_line(
                    RpcCode::kInvalidRequest,
                    fmt::format("the line is longer than {} bytes", LineClient::kMaxLine)));
              },
          .left = [this](const LineClient& from) { on_left(from); }},
      limits_.waiting_bytes);
  seats_.push_back({client});
  client->start();
}

void ControlServer::on_line(LineClient& client, const std::string& line) {
  const auto request = parse_request(line);
  if (!request) {
    client.send(answer_line(request.error().id, std::unexpected(request.error().error)));
    client.finish();
    return;
  }
  // It may be gone by the time that the machine answers.
  const std::weak_ptr<LineClient> weak = client.weak_from_this();
  methods_.call(*request, {.answer =
                               [weak, id = request->id](const RpcResult<Json>& answer) {
                                 if (const auto to = weak.lock()) {
                                   if (id) {
                                     to->send(answer_line(*id, answer));
                                   }
                                   to->finish();
                                 }
                               },
                           .subscribe = [this, from = &client] { subscribe(from); }});
}

void ControlServer::on_left(const LineClient& client) {
  std::erase_if(seats_, [&](const Seat& seat) { return seat.client.get() == &client; });
}

void ControlServer::subscribe(const LineClient* client) {
  for (Seat& seat : seats_) {
    seat.subscribed = seat.subscribed || seat.client.get() == client;
  }
}

void ControlServer::tell(std::string_view event, Json details) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  details["event"] = event;
  details["time_ms"] = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::string line = notification_line("event", std::move(details));
  const std::vector<Seat> seats = seats_;  // whoever does not read leaves them
  for (const Seat& seat : seats) {
    if (seat.subscribed) {
      seat.client->send(line);
    }
  }
}

}  // namespace msb::launcher
