// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/listeners.h"

#include "initramfs/text_lines.h"
}

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

struct Parsed {
  std::vector<std::string> shown;
  uint32_t counted = 0;
};

std::string show(const msb_listener& listener) {
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(listener.family == 4 ? AF_INET : AF_INET6, listener.address, text, sizeof text);
  return std::to_string(listener.family) + " " + text + " " + std::to_string(listener.port);
}

Parsed parse(const std::string& text) {
  listeners all{};
  text_lines lines{};
  text_take(&lines, text.data(), text.size(), listeners_take, &all);
  Parsed parsed;
  for (uint32_t i = 0; i < all.kept; i++) parsed.shown.push_back(show(all.entries[i]));
  parsed.counted = all.counted;
  listeners_free(&all);
  return parsed;
}

constexpr const char* kTitle =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
    "inode\n";
constexpr const char* kRest = " 00000000:00000000 00:00000000 00000000     0        0 12345 1 0\n";

/// A line of /proc/net/tcp.
std::string entry(const std::string& local, const std::string& state) {
  return "   0: " + local + " 00000000:0000 " + state + kRest;
}

}  // namespace

TEST_CASE("listeners_of_a_recorded_ipv4_table_have_their_addresses_in_network_order") {
  Parsed parsed = parse(
      std::string(kTitle) +
      "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 "
      "23456 1 0000000000000000 100 0 0 10 0                     \n"
      "   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 "
      "12345 1 0000000000000000 100 0 0 10 0                     \n"
      "   2: 0A01A8C0:FFFF 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 "
      "12346 1 0000000000000000 100 0 0 10 0                     \n"
      "   3: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 "
      "23457 1 0000000000000000 20 4 30 10 -1                    \n");
  CHECK(parsed.shown ==
        std::vector<std::string>{"4 127.0.0.1 8080", "4 0.0.0.0 22", "4 192.168.1.10 65535"});
  CHECK(parsed.counted == 3);
}

TEST_CASE("listeners_of_a_recorded_ipv6_table_have_their_addresses_in_network_order") {
  Parsed parsed = parse(
      "  sl  local_address                         remote_address                        st "
      "tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
      "   0: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A "
      "00000000:00000000 00:00000000 00000000     0        0 2 1 0000000000000000 100 0 0 10 0\n"
      "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A "
      "00000000:00000000 00:00000000 00000000     0        0 3 1 0000000000000000 100 0 0 10 0\n"
      "   2: B80D0120785634120000000078563412:0001 00000000000000000000000000000000:0000 0A "
      "00000000:00000000 00:00000000 00000000     0        0 4 1 0000000000000000 100 0 0 10 0\n");
  CHECK(parsed.shown ==
        std::vector<std::string>{"6 ::1 631", "6 :: 80", "6 2001:db8:1234:5678::1234:5678 1"});
}

TEST_CASE("listeners_end_at_the_first_connection_but_not_at_one_that_closes") {
  std::string listens = entry("0100007F:0050", "0A");
  CHECK(parse(listens + entry("0100007F:0051", "07") + listens).counted == 2);
  CHECK(parse(listens + entry("0100007F:0051", "01") + listens).counted == 1);
}

TEST_CASE("listeners_of_hostile_text_are_none") {
  CHECK(parse(entry("0100007F:0050", "0A")).counted == 1);
  for (const char* local :
       {"", ":", "0100007F", "0100007F:", "0100007F:005", "0100007F:00050", "0100007:0050",
        "0100007FF:0050", "0100007f:0050", "-100007F:0050", "0100007F:-050", "0100007F 0050",
        "0000000000000000000000000100000:0050", "000000000000000000000000010000000:0050",
        "00000000000000000000000001000000:0050", "0100007F:0X50"}) {
    CAPTURE(local);
    CHECK(parse(entry(local, "0A")).counted == 0);
  }
  for (const char* state : {"", "A", "0a", "0A0", "-1", "  "}) {
    CAPTURE(state);
    CHECK(parse(entry("0100007F:0050", state)).counted == 0);
  }
  std::string line = entry("0100007F:0050", "0A");
  for (size_t length = 0; length < line.size(); length++) {
    CHECK(parse(line.substr(0, length)).counted == 0);  // no newline has come
  }
  CHECK(parse("99999999999999999999: 0100007F:0050 00000000:0000 0A 0\n").counted == 0);
  CHECK(parse(std::string(1000, '\0') + "\n" + std::string(5000, '0') + "\n").counted == 0);
}

TEST_CASE("listeners_beyond_the_most_that_are_answered_are_counted") {
  std::string text = kTitle;
  for (uint32_t i = 0; i < LISTENERS_MAX + 100; i++) text += entry("0100007F:0050", "0A");
  Parsed parsed = parse(text);
  CHECK(parsed.shown.size() == LISTENERS_MAX);
  CHECK(parsed.counted == LISTENERS_MAX + 100);
  std::string line = entry("0100007F:0050", "0A");
  for (uint32_t i = 0; i < LISTENERS_COUNTED_MAX; i++) text += line;
  CHECK(parse(text).counted == LISTENERS_COUNTED_MAX);
}

namespace {

/// Listens at a port that the kernel picks. Returns the socket; `address` gets the port.
template <typename Address>
int listen_at(Address& address, int family) {
  socklen_t length = sizeof address;
  int socket = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(bind(socket, reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(listen(socket, 1) == 0);
  REQUIRE(getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  return socket;
}

/// What listens, as seen by a process that /proc does not show, like the agent in a machine.
std::vector<std::string> read_from_outside_of_proc() {
  int report[2];
  REQUIRE(pipe(report) == 0);
  pid_t outside = fork();
  REQUIRE(outside >= 0);
  if (outside == 0) {
    alarm(20);
    REQUIRE(unshare(CLONE_NEWNS | CLONE_NEWPID) == 0);
    REQUIRE(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    pid_t inside = fork();
    if (inside == 0) {
      bool mounted = mount("proc", "/proc", "proc", 0, nullptr) == 0;
      if (write(ready[1], mounted ? "y" : "n", 1) == 1) pause();
      _exit(1);
    }
    char answer = 'n';
    listeners all{};
    if (read(ready[0], &answer, 1) == 1 && answer == 'y' && listeners_read(&all)) {
      for (uint32_t i = 0; i < all.kept; i++) {
        std::string line = show(all.entries[i]) + "\n";
        if (write(report[1], line.data(), line.size()) < 0) break;
      }
    }
    kill(inside, SIGKILL);
    _exit(0);
  }
  close(report[1]);
  std::vector<std::string> shown;
  FILE* lines = fdopen(report[0], "r");
  char line[128];
  while (fgets(line, sizeof line, lines) != nullptr) {
    shown.emplace_back(line, std::strlen(line) - 1);
  }
  fclose(lines);
  waitpid(outside, nullptr, 0);
  return shown;
}

}  // namespace

TEST_CASE("listeners_are_seen_by_an_agent_outside_of_the_process_namespace") {
  if (geteuid() != 0) {
    MESSAGE("skipped: only root can make a process namespace");
    return;
  }
  sockaddr_in ipv4{};
  ipv4.sin_family = AF_INET;
  ipv4.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 5);
  int first = listen_at(ipv4, AF_INET);
  sockaddr_in6 ipv6{};
  ipv6.sin6_family = AF_INET6;
  ipv6.sin6_addr = IN6ADDR_LOOPBACK_INIT;
  int second = listen_at(ipv6, AF_INET6);
  std::vector<std::string> shown = read_from_outside_of_proc();
  close(first);
  close(second);
  auto has = [&](const std::string& one) {
    return std::find(shown.begin(), shown.end(), one) != shown.end();
  };
  CHECK(has("4 127.0.0.6 " + std::to_string(ntohs(ipv4.sin_port))));
  CHECK(has("6 ::1 " + std::to_string(ntohs(ipv6.sin6_port))));
}
