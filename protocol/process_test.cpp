// SPDX-License-Identifier: Apache-2.0
#include "protocol/process.hpp"

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

// What a process's owner saw.
struct Seen {
  std::optional<msb_started> started;
  std::optional<msb_attached> attached;
  std::string streams[MSB_STREAMS];
  std::optional<Exited> exited;
  bool detached = false;
  std::optional<Failure> failed;
  bool take = true;
  [[nodiscard]] bool over() const { return exited || detached || failed; }

  Process::Events events() {
    return {.started = [this](const msb_started& fields) { started = fields; },
            .attached = [this](const msb_attached& fields) { attached = fields; },
            .output =
                [this](msb_stream stream, std::span<const std::byte> bytes) {
                  streams[stream] += text_of(bytes);
                  return take;
                },
            .sent = nullptr,
            .exited = [this](const Exited& end) { exited = end; },
            .detached = [this] { detached = true; },
            .failed = [this](const Failure& failure) { failed = failure; }};
  }
};

ProcessSpec spec() {
  ProcessSpec spec;
  spec.arguments = {"true"};
  return spec;
}

std::string exited(std::uint32_t process, std::uint64_t out, std::uint64_t err = 0) {
  msb_exited fields{};
  fields.kind = MSB_EXIT_STATUS;
  fields.value = 3;
  fields.process = process;
  fields.offsets[MSB_STREAM_STDOUT] = out;
  fields.offsets[MSB_STREAM_STDERR] = err;
  return frame_of(MSB_EXITED, fields);
}

std::string started(std::uint32_t process = 1) {
  return frame_of(MSB_STARTED, msb_started{process, 2});
}

TEST_CASE("a process is started, writes, and ends") {
  Wire wire;
  Seen seen;
  auto process = Process::start(*wire.loop, std::move(wire.host), spec(), seen.events());
  REQUIRE(process);
  process->send_input(bytes_of("hi\n"));
  process->end_input();
  CHECK_FALSE(process->input_open());
  const std::string input =
      text_of(*encode_start(spec())) + frame_of(MSB_STDIN, "hi\n") + frame_of(MSB_STDIN);
  CHECK(wire.run_until([&] { return wire.hear().size() >= input.size(); }));
  CHECK(wire.hear() == input);
  wire.say("OK 1073741824\n" + started() + frame_of(MSB_STDOUT, "out") +
           frame_of(MSB_STDERR, "error") + exited(1, 3, 5));
  CHECK(wire.run_until([&] { return seen.over(); }));
  CHECK(seen.started->pid == 2);
  CHECK(seen.streams[0] == "out");
  CHECK(seen.streams[1] == "error");
  REQUIRE(seen.exited);
  CHECK(seen.exited->fields.value == 3);
  CHECK(wire.run_until([&] { return wire.closed(); }));
  CHECK_FALSE(seen.failed);
}

TEST_CASE("a refusal says stage, errno and reason") {
  Wire wire;
  Seen seen;
  auto process = Process::start(*wire.loop, std::move(wire.host), spec(), seen.events());
  wire.say("OK 1\n" + frame_of(MSB_REFUSED, msb_failure{6, 2}, "there is no true"));
  CHECK(wire.run_until([&] { return seen.over(); }));
  REQUIRE(seen.failed);
  CHECK(seen.failed->stage == MSB_STAGE_EXECUTE);
  CHECK(seen.failed->error.code == 2);
  CHECK(seen.failed->error.message == "there is no true");
}

TEST_CASE("output that is not taken waits, and goes on where it stopped") {
  Wire wire;
  Seen seen;
  seen.take = false;
  auto process = Process::start(*wire.loop, std::move(wire.host), spec(), seen.events());
  wire.say("OK 1\n" + started() + frame_of(MSB_STDOUT, "a") + frame_of(MSB_STDERR, "b") +
           exited(1, 1, 1));
  CHECK(wire.run_until([&] { return !seen.streams[0].empty(); }));
  CHECK(seen.streams[1].empty());
  process->resume();
  CHECK(wire.run_until([&] { return !seen.streams[1].empty(); }));
  CHECK_FALSE(seen.over());
  process->resume();
  CHECK(wire.run_until([&] { return seen.exited.has_value(); }));
}

TEST_CASE("a guest that breaks the order, the totals or the ids is a broken connection") {
  std::string answer;
  bool terminal = false;
  SUBCASE("output before STARTED") {
    answer = frame_of(MSB_STDOUT, "x");
  }
  SUBCASE("EXITED before STARTED") {
    answer = exited(1, 0);
  }
  SUBCASE("DETACHED before STARTED") {
    answer = frame_of(MSB_DETACHED);
  }
  SUBCASE("STARTED twice") {
    answer = started() + started();
  }
  SUBCASE("ATTACHED to a START") {
    msb_attached attached{};
    attached.process = 1;
    answer = frame_of(MSB_ATTACHED, attached);
  }
  SUBCASE("REFUSED after STARTED") {
    answer = started() + frame_of(MSB_REFUSED, msb_failure{2, 0}, "");
  }
  SUBCASE("the end of another process") {
    answer = started(1) + exited(2, 0);
  }
  SUBCASE("more counted than came") {
    answer = started() + exited(1, 1);
  }
  SUBCASE("less counted than came") {
    answer = started() + frame_of(MSB_STDOUT, "xx") + exited(1, 1);
  }
  SUBCASE("a channel that was not asked for") {
    answer = started() + frame_of(MSB_CHANNEL, "x");
  }
  SUBCASE("standard error of a terminal") {
    terminal = true;
    answer = started() + frame_of(MSB_STDERR, "x");
  }
  SUBCASE("a frame of a request connection") {
    answer = frame_of(MSB_DONE, msb_done{0});
  }
  Wire wire;
  Seen seen;
  ProcessSpec asked = spec();
  if (terminal) {
    asked.terminal = TerminalSize{};
  }
  auto process = Process::start(*wire.loop, std::move(wire.host), asked, seen.events());
  wire.say("OK 1\n" + answer);
  CHECK(wire.run_until([&] { return seen.over(); }));
  REQUIRE(seen.failed);
  CHECK(seen.failed->stage == 0);
  CHECK_FALSE(seen.exited);
  CHECK(wire.run_until([&] { return wire.closed(); }));
}

TEST_CASE("a connection that ends early says how far it had come") {
  std::string answer;
  int code = ECONNRESET;
  SUBCASE("before the greeting") {
    answer = "";
  }
  SUBCASE("within the greeting") {
    answer = "OK 1";
  }
  SUBCASE("after the greeting") {
    answer = "OK 1\n";
  }
  SUBCASE("while the process runs") {
    answer = "OK 1\n" + started();
  }
  SUBCASE("in the middle of a frame") {
    answer = "OK 1\n" + started().substr(0, 9);
  }
  SUBCASE("with something that is no sandbox") {
    answer = "HTTP/1.1 400 Bad Request\r\n";
    code = EPROTO;
  }
  SUBCASE("with an endless line") {
    answer = std::string(5000, 'O');
    code = EPROTO;
  }
  SUBCASE("with a number that is none") {
    answer = "OK x\n";
    code = EPROTO;
  }
  Wire wire;
  Seen seen;
  auto process = Process::start(*wire.loop, std::move(wire.host), spec(), seen.events());
  wire.hear();
  CHECK(wire.run_until([&] { return !wire.hear().empty(); }));
  wire.say(answer);
  ::shutdown(wire.guest.get(), SHUT_WR);
  CHECK(wire.run_until([&] { return seen.over(); }));
  REQUIRE(seen.failed);
  CHECK(seen.failed->stage == 0);
  CHECK(seen.failed->error.code == code);
}

msb_attached attached_at(std::uint64_t out, std::uint32_t flags = MSB_ATTACHED_INPUT) {
  msb_attached fields{};
  fields.process = 7;
  fields.offsets[0] = out;
  fields.flags = flags;
  return fields;
}

TEST_CASE("attaching goes on at the offset that the agent names, with what input is left") {
  Wire wire;
  Seen seen;
  const AttachSpec asked{.process = 7, .offsets = {10, 0, 0}};
  Process process = Process::attach(*wire.loop, std::move(wire.host), asked, seen.events());
  CHECK_FALSE(process.input_open());
  wire.say("OK 1\n" + frame_of(MSB_ATTACHED, attached_at(12)) + frame_of(MSB_STDOUT, "abc"));
  CHECK(wire.run_until([&] { return seen.streams[0] == "abc"; }));
  CHECK(seen.attached->offsets[0] == 12);
  CHECK(process.input_open());
  wire.say(exited(7, 15));
  CHECK(wire.run_until([&] { return seen.exited.has_value(); }));
}

TEST_CASE("who attaches to a supervisor's command learns its id") {
  Wire wire;
  Seen seen;
  const AttachSpec asked{.process = 0, .offsets = {MSB_OFFSET_END, MSB_OFFSET_END, MSB_OFFSET_END}};
  Process process = Process::attach(*wire.loop, std::move(wire.host), asked, seen.events());
  wire.say("OK 1\n" + frame_of(MSB_ATTACHED, attached_at(5)) + exited(7, 5));
  CHECK(wire.run_until([&] { return seen.over(); }));
  CHECK(seen.attached->process == 7);
  CHECK(seen.exited);
}

TEST_CASE("an input that was ended before cannot be written") {
  Wire wire;
  Seen seen;
  Process process =
      Process::attach(*wire.loop, std::move(wire.host), {.process = 7}, seen.events());
  wire.say("OK 1\n" + frame_of(MSB_ATTACHED, attached_at(0, 11)));
  CHECK(wire.run_until([&] { return seen.attached.has_value(); }));
  CHECK_FALSE(process.input_open());
  CHECK_FALSE(process.channel_open());
}

TEST_CASE("an input that a process was started without cannot be written") {
  Wire wire;
  Seen seen;
  Process process =
      Process::attach(*wire.loop, std::move(wire.host), {.process = 7}, seen.events());
  wire.say("OK 1\n" + frame_of(MSB_ATTACHED, attached_at(0, 0)));
  CHECK(wire.run_until([&] { return seen.attached.has_value(); }));
  CHECK_FALSE(process.input_open());
}

TEST_CASE("another connection may take the process over") {
  Wire wire;
  Seen seen;
  Process process =
      Process::attach(*wire.loop, std::move(wire.host), {.process = 7}, seen.events());
  wire.say("OK 1\n" + frame_of(MSB_ATTACHED, attached_at(0)) + frame_of(MSB_DETACHED));
  CHECK(wire.run_until([&] { return seen.over(); }));
  CHECK(seen.detached);
}

TEST_CASE("a guest that attaches elsewhere is a broken connection") {
  std::string answer;
  std::uint64_t wanted = 10;
  SUBCASE("bytes that were not asked for") {
    answer = frame_of(MSB_ATTACHED, attached_at(9));
  }
  SUBCASE("another process") {
    auto fields = attached_at(10);
    fields.process = 8;
    answer = frame_of(MSB_ATTACHED, fields);
  }
  SUBCASE("STARTED") {
    answer = started(7);
  }
  SUBCASE("an offset that overflows") {
    wanted = MSB_OFFSET_END;
    answer = frame_of(MSB_ATTACHED, attached_at(UINT64_MAX - 1)) + frame_of(MSB_STDOUT, "xx");
  }
  SUBCASE("an end before what came") {
    answer = frame_of(MSB_ATTACHED, attached_at(10)) + exited(7, 9);
  }
  SUBCASE("a standard error beside a terminal") {
    answer = frame_of(MSB_ATTACHED, attached_at(10, MSB_ATTACHED_INPUT | MSB_ATTACHED_TERMINAL)) +
             frame_of(MSB_STDERR, "x");
  }
  Wire wire;
  Seen seen;
  Process process = Process::attach(*wire.loop, std::move(wire.host),
                                    {.process = 7, .offsets = {wanted, 0, 0}}, seen.events());
  wire.say("OK 1\n" + answer);
  CHECK(wire.run_until([&] { return seen.over(); }));
  REQUIRE(seen.failed);
  CHECK(seen.failed->stage == 0);
}

TEST_CASE("a process may be let go of from inside its own callbacks") {
  Wire wire;
  std::optional<Process> process;
  int calls = 0;
  Seen seen;
  auto events = seen.events();
  events.started = nullptr;
  events.output = [&](msb_stream, std::span<const std::byte>) {
    ++calls;
    process.reset();
    return true;
  };
  auto begun = Process::start(*wire.loop, std::move(wire.host), spec(), std::move(events));
  REQUIRE(begun);
  process.emplace(std::move(*begun));
  wire.say("OK 1\n" + started() + frame_of(MSB_STDOUT, "a") + frame_of(MSB_STDOUT, "b"));
  CHECK(wire.run_until([&] { return wire.closed(); }));
  CHECK(calls == 1);
}

TEST_CASE("a process that cannot be asked for is refused before anything is sent") {
  Wire wire;
  Seen seen;
  CHECK_FALSE(Process::start(*wire.loop, std::move(wire.host), {}, seen.events()));
  CHECK(wire.hear().empty());
}

}  // namespace
}  // namespace msb::protocol
