// SPDX-License-Identifier: Apache-2.0
#include "launcher/connect_server.hpp"

#include <cerrno>
#include <utility>

#include "protocol/line_reader.hpp"
#include "protocol/opener.hpp"

namespace msb::launcher {

// A connection whose line has not come yet. Keeps itself until the loop has let go of it.
class ConnectServer::Client : public std::enable_shared_from_this<Client> {
 public:
  Client(ConnectServer& server, Fd socket)
      : server_(&server),
        io_(server.io_),
        socket_(std::move(socket)),
        line_(io_, socket_.get(), protocol::kMaxConnectLine,
              [this](const Result<std::string>& line) { complete([&] { on_line(line); }); }),
        deadline_([this](std::int32_t result) { complete([&] { on_deadline(result); }); }) {}

  void start() {
    self_ = shared_from_this();
    line_.start();
    io_.timeout(server_->limits_.line_timeout_ns, deadline_);
  }
  // Leaves the server. The connection is closed unless it was given away.
  void leave() {
    if (server_ != nullptr) {
      std::exchange(server_, nullptr)->leave(this);
      line_.cancel();
      io_.cancel(deadline_);
    }
  }

  Client* previous = nullptr;  // in the server's list
  Client* next = nullptr;

 private:
  template <typename Function>
  void complete(Function&& function) {
    const auto kept = shared_from_this();
    function();
    if (!line_.pending() && !deadline_.pending()) {
      self_.reset();
    }
  }

  void on_line(const Result<std::string>& line) {
    if (server_ == nullptr || (!line && line.error().code == ECANCELED)) {
      return;
    }
    const auto port = line ? protocol::parse_connect(*line)
                           : Result<std::uint32_t>(std::unexpected(line.error()));
    // Whoever sent something else, or cannot be connected, sees its connection closed: there is no
    // answer but OK.
    if (port) {
      [[maybe_unused]] const auto connected = server_->connect_(std::move(socket_), *port);
    }
    socket_.reset();
    leave();
  }

  void on_deadline(std::int32_t result) {
    if (result == -ETIME) {
      leave();
    }
  }

  ConnectServer* server_;  // while it is pending there
  AsyncIo& io_;
  Fd socket_;
  protocol::LineReader line_;
  Operation deadline_;
  std::shared_ptr<Client> self_;
};

Result<std::unique_ptr<ConnectServer>> ConnectServer::create(AsyncIo& io, const std::string& path,
                                                             Connect connect, Limits limits) {
  std::unique_ptr<ConnectServer> server(new ConnectServer(io, std::move(connect), limits));
  auto listener = UnixListener::create(
      io, path,
      {.has_room = [self = server.get()] { return self->pending_ < self->limits_.pending; },
       .accepted = [self = server.get()](Fd socket) { self->on_accepted(std::move(socket)); }});
  if (!listener) {
    return std::unexpected(listener.error());
  }
  server->listener_ = std::move(*listener);
  return server;
}

ConnectServer::ConnectServer(AsyncIo& io, Connect connect, Limits limits)
    : io_(io), connect_(std::move(connect)), limits_(limits) {}

ConnectServer::~ConnectServer() {
  close();
}

void ConnectServer::open() {
  listener_->open();
}

void ConnectServer::close() {
  if (listener_) {
    listener_->close();
  }
  while (clients_ != nullptr) {
    clients_->leave();
  }
}

void ConnectServer::on_accepted(Fd socket) {
  const auto client = std::make_shared<Client>(*this, std::move(socket));
  client->next = clients_;
  if (clients_ != nullptr) {
    clients_->previous = client.get();
  }
  clients_ = client.get();
  ++pending_;
  client->start();
}

void ConnectServer::leave(Client* client) {
  (client->previous != nullptr ? client->previous->next : clients_) = client->next;
  if (client->next != nullptr) {
    client->next->previous = client->previous;
  }
  --pending_;
  listener_->accept_more();
}

}  // namespace msb::launcher
