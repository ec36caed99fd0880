// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/test_server.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <stdexcept>

namespace msb::oci::testing {
namespace {

constexpr char kTlsHandshake = 0x16;  // first byte of a TLS client (RFC 8446, section 5.1)

// Reads until `buffer` holds `count` bytes, or up to the end of a header without `count`.
bool fill(int fd, std::string_view tls_answer, std::string& buffer,
          std::optional<std::size_t> count) {
  const auto enough = [&] {
    return count ? buffer.size() >= *count : buffer.find("\r\n\r\n") != std::string::npos;
  };
  std::array<char, 4096> piece{};
  while (!enough()) {
    const ssize_t length = ::recv(fd, piece.data(), piece.size(), 0);
    if (length <= 0) {
      return false;
    }
    buffer.append(piece.data(), static_cast<std::size_t>(length));
    if (buffer.front() == kTlsHandshake) {
      ServerConnection(fd).send(tls_answer);
      return false;
    }
  }
  return true;
}

std::string take_line(std::string& text) {
  const auto end = text.find("\r\n");
  std::string line = text.substr(0, end);
  text.erase(0, end + 2);
  return line;
}

bool read_request(int fd, std::string_view tls_answer, std::string& buffer,
                  ServerRequest& request) {
  if (!fill(fd, tls_answer, buffer, std::nullopt)) {
    return false;
  }
  const std::string first = take_line(buffer);
  const auto method_end = first.find(' ');
  const std::string target = first.substr(method_end + 1, first.rfind(' ') - method_end - 1);
  request.method = first.substr(0, method_end);
  request.path = target.substr(0, target.find('?'));
  request.query = request.path.size() < target.size() ? target.substr(request.path.size() + 1) : "";
  for (std::string line = take_line(buffer); !line.empty(); line = take_line(buffer)) {
    std::string name = line.substr(0, line.find(':'));
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    request.headers[name] = line.substr(std::min(line.find(':') + 2, line.size()));
  }
  const std::string length = request.header("content-length");
  const std::size_t size = length.empty() ? 0 : std::stoul(length);
  if (!fill(fd, tls_answer, buffer, size)) {
    return false;
  }
  request.body = buffer.substr(0, size);
  buffer.erase(0, size);
  return true;
}

}  // namespace

void ServerConnection::send(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t count = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) {
      return;
    }
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void ServerConnection::reply(
    int status, std::string_view body,
    const std::vector<std::pair<std::string, std::string>>& headers) const {
  std::string answer = fmt::format("HTTP/1.1 {} Status\r\n", status);
  bool has_length = false;
  for (const auto& [name, value] : headers) {
    answer += fmt::format("{}: {}\r\n", name, value);
    has_length = has_length || name == "Content-Length";
  }
  if (!has_length) {
    answer += fmt::format("Content-Length: {}\r\n", body.size());
  }
  send(answer + "\r\n" + std::string(body));
}

void ServerConnection::wait_for_close() const {
  std::array<char, 4096> piece{};
  while (::recv(fd_, piece.data(), piece.size(), 0) > 0) {
  }
}

TestServer::TestServer(Handler handler, std::string tls_answer)
    : handler_(std::move(handler)), tls_answer_(std::move(tls_answer)) {
  listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  constexpr int kBacklog = 64;
  if (!listener_ || ::bind(listener_.get(), generic, length) != 0 ||
      ::listen(listener_.get(), kBacklog) != 0 ||
      ::getsockname(listener_.get(), generic, &length) != 0) {
    throw std::runtime_error("the test server cannot listen");
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept_all(); });
}

TestServer::~TestServer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const Fd& fd : open_) {
      ::shutdown(fd.get(), SHUT_RDWR);
    }
  }
  ::shutdown(listener_.get(), SHUT_RDWR);
  acceptor_.join();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

std::string TestServer::authority() const {
  return fmt::format("127.0.0.1:{}", port_);
}

std::string TestServer::url(std::string_view path) const {
  return fmt::format("http://{}{}", authority(), path);
}

std::vector<ServerRequest> TestServer::requests() {
  const std::lock_guard lock(mutex_);
  return requests_;
}

int TestServer::connections() {
  const std::lock_guard lock(mutex_);
  return connections_;
}

void TestServer::accept_all() {
  while (true) {
    Fd accepted(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const std::lock_guard lock(mutex_);
    if (!accepted || stopping_) {
      return;
    }
    const int fd = accepted.get();
    open_.push_back(std::move(accepted));
    threads_.emplace_back([this, fd] { serve(fd); });
  }
}

void TestServer::serve(int fd) {
  ServerConnection connection(fd);
  std::string buffer;
  ServerRequest request;
  for (bool first = true; !connection.closed() && read_request(fd, tls_answer_, buffer, request);
       first = false, request = {}) {
    {
      const std::lock_guard lock(mutex_);
      connections_ += first ? 1 : 0;
      requests_.push_back(request);
    }
    handler_(request, connection);
  }
  // Its end is seen now; its number stays taken until the server's end, so that it names no other.
  ::shutdown(fd, SHUT_RDWR);
}

}  // namespace msb::oci::testing
