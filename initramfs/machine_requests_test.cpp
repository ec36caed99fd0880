// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/machine_requests.h"

#include "initramfs/frames.h"
#include "initramfs/names.h"
}

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/random.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct Answer {
  uint32_t type = 0;
  std::string payload;

  template <typename T>
  T as() const {
    T value{};
    payload.copy(reinterpret_cast<char*>(&value), sizeof value);
    return value;
  }
};

std::vector<Answer> ask(uint32_t type, const std::string& payload = {}) {
  buffer answer{};
  REQUIRE(machine_request_is(type));
  namespace_beside programs{.init = -1, .restored = true};
  REQUIRE(machine_request(type, reinterpret_cast<const uint8_t*>(payload.data()), payload.size(),
                          &programs, &answer));
  CHECK(programs.restored);
  std::vector<Answer> answers;
  const char* next = reinterpret_cast<const char*>(answer.data) + answer.start;
  size_t left = buffer_length(&answer);
  while (left > 0) {
    msb_frame_header header;
    REQUIRE(left >= sizeof header);
    std::memcpy(&header, next, sizeof header);
    REQUIRE(left - sizeof header >= header.length);
    answers.push_back({header.type, std::string(next + sizeof header, header.length)});
    next += sizeof header + header.length;
    left -= sizeof header + header.length;
  }
  buffer_free(&answer);
  return answers;
}

Answer ask_for_one(uint32_t type, const std::string& payload = {}) {
  std::vector<Answer> answers = ask(type, payload);
  REQUIRE(answers.size() == 1);
  return answers[0];
}

/// "DONE", or stage and errno of REFUSED.
std::string outcome(const Answer& answer) {
  if (answer.type == MSB_DONE && answer.payload.size() == sizeof(msb_done)) return "DONE";
  REQUIRE(answer.type == MSB_REFUSED);
  REQUIRE(answer.payload.size() > sizeof(msb_failure));
  REQUIRE(answer.payload.size() <= MSB_MAX_SMALL);
  auto failure = answer.as<msb_failure>();
  return std::to_string(failure.stage) + " " + std::to_string(failure.code);
}

std::string refusal(uint32_t stage, int code) {
  return std::to_string(stage) + " " + std::to_string(code);
}

std::string names(const std::string& host, const std::string& resolver, const std::string& hosts) {
  return host + '\0' + resolver + '\0' + hosts + '\0';
}

std::string content(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Runs `act` in a process of its own, where /etc is an empty tmpfs and the host name its own. What
/// it returns comes back as text.
std::string in_own_etc(const std::function<std::string()>& act) {
  int report[2];
  REQUIRE(pipe2(report, O_CLOEXEC) == 0);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::string result = "cannot make the namespaces";
    if (unshare(CLONE_NEWNS | CLONE_NEWUTS) == 0 &&
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        mount("tmpfs", "/etc", "tmpfs", 0, "mode=0755") == 0) {
      alarm(20);
      result = act();
    }
    ssize_t written = write(report[1], result.data(), result.size());
    _exit(written == static_cast<ssize_t>(result.size()) ? 0 : 1);
  }
  close(report[1]);
  std::string result;
  char piece[4096];
  ssize_t n;
  while ((n = read(report[0], piece, sizeof piece)) > 0)
    result.append(piece, static_cast<size_t>(n));
  close(report[0]);
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  return result;
}

bool is_root() {
  if (geteuid() == 0) return true;
  MESSAGE("skipped: only root can have an /etc of its own");
  return false;
}

}  // namespace

TEST_CASE("machine_request_types_are_those_about_the_machine") {
  for (uint32_t type = 0; type < 200; type++) {
    bool expected = type == MSB_PING || type == MSB_METRICS || type == MSB_LISTENERS ||
                    type == MSB_SET_CLOCK || type == MSB_ADD_ENTROPY || type == MSB_SET_NAMES ||
                    type == MSB_SHARE || type == MSB_UNSHARE || type == MSB_SOCKET_OWNER;
    CHECK(machine_request_is(type) == expected);
  }
}

TEST_CASE("machine_request_ping_is_answered_with_its_bytes") {
  for (const std::string& bytes :
       {std::string(), std::string("\0a\xff", 3), std::string(MSB_MAX_SMALL, 'x')}) {
    Answer answer = ask_for_one(MSB_PING, bytes);
    CHECK(answer.type == MSB_PONG);
    CHECK(answer.payload == bytes);
  }
}

TEST_CASE("machine_request_metrics_is_answered_by_18_fields") {
  Answer answer = ask_for_one(MSB_METRICS);
  CHECK(answer.type == MSB_MEASURED);
  CHECK(answer.payload.size() == 144);
  CHECK(answer.as<msb_metrics>().memory_total > 0);
}

TEST_CASE("machine_request_listeners_ends_with_their_number") {
  std::vector<Answer> answers = ask(MSB_LISTENERS);
  REQUIRE_FALSE(answers.empty());
  CHECK(answers.back().type == MSB_DONE);
  CHECK(answers.back().as<msb_done>().value == answers.size() - 1);
  answers.pop_back();
  for (const Answer& answer : answers) {
    CHECK(answer.type == MSB_LISTENER);
    CHECK(answer.payload.size() == 24);
  }
}

TEST_CASE("machine_request_socket_owner_that_makes_no_sense_is_refused_and_nobody_is_0") {
  const msb_socket nobodys{
      .family = 4, .protocol = 6, .local_port = 1, .remote_port = 1, .reserved = 0, .remote = {}};
  const auto ask_about = [&](const std::function<void(msb_socket&)>& change) {
    msb_socket socket = nobodys;
    change(socket);
    return outcome(ask_for_one(MSB_SOCKET_OWNER,
                               std::string(reinterpret_cast<const char*>(&socket), sizeof socket)));
  };
  CHECK(ask_about([](msb_socket&) {}) == "DONE");
  CHECK(ask_about([](msb_socket& socket) { socket.family = 6; }) == "DONE");
  CHECK(ask_about([](msb_socket& socket) { socket.protocol = 17; }) == "DONE");
  const std::string refused = std::to_string(MSB_STAGE_REQUEST) + " " + std::to_string(EINVAL);
  CHECK(ask_about([](msb_socket& socket) { socket.family = 5; }) == refused);
  CHECK(ask_about([](msb_socket& socket) { socket.protocol = 1; }) == refused);
  CHECK(ask_about([](msb_socket& socket) { socket.local_port = 0; }) == refused);
  CHECK(ask_about([](msb_socket& socket) { socket.remote_port = 0; }) == refused);
  CHECK(ask_about([](msb_socket& socket) { socket.reserved = 1; }) == refused);
}

TEST_CASE("machine_request_shares_that_are_malformed_or_have_no_device_are_refused") {
  using namespace std::string_literals;
  for (const std::string& payload :
       {""s, "\0"s, "ro\0a\0"s, "ro\0a\0/b\0c"s, "ro\0a\0b\0"s, "ro\0a\0/\0"s, "ro\0a\0\0"s,
        "ro\0a\0/"s + std::string(5000, 'b') + "\0"s}) {
    CAPTURE(payload);
    CHECK(outcome(ask_for_one(MSB_SHARE, payload)) == refusal(MSB_STAGE_REQUEST, EINVAL));
  }
  for (const std::string& payload : {""s, "/a"s, "a\0"s, "/\0"s, "/a\0/b\0"s}) {
    CAPTURE(payload);
    CHECK(outcome(ask_for_one(MSB_UNSHARE, payload)) == refusal(MSB_STAGE_REQUEST, EINVAL));
  }
  CHECK(outcome(ask_for_one(MSB_SHARE, "ro\0a\0/b\0"s)) == refusal(MSB_STAGE_REQUEST, ENODEV));
  CHECK(outcome(ask_for_one(MSB_UNSHARE, "/b\0"s)) == refusal(MSB_STAGE_REQUEST, ENODEV));
}

TEST_CASE("machine_request_clock_that_the_kernel_cannot_have_is_refused") {
  CHECK(outcome(ask_for_one(MSB_SET_CLOCK, std::string(8, '\xff'))) ==
        refusal(MSB_STAGE_REQUEST, EINVAL));
}

TEST_CASE("machine_request_entropy_is_taken_where_the_kernel_lets_this_test_add_some") {
  int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  REQUIRE(random >= 0);
  std::string expected =
      ioctl(random, RNDRESEEDCRNG) == 0 ? "DONE" : refusal(MSB_STAGE_REQUEST, EPERM);
  close(random);
  for (size_t length : {size_t{1}, size_t{33}, size_t{512}}) {
    std::string bytes(length, '\0');
    REQUIRE(getrandom(bytes.data(), length, 0) == static_cast<ssize_t>(length));
    CHECK(outcome(ask_for_one(MSB_ADD_ENTROPY, bytes)) == expected);
  }
}

TEST_CASE("machine_request_names_that_are_malformed_are_refused_before_anything_is_set") {
  std::string malformed = refusal(MSB_STAGE_REQUEST, EINVAL);
  utsname before{};
  REQUIRE(uname(&before) == 0);
  for (const std::string& payload :
       {std::string(), std::string("\0", 1), std::string("\0\0", 2), std::string("\0\0x", 3),
        std::string("\0\0\0\0", 4), std::string("a\0b\0c\0d", 7), names("a b", "", ""),
        names("a\nb", "", ""), names("a/b", "", ""), names("\xc3\xa9", "", "")}) {
    CAPTURE(payload);
    CHECK(outcome(ask_for_one(MSB_SET_NAMES, payload)) == malformed);
  }
  CHECK(outcome(ask_for_one(MSB_SET_NAMES, names(std::string(65, 'a'), "", ""))) ==
        refusal(MSB_STAGE_REQUEST, ENAMETOOLONG));
  utsname after{};
  REQUIRE(uname(&after) == 0);
  CHECK(std::string(before.nodename) == after.nodename);
}

TEST_CASE("machine_request_names_are_set") {
  if (!is_root()) return;
  std::string host(64, 'h');
  CHECK(in_own_etc([&] {
          std::string said =
              outcome(ask_for_one(MSB_SET_NAMES, names(host, "nameserver 1.2.3.4\n", "::1 me\n")));
          utsname now{};
          uname(&now);
          return said + "|" + now.nodename + "|" + content("/etc/hostname") + "|" +
                 content("/etc/resolv.conf") + "|" + content("/etc/hosts");
        }) == "DONE|" + host + "|" + host + "\n|nameserver 1.2.3.4\n|::1 me\n");
}

TEST_CASE("machine_request_names_that_are_empty_leave_what_is_there") {
  if (!is_root()) return;
  CHECK(in_own_etc([] {
          sethostname("before", 6);
          std::ofstream("/etc/hosts") << "old";
          std::string said = outcome(ask_for_one(MSB_SET_NAMES, names("", "new", "")));
          utsname now{};
          uname(&now);
          return said + "|" + now.nodename + "|" + content("/etc/hosts") + "|" +
                 content("/etc/resolv.conf") + "|" +
                 (access("/etc/hostname", F_OK) == 0 ? "there" : "not there");
        }) == "DONE|before|old|new|not there");
}

TEST_CASE("machine_request_names_replace_a_dangling_link_and_keep_a_file") {
  if (!is_root()) return;
  CHECK(in_own_etc([] {
          symlink("../run/nowhere/resolv.conf", "/etc/resolv.conf");
          std::ofstream("/etc/hosts") << "a longer content than the new one";
          chmod("/etc/hosts", 0640);
          struct stat before{};
          stat("/etc/hosts", &before);
          std::string said = outcome(ask_for_one(MSB_SET_NAMES, names("", "new", "short")));
          struct stat link{};
          lstat("/etc/resolv.conf", &link);
          struct stat after{};
          stat("/etc/hosts", &after);
          return said + (S_ISREG(link.st_mode) ? "|file" : "|link") + "|" +
                 content("/etc/resolv.conf") + "|" + content("/etc/hosts") +
                 (before.st_ino == after.st_ino && before.st_mode == after.st_mode ? "|kept"
                                                                                   : "|new");
        }) == "DONE|file|new|short|kept");
}

TEST_CASE("machine_request_names_never_follow_a_link_out_of_etc") {
  if (!is_root()) return;
  CHECK(in_own_etc([] {
          std::ofstream("/etc/passwd") << "root";
          symlink("passwd", "/etc/hosts");
          symlink("passwd", "/etc/hosts.msb-new");
          std::string said = outcome(ask_for_one(MSB_SET_NAMES, names("", "", "new")));
          return said + "|" + content("/etc/passwd") + "|" + content("/etc/hosts") +
                 (access("/etc/hosts.msb-new", F_OK) == 0 ? "|left" : "|clean");
        }) == "DONE|root|new|clean");
}

TEST_CASE("machine_request_names_wait_for_no_fifo_or_device") {
  if (!is_root()) return;
  CHECK(in_own_etc([] {
          mkfifo("/etc/hosts", 0600);
          mkfifo("/etc/hosts.msb-new", 0600);
          mknod("/etc/resolv.conf", S_IFCHR | 0600, makedev(1, 3));
          std::string said = outcome(ask_for_one(MSB_SET_NAMES, names("", "one", "two")));
          return said + "|" + content("/etc/resolv.conf") + "|" + content("/etc/hosts");
        }) == "DONE|one|two");
}

TEST_CASE("machine_request_names_say_which_file_cannot_be_written") {
  if (!is_root()) return;
  CHECK(in_own_etc([] {
          mkdir("/etc/resolv.conf", 0755);
          mkdir("/etc/resolv.conf/x", 0755);
          Answer answer = ask_for_one(MSB_SET_NAMES, names("", "one", "two"));
          bool named = answer.payload.find("/etc/resolv.conf") != std::string::npos;
          return outcome(answer) + (named ? "|named" : "|not named") +
                 (access("/etc/resolv.conf.msb-new", F_OK) == 0 ? "|left" : "|clean");
        }) == refusal(MSB_STAGE_FILE, EISDIR) + "|named|clean");
}

TEST_CASE("machine_request_names_write_through_a_mounted_file") {
  if (!is_root()) return;
  CHECK(in_own_etc([] {
          std::ofstream("/etc/other") << "old";
          std::ofstream("/etc/hosts") << "hidden";
          mount("/etc/other", "/etc/hosts", nullptr, MS_BIND, nullptr);
          std::string said = outcome(ask_for_one(MSB_SET_NAMES, names("", "", "new")));
          return said + "|" + content("/etc/other");
        }) == "DONE|new");
}
