// SPDX-License-Identifier: Apache-2.0
// The agent without memory: each allocation that a conversation makes fails once, alone and with
// all that follow it.
extern "C" {
#include "initramfs/process.h"
}

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "initramfs/test_agent.hpp"

using namespace msb::test;

namespace {

enum class Failing { kOne, kAllFrom };

/// Which allocations fail, in the agent and in its children alike.
struct Faults {
  std::atomic<bool> armed;
  std::atomic<long> left;  // the one that counts down to 0 fails
  std::atomic<bool> all_from;
  std::atomic<bool> happened;
};

Faults* faults = nullptr;
bool is_agent = false;  // the test itself has all the memory it wants

bool allocation_fails() {
  if (!is_agent || !faults->armed) return false;
  const long left = --faults->left;
  const bool fails = left == 0 || (left < 0 && faults->all_from);
  if (fails) {
    faults->happened = true;
    errno = ENOMEM;
  }
  return fails;
}

void make_faults() {
  if (faults != nullptr) return;
  void* memory =
      mmap(nullptr, sizeof(Faults), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  faults = new (memory) Faults{};
}

/// True when the conversation went as it should. False when the agent refused or closed it;
/// whatever came before that must have been right.
using Conversation = std::function<bool(const Agent&)>;

void check_serves(const Agent& agent) {
  Outcome outcome = agent.run({.arguments = {"/bin/echo", "served"}});
  REQUIRE(outcome.exited);
  CHECK(outcome.exited->value == 0);
  CHECK(outcome.output == "served\n");
}

/// Returns how many allocations there were to fail. That nothing leaked is seen when the agent
/// ends.
long fail_each_allocation(Failing failing, const Conversation& converse) {
  make_faults();
  for (long nth = 1;; nth++) {
    CAPTURE(nth);
    Agent agent(Agent::Namespace::kNone, [] { is_agent = true; });
    faults->left = nth;
    faults->all_from = failing == Failing::kAllFrom;
    faults->happened = false;
    faults->armed = true;
    const bool whole = converse(agent);
    faults->armed = false;
    check_serves(agent);
    if (!faults->happened) {
      CHECK(whole);
      return nth - 1;
    }
    REQUIRE(nth < 1000);
  }
}

void fail_allocations(long at_least, const Conversation& converse) {
  CHECK(fail_each_allocation(Failing::kOne, converse) >= at_least);
  CHECK(fail_each_allocation(Failing::kAllFrom, converse) >= at_least);
}

/// What REFUSED may say when memory ran out.
void check_refusal(const msb_failure& refused) {
  CHECK((refused.stage == MSB_STAGE_RESOURCES || refused.stage == MSB_STAGE_USER));
  CHECK(refused.code == ENOMEM);
}

/// Whether the conversation with a process came to its end.
bool is_whole(const Outcome& outcome) {
  CHECK(outcome.closed);
  if (outcome.refused) check_refusal(*outcome.refused);
  return outcome.exited.has_value();
}

/// The answer to a request; none when the agent closed the connection instead.
std::optional<std::vector<Frame>> ask(Connection& connection, const std::string& bytes) {
  connection.send(bytes);
  std::vector<Frame> frames;
  while (auto next = connection.receive()) {
    frames.push_back(*next);
    switch (next->type) {
      case MSB_PROCESS:
      case MSB_LISTENER:
      case MSB_FILE_DATA:
      case MSB_FILE_ENTRY:
        break;
      case MSB_REFUSED:
        check_refusal(next->as<msb_failure>());
        return std::nullopt;
      default:
        return frames;
    }
  }
  CHECK(connection.is_closed_by_agent());
  return std::nullopt;
}

std::string file_request(uint32_t type, const std::string& path, uint64_t length = 0) {
  msb_file_request fields{};
  fields.mode = type == MSB_FILE_WRITE ? 0600 : 0;
  fields.user = fields.group = UINT32_MAX;
  fields.length = length;
  return frame(type, bytes_of(fields) + path + '\0');
}

std::string data_of(const std::vector<Frame>& frames) {
  std::string data;
  for (const Frame& each : frames) {
    if (each.type == MSB_FILE_DATA) data += each.payload;
  }
  return data;
}

class TemporaryDirectory {
 public:
  TemporaryDirectory() { REQUIRE(mkdtemp(path_) != nullptr); }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string path() const { return path_; }

 private:
  char path_[32] = "/tmp/msb-memory-test-XXXXXX";
};

/// A Unix socket in the guest.
class Server {
 public:
  explicit Server(const std::string& path) : listener_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(listen(listener_, 10) == 0);
    const timeval patience{.tv_sec = kPatienceSeconds, .tv_usec = 0};
    setsockopt(listener_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Server() { close(listener_); }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  Connection accept() const {
    const int accepted = ::accept(listener_, nullptr, nullptr);
    REQUIRE(accepted >= 0);
    return Connection(accepted);
  }

 private:
  int listener_;
};

/// A UDP socket in the guest, on 127.0.0.1.
class DatagramServer {
 public:
  DatagramServer() : socket_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    REQUIRE(bind(socket_, reinterpret_cast<sockaddr*>(&address), length) == 0);
    REQUIRE(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
    port_ = ntohs(address.sin_port);
  }
  ~DatagramServer() { close(socket_); }
  DatagramServer(const DatagramServer&) = delete;
  DatagramServer& operator=(const DatagramServer&) = delete;

  int descriptor() const { return socket_; }
  uint16_t port() const { return port_; }

 private:
  int socket_;
  uint16_t port_ = 0;
};

/// Whether something came. What is lost without memory is not waited for as long as what is slow.
bool comes(int descriptor) {
  constexpr int kStepMs = 100;
  pollfd waited{.fd = descriptor, .events = POLLIN, .revents = 0};
  for (int waited_ms = 0; waited_ms < kPatienceSeconds * 1000; waited_ms += kStepMs) {
    const bool may_be_lost = faults->happened;
    if (poll(&waited, 1, kStepMs) > 0) return true;
    if (may_be_lost) break;
  }
  return false;
}

/// All until the end of the stream.
std::string read_all(const Connection& connection) {
  std::string bytes;
  char piece[4096];
  ssize_t n = 0;
  while ((n = recv(connection.descriptor(), piece, sizeof piece, 0)) > 0) {
    bytes.append(piece, static_cast<size_t>(n));
  }
  CHECK((n == 0 || errno == ECONNRESET));
  return bytes;
}

}  // namespace

extern "C" {
void* __real_malloc(size_t size);
void* __real_calloc(size_t count, size_t size);
void* __real_realloc(void* memory, size_t size);
char* __real_strdup(const char* text);
FILE* __real_fopen(const char* path, const char* mode);
void* __wrap_malloc(size_t size);
void* __wrap_calloc(size_t count, size_t size);
void* __wrap_realloc(void* memory, size_t size);
char* __wrap_strdup(const char* text);
FILE* __wrap_fopen(const char* path, const char* mode);

void* __wrap_malloc(size_t size) {
  return allocation_fails() ? nullptr : __real_malloc(size);
}

void* __wrap_calloc(size_t count, size_t size) {
  return allocation_fails() ? nullptr : __real_calloc(count, size);
}

void* __wrap_realloc(void* memory, size_t size) {
  return allocation_fails() ? nullptr : __real_realloc(memory, size);
}

char* __wrap_strdup(const char* text) {
  return allocation_fails() ? nullptr : __real_strdup(text);
}

FILE* __wrap_fopen(const char* path, const char* mode) {
  return allocation_fails() ? nullptr : __real_fopen(path, mode);
}
}

TEST_CASE("process_that_memory_fails_is_refused_or_closed_and_what_came_before_is_right") {
  std::string input;
  for (int i = 0; input.size() < 150000; i++) input += std::to_string(i) + ' ';
  fail_allocations(5, [&](const Agent& agent) {
    Start start = shell("cat; echo failed >&2; exit 7");
    start.groups = {"0"};
    start.label = "label";
    Connection connection = agent.start(start);
    connection.send_input(input);
    connection.end_input();
    const Outcome outcome = connection.finish();
    CHECK(input.starts_with(outcome.output));
    CHECK(std::string("failed\n").starts_with(outcome.error));
    if (!is_whole(outcome)) return false;
    CHECK(outcome.exited->value == 7);
    CHECK(outcome.output == input);
    CHECK(outcome.error == "failed\n");
    return true;
  });
}

TEST_CASE("process_of_a_user_by_name_that_memory_fails_is_refused") {
  if (geteuid() != 0) return;
  fail_allocations(6, [](const Agent& agent) {
    Start start = shell("id -u");
    start.user = "root:root";
    const Outcome outcome = agent.run(start);
    if (!is_whole(outcome)) return false;
    CHECK(outcome.output == "0\n");
    return true;
  });
}

TEST_CASE("process_that_is_kept_loses_without_memory_no_more_than_it_says") {
  const std::string output = "first\nsecond\n";
  fail_allocations(8, [&](const Agent& agent) {
    Start start = shell("echo first; read line; echo $line");
    start.flags = MSB_START_KEEP;
    Connection connection = agent.start(start);
    const auto first = connection.receive();
    if (!first || first->type == MSB_REFUSED) return false;
    REQUIRE(first->type == MSB_STARTED);
    const uint32_t process = first->as<msb_started>().process;
    Connection second = agent.attach(process, 0);
    second.send_input("second\n");
    const Outcome outcome = second.finish();
    CHECK(outcome.closed);
    if (!outcome.attached) return false;
    const uint64_t offset = outcome.attached->offsets[MSB_STREAM_STDOUT];
    REQUIRE(offset <= output.size());
    CHECK(output.substr(offset).starts_with(outcome.output));
    if (!is_whole(outcome)) return false;
    CHECK(offset + outcome.output.size() == output.size());
    CHECK(outcome.exited->offsets[MSB_STREAM_STDOUT] == output.size());
    Connection requests = agent.connect();
    const auto waited = ask(requests, frame(MSB_WAIT, bytes_of(msb_process_id{process})));
    if (!waited) return false;
    CHECK(waited->back().type == MSB_EXITED);
    const auto forgotten = ask(requests, frame(MSB_FORGET, bytes_of(msb_process_id{process})));
    if (!forgotten) return false;
    CHECK(forgotten->back().type == MSB_DONE);
    return offset == 0;
  });
}

TEST_CASE("requests_that_memory_fails_are_refused_or_closed") {
  fail_allocations(6, [](const Agent& agent) {
    Start start = shell("read line");
    start.flags = MSB_START_KEEP;
    Connection process = agent.start(start);
    const auto first = process.receive();
    if (!first || first->type == MSB_REFUSED) return false;
    Connection connection = agent.connect();
    const auto listed = ask(connection, frame(MSB_LIST) + frame(MSB_PING, "alive"));
    if (!listed) return false;
    REQUIRE(listed->size() == 2);
    CHECK(listed->back().as<msb_done>().value == 1);
    const auto pong = ask(connection, frame(MSB_LISTENERS));
    if (!pong) return false;
    CHECK(pong->back().payload == "alive");
    const auto listeners = ask(connection, frame(MSB_METRICS));
    if (!listeners) return false;
    CHECK(listeners->back().as<msb_done>().value == listeners->size() - 1);
    const auto measured = ask(connection, {});
    if (!measured) return false;
    CHECK(measured->back().type == MSB_MEASURED);
    return true;
  });
}

TEST_CASE("files_that_memory_fails_are_whole_or_refused") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/file";
  const std::string content(100000, 'c');
  fail_allocations(1, [&](const Agent& agent) {
    std::filesystem::remove(path);
    Connection connection = agent.connect();
    if (!ask(connection, frame(MSB_FILES))) return false;
    const auto written = ask(connection, file_request(MSB_FILE_WRITE, path) +
                                             frame(MSB_FILE_DATA, content.substr(0, MSB_MAX_DATA)) +
                                             frame(MSB_FILE_DATA, content.substr(MSB_MAX_DATA)) +
                                             frame(MSB_FILE_DATA));
    if (!written) return false;
    CHECK(written->back().as<msb_done>().value == content.size());
    const auto read = ask(connection, file_request(MSB_FILE_READ, path, UINT64_MAX));
    if (!read) return false;
    CHECK(data_of(*read) == content);
    const auto listed = ask(connection, file_request(MSB_FILE_LIST, directory.path()));
    if (!listed) return false;
    CHECK(listed->back().as<msb_done>().value == 1);
    const auto packed = ask(connection, file_request(MSB_FILE_PACK, directory.path()));
    if (!packed) return false;
    const std::string stream = data_of(*packed);
    std::filesystem::remove(path);
    const auto unpacked = ask(connection, file_request(MSB_FILE_UNPACK, directory.path()) +
                                              frame(MSB_FILE_DATA, stream.substr(0, MSB_MAX_DATA)) +
                                              frame(MSB_FILE_DATA, stream.substr(MSB_MAX_DATA)) +
                                              frame(MSB_FILE_DATA));
    if (!unpacked) return false;
    std::ifstream file(path, std::ios::binary);
    CHECK(std::string(std::istreambuf_iterator<char>(file), {}) == content);
    return true;
  });
}

TEST_CASE("tunnel_that_memory_fails_is_refused_or_closed_and_what_came_before_is_right") {
  const TemporaryDirectory directory;
  fail_allocations(3, [&](const Agent& agent) {
    const std::string path = directory.path() + "/socket";
    std::filesystem::remove(path);
    const Server server(path);
    Connection host = agent.connect();
    const msb_connect request{.kind = MSB_CONNECT_UNIX, .port = 0};
    if (!ask(host, frame(MSB_CONNECT, bytes_of(request) + path + '\0') + "over")) return false;
    Connection guest = server.accept();
    shutdown(host.descriptor(), SHUT_WR);
    const std::string over = read_all(guest);
    CHECK(std::string("over").starts_with(over));
    guest.send("back");
    guest.close();
    const std::string back = read_all(host);
    CHECK(std::string("back").starts_with(back));
    return over == "over" && back == "back";
  });
}

TEST_CASE("datagrams_that_memory_fails_are_lost_or_whole") {
  using namespace std::string_literals;
  fail_allocations(3, [&](const Agent& agent) {
    const DatagramServer server;
    Connection host = agent.connect();
    const msb_connect request{.kind = MSB_CONNECT_UDP, .port = server.port()};
    if (!ask(host, frame(MSB_CONNECT, bytes_of(request)) + "\4\0over"s)) return false;
    if (!comes(server.descriptor())) return false;
    char piece[64];
    sockaddr_in sender{};
    socklen_t length = sizeof sender;
    const ssize_t over = recvfrom(server.descriptor(), piece, sizeof piece, 0,
                                  reinterpret_cast<sockaddr*>(&sender), &length);
    REQUIRE(over == 4);
    CHECK(std::string(piece, 4) == "over");
    REQUIRE(sendto(server.descriptor(), "back", 4, 0, reinterpret_cast<sockaddr*>(&sender),
                   length) == 4);
    if (!comes(host.descriptor())) return false;
    shutdown(host.descriptor(), SHUT_WR);
    const std::string back = read_all(host);
    CHECK((back.empty() || back == "\4\0back"s));
    return !back.empty();
  });
}

TEST_CASE("owner_of_a_socket_that_memory_fails_is_refused_or_has_no_name") {
  fail_allocations(1, [](const Agent& agent) {
    const DatagramServer server;
    Connection connection = agent.connect();
    const msb_socket ends{.family = 4,
                          .protocol = IPPROTO_UDP,
                          .local_port = server.port(),
                          .remote_port = 9,
                          .reserved = 0,
                          .remote = {192, 0, 2, 1}};
    const auto answered = ask(connection, frame(MSB_SOCKET_OWNER, bytes_of(ends)));
    if (!answered) return false;
    const Frame& owner = answered->back();
    if (owner.type == MSB_DONE) return false;
    REQUIRE(owner.type == MSB_OWNER);
    CHECK(owner.as<msb_owner>().pid == static_cast<uint32_t>(getpid()));
    return owner.payload.size() > sizeof(msb_owner);
  });
}

TEST_CASE("process_that_was_killed_for_memory_says_so_without_memory") {
  make_faults();
  int log[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, log) == 0);
  const std::string said = "Out of memory: Killed process 4711 (x)";
  const std::string record = "3,1,2,-;" + said + "\n";
  REQUIRE(write(log[1], record.data(), record.size()) == static_cast<ssize_t>(record.size()));
  processes all{};
  all.epoll = -1;
  all.kmsg = log[0];
  process victim{};
  victim.all = &all;
  victim.pid = 4711;
  victim.state = PROCESS_STATE_RUNNING;
  victim.slave = -1;
  for (watch* each :
       {&victim.input, &victim.pipes[0], &victim.pipes[1], &victim.channel, &victim.report}) {
    watch_none(each);
  }
  all.first = &victim;

  faults->left = 1;
  faults->all_from = true;
  faults->armed = true;
  is_agent = true;
  const rusage usage{};
  processes_reaped(&all, victim.pid, SIGKILL, &usage);
  uint8_t payload[MSB_MAX_SMALL];
  const std::string bytes(reinterpret_cast<const char*>(payload), process_exited(&victim, payload));
  is_agent = false;
  faults->armed = false;
  close(log[0]);
  close(log[1]);
  const auto exited = Frame{.type = MSB_EXITED, .payload = bytes}.as<msb_exited>();
  CHECK(exited.value == SIGKILL);
  CHECK(exited.flags == MSB_EXITED_OUT_OF_MEMORY);
  CHECK(bytes.substr(sizeof exited) == said);
}
