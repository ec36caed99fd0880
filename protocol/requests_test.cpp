// SPDX-License-Identifier: Apache-2.0
#include "protocol/requests.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/testing/wire.hpp"

namespace msb::protocol {
namespace {

using testing::bytes_of;
using testing::frame_of;
using testing::text_of;
using testing::Wire;

std::string done(std::uint64_t value = 0) {
  return frame_of(MSB_DONE, msb_done{value});
}

std::string listed(std::uint32_t process) {
  msb_process fields{};
  fields.process = process;
  fields.state = MSB_PROCESS_RUNS;
  return frame_of(MSB_PROCESS, fields, std::string_view("l\0a\0", 4));
}

// Notes what came of requests, in order.
struct Notes {
  std::vector<std::string> lines;
  template <typename T>
  Requests::Done<T> note(std::string name) {
    return [this, name](const Answer<T>& answer) {
      lines.push_back(answer ? name : fmt::format("{} failed at {}", name, answer.error().stage));
    };
  }
};

using Lines = std::vector<std::string>;

TEST_CASE("answers come in the order of the requests, refusals among them") {
  Wire wire;
  Notes notes;
  Requests requests(*wire.loop, std::move(wire.host));
  requests.signal(1, 15, false, notes.note<void>("signal"));
  requests.resize(1, {24, 80}, notes.note<void>("resize"));
  requests.forget(1, notes.note<void>("forget"));
  requests.set_clock(5, notes.note<void>("clock"));
  requests.add_entropy(bytes_of("x"), notes.note<void>("entropy"));
  requests.set_names("h", "", "", notes.note<void>("names"));
  requests.ping(bytes_of("abc"), notes.note<void>("ping"));
  const std::string asked = text_of(*encode_signal(1, 15, false)) +
                            text_of(encode_resize(1, {24, 80})) +
                            text_of(encode_process_request(MSB_FORGET, 1)) +
                            text_of(encode_set_clock(5)) + frame_of(MSB_ADD_ENTROPY, "x") +
                            text_of(*encode_set_names("h", "", "")) + frame_of(MSB_PING, "abc");
  CHECK(wire.run_until([&] { return wire.hear().size() >= asked.size(); }));
  CHECK(wire.hear() == asked);
  wire.say("OK 1\n" + done() + frame_of(MSB_REFUSED, msb_failure{2, 0}, "no terminal") + done() +
           done() + done() + done() + frame_of(MSB_PONG, "abc"));
  CHECK(wire.run_until([&] { return notes.lines.size() == 7; }));
  CHECK(notes.lines ==
        Lines{"signal", "resize failed at 2", "forget", "clock", "entropy", "names", "ping"});
  CHECK(requests.open());
}

TEST_CASE("lists come entry by entry, and their number must be right") {
  Wire wire;
  Notes notes;
  Requests requests(*wire.loop, std::move(wire.host));
  std::vector<std::uint32_t> processes;
  std::uint64_t count = 0;
  requests.list([&](const ProcessEntry& entry) { processes.push_back(entry.fields.process); },
                [&](const Answer<std::uint64_t>& answer) { count = answer.value_or(99); });
  requests.listeners([](const msb_listener&) {}, notes.note<std::uint64_t>("listeners"));
  wire.say("OK 1\n" + listed(1) + listed(5) + done(2) + done(1));
  CHECK(wire.run_until([&] { return !notes.lines.empty(); }));
  CHECK(processes == std::vector<std::uint32_t>{1, 5});
  CHECK(count == 2);
  CHECK(notes.lines == Lines{"listeners failed at 0"});
  CHECK_FALSE(requests.open());
}

TEST_CASE("the owner of a socket comes with its name, or there is none") {
  Wire wire;
  Requests requests(*wire.loop, std::move(wire.host));
  const msb_socket ends{
      .family = 4, .protocol = 6, .local_port = 1, .remote_port = 2, .reserved = 0, .remote = {}};
  std::vector<std::string> owners;
  const auto note = [&](const Answer<std::optional<SocketOwner>>& answer) {
    const auto& owner = answer.value();
    owners.push_back(owner ? fmt::format("{} {} {}", owner->pid, owner->user, owner->name)
                           : "nobody");
  };
  requests.socket_owner(ends, note);
  requests.socket_owner(ends, note);
  wire.say("OK 1\n" + frame_of(MSB_OWNER, msb_owner{7, 1000}, "curl") + done());
  CHECK(wire.run_until([&] { return owners.size() == 2; }));
  CHECK(owners == Lines{"7 1000 curl", "nobody"});
  CHECK(requests.open());
}

TEST_CASE("measurements and ends of processes arrive whole") {
  Wire wire;
  Requests requests(*wire.loop, std::move(wire.host));
  std::optional<msb_metrics> measured;
  std::optional<Exited> ended;
  requests.metrics([&](const Answer<msb_metrics>& answer) { measured = answer.value(); });
  requests.wait(7, [&](const Answer<Exited>& answer) { ended = answer.value(); });
  msb_metrics metrics{};
  metrics.oom_kills = 3;
  msb_exited exited{};
  exited.kind = MSB_EXIT_SIGNAL;
  exited.value = 9;
  exited.process = 7;
  wire.say("OK 1\n" + frame_of(MSB_MEASURED, metrics) + frame_of(MSB_EXITED, exited, "killed"));
  CHECK(wire.run_until([&] { return ended.has_value(); }));
  CHECK(measured->oom_kills == 3);
  CHECK(ended->fields.value == 9);
  CHECK(ended->kernel_line == "killed");
}

TEST_CASE("an answer that fits no request breaks the connection, and fails all that wait") {
  std::string answer;
  SUBCASE("another type") {
    answer = frame_of(MSB_PONG, "abc");
  }
  SUBCASE("the end of another process") {
    msb_exited exited{};
    exited.kind = MSB_EXIT_STATUS;
    exited.process = 8;
    answer = frame_of(MSB_EXITED, exited);
  }
  SUBCASE("entries of another request") {
    answer = listed(1);
  }
  SUBCASE("a stage that does not exist") {
    answer = frame_of(MSB_REFUSED, msb_failure{77, 0}, "");
  }
  Wire wire;
  Notes notes;
  Requests requests(*wire.loop, std::move(wire.host));
  requests.wait(7, notes.note<Exited>("wait"));
  requests.ping(bytes_of("x"), notes.note<void>("ping"));
  wire.say("OK 1\n" + answer);
  CHECK(wire.run_until([&] { return notes.lines.size() == 2; }));
  CHECK(notes.lines == Lines{"wait failed at 0", "ping failed at 0"});
  CHECK(wire.run_until([&] { return wire.closed(); }));
}

TEST_CASE("an answer to nothing breaks the connection") {
  Wire wire;
  Requests requests(*wire.loop, std::move(wire.host));
  wire.say("OK 1\n" + done());
  CHECK(wire.run_until([&] { return !requests.open(); }));
}

TEST_CASE("a PONG with other bytes is no answer") {
  Wire wire;
  Notes notes;
  Requests requests(*wire.loop, std::move(wire.host));
  requests.ping(bytes_of("abc"), notes.note<void>("ping"));
  wire.say("OK 1\n" + frame_of(MSB_PONG, "abd"));
  CHECK(wire.run_until([&] { return !notes.lines.empty(); }));
  CHECK(notes.lines == Lines{"ping failed at 0"});
}

TEST_CASE("a list that does not end is cut off") {
  Wire wire;
  Notes notes;
  std::uint64_t entries = 0;
  Requests requests(*wire.loop, std::move(wire.host));
  requests.list([&](const ProcessEntry&) { ++entries; }, notes.note<std::uint64_t>("list"));
  wire.say("OK 1\n");
  std::string many;
  for (int i = 0; i < 256; ++i) {
    many += listed(1);
  }
  // Written as fast as it is read, and at most twice what may come.
  std::uint64_t written = 0;
  CHECK(wire.run_until([&] {
    while (written < 2 * Requests::kMaxListed &&
           ::send(wire.guest.get(), many.data(), many.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
               static_cast<ssize_t>(many.size())) {
      written += 256;
    }
    return !notes.lines.empty();
  }));
  CHECK(notes.lines == Lines{"list failed at 0"});
  CHECK(entries <= Requests::kMaxListed);
}

TEST_CASE("what cannot be asked, or not any more, fails in the call") {
  Wire wire;
  Notes notes;
  Requests requests(*wire.loop, std::move(wire.host));
  requests.signal(1, 65, false, notes.note<void>("signal"));
  CHECK(notes.lines == Lines{"signal failed at 2"});
  wire.guest.reset();
  CHECK(wire.run_until([&] { return !requests.open(); }));
  requests.forget(1, notes.note<void>("forget"));
  CHECK(notes.lines.back() == "forget failed at 0");
}

TEST_CASE("requests may be dropped from inside an answer, and the rest is silent") {
  Wire wire;
  Notes notes;
  std::optional<Requests> requests(std::in_place, *wire.loop, std::move(wire.host));
  requests->list([&](const ProcessEntry&) { requests.reset(); }, notes.note<std::uint64_t>("list"));
  requests->forget(1, notes.note<void>("forget"));
  wire.say("OK 1\n" + listed(1) + listed(2) + done(2) + done());
  CHECK(wire.run_until([&] { return wire.closed(); }));
  CHECK(notes.lines.empty());
}

}  // namespace
}  // namespace msb::protocol
